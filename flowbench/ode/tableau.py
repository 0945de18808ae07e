"""Butcher tableaux: explicit Runge-Kutta methods as nodes and weights."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tableau:
    """A method of s stages; stage i has the slope k_i = f(t + c_i h, y + h sum_j<i a_ij k_j), and c_1 = 0.

    `nodes` are c_2 to c_s and `stages` the rows a_2 to a_s. `solution` holds the weights of the slopes in the
    step to its end. `error` holds their weights in the difference from an embedded method; None without one.
    `dense` holds, for slope i, the coefficients of theta, theta^2, ... of its weight b_i(theta) in the
    solution at t + theta h. It is None for a method without dense output of its own.
    """

    nodes: tuple[float, ...]
    stages: tuple[tuple[float, ...], ...]
    solution: tuple[float, ...]
    error: tuple[float, ...] | None = None
    dense: tuple[tuple[float, ...], ...] | None = None

    @property
    def first_same_as_last(self) -> bool:
        """Whether the last stage is at the step's end, so that its slope is the first of the next step."""
        return len(self.solution) > 1 and self.solution == (*self.stages[-1], 0.0)

    def weighs(self, *, dense: bool) -> tuple[bool, ...]:
        """For each stage, whether its slope enters a result, and not only later stages.

        Results are the solution, its error and, if `dense`, the solution within the step. Integrals along a
        path need their integrands at these stages only.
        """
        error = self.error or (0.0,) * len(self.solution)
        within = self.interpolant if dense else ((0.0,),) * len(self.solution)
        # The interpolant may have a further row for the slope at the end, which belongs to no stage.
        return tuple(
            weight != 0 or other != 0 or any(row)
            for weight, other, row in zip(self.solution, error, within[: len(self.solution)], strict=True)
        )

    @property
    def interpolant(self) -> tuple[tuple[float, ...], ...]:
        """`dense`, or else the coefficients of Hermite's cubic through both ends and their slopes.

        The cubic needs the slope at the step's end, which then follows those of the stages. Hairer, Norsett
        and Wanner 1993, II.6.
        """
        if self.dense is not None:
            return self.dense
        # Each slope has theta^2 (3 - 2 theta) times its weight in the step; the first slope has theta (1 -
        # theta)^2 more.
        first, *others = (tuple(weight * part for part in (0.0, 3.0, -2.0)) for weight in self.solution)
        start = tuple(part + more for part, more in zip(first, (1.0, -2.0, 1.0), strict=True))
        return start, *others, (0.0, -1.0, 1.0)

    @property
    def cost(self) -> int:
        """Evaluations per step, when the first slope is taken over from the last step where possible."""
        return len(self.solution) - self.first_same_as_last


# Dormand and Prince 1980: 5(4), the pair of ode45. Dense output of order 4: Shampine 1986.
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
    dense=(
        (1.0, -8048581381 / 2820520608, 8663915743 / 2820520608, -12715105075 / 11282082432),
        (0.0, 0.0, 0.0, 0.0),
        (0.0, 131558114200 / 32700410799, -68118460800 / 10900136933, 87487479700 / 32700410799),
        (0.0, -1754552775 / 470086768, 14199869525 / 1410260304, -10690763975 / 1880347072),
        (0.0, 127303824393 / 49829197408, -318862633887 / 49829197408, 701980252875 / 199316789632),
        (0.0, -282668133 / 205662961, 2019193451 / 616988883, -1453857185 / 822651844),
        (0.0, 40617522 / 29380423, -110615467 / 29380423, 69997945 / 29380423),
    ),
)

# Tsitouras 2011: 5(4), with a smaller leading error than Dormand and Prince's, and dense output of order 4.
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
    dense=(
        (1.0, -2.763706197274826, 2.9132554618219126, -1.0530884977290216),
        (0.0, 0.1317, -0.2234, 0.1017),
        (0.0, 3.9302962368947516, -5.941033872131505, 2.490627285651253),
        (0.0, -12.411077166933676, 30.33818863028232, -16.548102889244902),
        (0.0, 37.50931341651104, -88.1789048947664, 47.37952196281928),
        (0.0, -27.896526289197286, 65.09189467479366, -34.87065786149661),
        (0.0, 1.5, -4.0, 2.5),
    ),
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
