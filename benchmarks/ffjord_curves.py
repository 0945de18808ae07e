"""`python -m benchmarks.ffjord_curves TOY...`: train FFJORD's recipe on toys and keep how far it came when.

An hour of one core for each toy, so it is no case of `make bench`: it is run once, and its rows are kept in
`data/ffjord-curves.csv`. A toy that was interrupted starts from its last kept row.
"""

import csv
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.contenders.ffjord import CNF
from benchmarks.problem import save_problem
from flowbench.data import load_dataset
from flowbench.models.continuous.flow import ContinuousFlow, ContinuousOptions
from flowbench.models.continuous.recipes import ffjord
from flowbench.models.density import base_log_prob

CURVES = Path(__file__).resolve().parent / "data" / "ffjord-curves.csv"
COLUMNS = ("toy", "iteration", "cpu_seconds", "test_nll", "nfe", "evaluations", "code")
ITERATIONS, EVERY, BATCH, TEST_ROWS = 10_000, 200, 100, 20_000
TOLERANCE = 1e-5


def train(toy: str, checkpoint: Path) -> None:
    """FFJORD's `train_toy.py`: Adam at 1e-3, L2 weight decay 1e-5, batches of 100 fresh rows.

    `cpu_seconds` are of training alone, `nfe` the forward evaluations of the last batch, `evaluations` all
    those so far, forward and adjoint; `test_nll` in nats on rows that were never trained on.
    """
    drawn = load_dataset(toy, rows=ITERATIONS * BATCH + TEST_ROWS, seed=0)
    rows = torch.tensor(drawn.rows, dtype=torch.float32)
    cnf = _untrained(toy, rows)
    optimizer = torch.optim.Adam(cnf.parameters.parameters(), lr=1e-3, weight_decay=1e-5)
    iteration, seconds, evaluations = 0, 0.0, 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        iteration, seconds, evaluations = state["iteration"], state["seconds"], state["evaluations"]
        cnf.parameters.load_state_dict(state["field"])
        optimizer.load_state_dict(state["optimizer"])
    while iteration < ITERATIONS:
        began = time.process_time()
        optimizer.zero_grad(set_to_none=True)
        batch = rows[TEST_ROWS + iteration * BATCH :][:BATCH]
        z, change = cnf.integrate(batch)
        nfe = cnf.odefunc.nfe
        loss = (change - base_log_prob(z)).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        seconds += time.process_time() - began
        evaluations += cnf.odefunc.nfe
        iteration += 1
        if iteration % EVERY == 0:
            nll = round(_test_nll(cnf, rows), 6)
            _keep((toy, iteration, round(seconds, 1), nll, nfe, evaluations, "recipe"))
            state = {"iteration": iteration, "seconds": seconds, "evaluations": evaluations}
            state |= {"field": cnf.parameters.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save(state, checkpoint)


def _untrained(toy: str, rows: Tensor) -> CNF:
    options = ContinuousOptions.model_validate(ffjord("toy")["flow"])
    with tempfile.TemporaryDirectory() as folder:
        problem = Path(folder) / f"{toy}.npz"
        save_problem(problem, ContinuousFlow(2, options, torch.Generator().manual_seed(0)), rows[:1])
        return CNF(str(problem), TOLERANCE, "float32")


def _test_nll(cnf: CNF, rows: Tensor) -> float:
    total = 0.0
    for chunk in torch.split(rows[:TEST_ROWS], 5000):
        z, change = cnf.integrate(chunk)
        total += float((change - base_log_prob(z)).detach().double().sum())
    return total / TEST_ROWS


def _keep(row: tuple[object, ...]) -> None:
    new = not CURVES.exists()
    CURVES.parent.mkdir(exist_ok=True)
    with CURVES.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(COLUMNS)
        writer.writerow(row)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[1:]:
        train(name, Path(tempfile.gettempdir()) / f"flowbench-ffjord-{name}.pt")
