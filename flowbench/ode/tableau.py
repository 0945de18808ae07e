"""Explicit Runge-Kutta methods as numbers: where each stage lies and how the slopes are weighted."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tableau:
    """A method of s stages; stage i has the slope k_i = f(t + c_i h, y + h sum_j<i a_ij k_j), and c_1 = 0.

    `nodes` are c_2 to c_s and `stages` the rows a_2 to a_s; `solution` weighs the slopes to the step's end.
    `error`, where there is an embedded method, weighs them to the difference from its answer.
    """

    nodes: tuple[float, ...]
    stages: tuple[tuple[float, ...], ...]
    solution: tuple[float, ...]
    error: tuple[float, ...] | None = None

    @property
    def first_same_as_last(self) -> bool:
        """Whether the last stage is taken at the step's end, so that its slope begins the next step."""
        return len(self.solution) > 1 and self.solution == (*self.stages[-1], 0.0)

    @property
    def weighs(self) -> tuple[bool, ...]:
        """Of each stage, whether its slope counts towards the answer or its error, not to later stages alone.

        Integrals along a path need their integrands at no other.
        """
        error = self.error or (0.0,) * len(self.solution)
        return tuple(weight != 0 or other != 0 for weight, other in zip(self.solution, error, strict=True))

    @property
    def cost(self) -> int:
        """Evaluations per step, when the first slope is kept wherever it can be."""
        return len(self.solution) - self.first_same_as_last


# Dormand and Prince 1980: 5(4), the pair of ode45.
DOPRI5 = Tableau(
    nodes=(1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
    stages=(
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    solution=(35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0.0),
    error=(71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
)

# Tsitouras 2011: 5(4), with a smaller leading error than Dormand and Prince's.
TSIT5 = Tableau(
    nodes=(0.161, 0.327, 0.9, 0.9800255409045097, 1.0, 1.0),
    stages=(
        (0.161,),
        (-0.008480655492356989, 0.335480655492357),
        (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
        (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
        (5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401, -0.028269050394068383),
        (0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081,
         2.324710524099774),
    ),
    solution=(0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081,
              2.324710524099774, 0.0),
    error=(-0.00178001105222577714, -0.0008164344596567469, 0.007880878010261995, -0.1447110071732629,
           0.5823571654525552, -0.45808210592918697, 1 / 66),
)  # fmt: skip

# Kutta's 3/8 rule, which torchdiffeq calls rk4 too; Hairer, Norsett and Wanner 1993, table II.1.2.
RK4 = Tableau(
    nodes=(1 / 3, 2 / 3, 1.0),
    stages=((1 / 3,), (-1 / 3, 1.0), (1.0, -1.0, 1.0)),
    solution=(1 / 8, 3 / 8, 3 / 8, 1 / 8),
)
HEUN = Tableau(nodes=(1.0,), stages=((1.0,),), solution=(1 / 2, 1 / 2))
MIDPOINT = Tableau(nodes=(1 / 2,), stages=((1 / 2,),), solution=(0.0, 1.0))
EULER = Tableau(nodes=(), stages=(), solution=(1.0,))
