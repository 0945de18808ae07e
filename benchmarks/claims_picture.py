"""`python -m benchmarks.claims_picture`: draw what continuous depth offers, from claims that were measured.

Reads what `make gallery ARGS=claims` left in claims/, and writes `docs/claims.webp` for the README.
"""

import io

from matplotlib.figure import Figure
from PIL import Image

from benchmarks.harness import ROOT
from flowbench.report.figures.study_figures import draw_on
from flowbench.report.figures.style import figure_style
from flowbench.store.findings import Chart, read_findings

PAGE = ROOT / "docs" / "claims.webp"
#: The claim, the title of one of its charts, and what the panel shows.
PANELS = (
    ("spirals", "latent-ode, clockwise, 30 points seen", "a spiral, seen at 30 irregular times"),
    ("hopper", "Extrapolation, 10% seen: height", "a falling hopper, predicted by a latent ODE"),
    ("memory", "ODE network: saved by autograd", "memory of a training step"),
    ("adaptive-depth", "classifier (a)", "one network, solved at many tolerances"),
)
INCHES, DPI = (12.4, 3.5), 130


def main() -> None:
    """Draw one panel for each claim."""
    with figure_style():
        figure = Figure(figsize=INCHES, layout="constrained")
        for axes, (claim, title, label) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
            draw_on(axes, chart_of(claim, title))
            axes.grid(False)
            axes.set_title(label, fontsize=9, loc="left")
            if len(axes.get_lines()) > 1:
                axes.legend(fontsize=8, handlelength=2)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=DPI, facecolor="white")
    Image.open(buffer).convert("RGB").save(PAGE, quality=88, method=6)
    print(f"{PAGE}: {PAGE.stat().st_size / 1e3:.0f} kB")


def chart_of(claim: str, title: str) -> Chart:
    """A chart of the default study of a claim."""
    findings = read_findings(ROOT / "claims" / f"{claim}-default")
    return next(chart for chart in findings.charts if chart.title == title)


if __name__ == "__main__":
    main()
