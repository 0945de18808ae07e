"""A toy series from a physics simulation: a hopper that is dropped and falls over."""

import warnings
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from flowbench.data.series_dataset import Floats
from flowbench.data.toy_series import ToySeries
from flowbench.errors import ConfigurationError

#: The seven coordinates of the hopper; its velocities have their names with `_velocity`.
COORDINATES = ("x", "z", "torso", "waist", "hip", "knee", "ankle")


class Hopper(ToySeries):
    """A hopper that falls from a random pose at a random velocity (Rubanova et al. 2019, section 4.2).

    The hopper of the DeepMind Control Suite (Tassa et al. 2018) is simulated by MuJoCo for `LENGTH` steps
    of 5 ms. A series is `steps` consecutive ones, of which `points` are seen, in seconds. There is no noise.
    Raises `ConfigurationError` if the package `dm_control` is not installed.
    """

    name: ClassVar[str] = "hopper"
    description: ClassVar[str] = (
        "poses and velocities of a simulated hopper that falls, seen at irregular times"
    )
    columns: ClassVar[tuple[str, ...]] = (*COORDINATES, *(f"{each}_velocity" for each in COORDINATES))
    #: Steps of a whole episode, and seconds of a step.
    LENGTH, STEP = 200, 0.005

    def __init__(self, points: int = 50, steps: int = 100) -> None:
        if find_spec("dm_control") is None:
            raise ConfigurationError(
                "the hopper is simulated by the package dm_control, which is not installed; in a checkout of "
                "flowbench, pip install '.[hopper]' brings it"
            )
        self.noise = 0.0
        self.points = points
        self.steps = steps
        self._physics: Any = None

    def _draw(self, rng: np.random.Generator) -> tuple[Floats, Floats]:
        episode = self.episode(rng).astype(np.float64)
        start = int(rng.integers(0, self.LENGTH - self.steps + 1))
        seen = np.sort(rng.choice(self.steps, self.points, replace=False))
        times: Floats = seen.astype(np.float64) * self.STEP
        return times, episode[start + seen]

    def episode(self, rng: np.random.Generator | np.random.RandomState) -> NDArray[np.float32]:
        """The columns at each step of one episode: `(LENGTH, 14)`.

        The first state is drawn as in the code of Rubanova et al., in its order.
        """
        physics = self._simulation()
        coordinates, velocities = physics.data.qpos, physics.data.qvel
        with physics.reset_context():
            # The foot may begin below the ground, which then throws the hopper up.
            coordinates[:2] = rng.uniform(0, 0.5, 2)
            coordinates[2:] = rng.uniform(-2, 2, 5)
            velocities[:] = rng.uniform(-5, 5, 7)
        states = np.empty((self.LENGTH, len(self.columns)), np.float32)
        for state in states:
            state[:7], state[7:] = coordinates, velocities
            physics.step()
        return states

    def _simulation(self) -> Any:
        if self._physics is None:
            with warnings.catch_warnings():
                # Of a missing display: nothing is shown here.
                warnings.simplefilter("ignore")
                from dm_control import suite
            self._physics = suite.load("hopper", "stand").physics
        return self._physics
