"""The kinds of experiment, and what the training program asks of each.

A system is a module `training.NAME.system` with the functions of `System`; its configs
are of one class, by which it is found. All else, from the loop and the checkpoints to
the mesh, is the same for all.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np

from deepprism_jax.paths import AnyPath
from deepprism_jax.training.config import Config
from deepprism_jax.training.ldm.config import LDMConfig
from deepprism_jax.training.setup import Data
from deepprism_jax.training.sinddm.config import SinDDMConfig

CONFIGS: dict[str, type] = {
    "autoencoder": Config,
    "ldm": LDMConfig,
    "sinddm": SinDDMConfig,
}
"""Class of the configs of every system, by its name."""

Experiment = Config | LDMConfig | SinDDMConfig


@runtime_checkable
class Evaluator(Protocol):
    """What is measured and shown of a model during training."""

    ranking: str | None
    """The score, higher is better, by which checkpoints are kept; None if none is."""

    def scores(self, values: Any) -> Mapping[str, float]:
        """Return scores by name; none if the evaluation was interrupted."""
        ...

    def pictures(self, values: Any) -> Mapping[str, np.ndarray]:
        """Return pictures, uint8 [H, W, 3], by name; every process calls."""
        ...


@runtime_checkable
class System(Protocol):
    """What is particular to one kind of experiment."""

    def check(self, config: Any, *, devices: int, processes: int = 1) -> None:
        """Check a config against itself and the devices, or raise PreflightError."""
        ...

    def make_trainer(self, config: Any) -> Any:
        """Check config and files, and return its trainer on a mesh of all devices."""
        ...

    def planned_trainer(self, config: Any, devices: Any) -> Any:
        """Return its trainer on devices that need not be there; nothing is computed."""
        ...

    def open_data(self, config: Any) -> Data:
        """Open its data, or raise PreflightError."""
        ...

    def make_evaluator(
        self, trainer: Any, data: Data, interrupted: Callable[..., bool]
    ) -> Evaluator:
        """Return what evaluates it.

        `interrupted` is asked now and then; it may be told what is done next.
        """
        ...

    def keep_inputs(self, workdir: AnyPath, data: Data) -> None:
        """Write what is needed to use the model later, or raise PreflightError."""
        ...

    def prepare(
        self,
        trainer: Any,
        data: Data,
        workdir: AnyPath,
        begin: Callable[[str, int], None],
    ) -> None:
        """Make what is needed before the first step, or raise PreflightError; all call.

        `begin` is told what is done next; what it raises ends the run.
        """
        ...

    def mesh_shape(self, config: Any, devices: int) -> dict[str, int]:
        """Return how that many devices are arranged: sizes by axis."""
        ...

    def networks(self, config: Any) -> dict[str, Any]:
        """Return the shapes of all that is trained, by network and name."""
        ...

    def batch_line(self, config: Any) -> str:
        """Say how a batch is cut."""
        ...

    def images_per_step(self, config: Any, data: Data) -> int:
        """Return how many images a step works on, over all devices."""
        ...

    def data_line(self, config: Any, data: Data) -> str:
        """Say which images there are."""
        ...

    def spanned(self, config: Any) -> list[str]:
        """Name what is laid out over `train.steps`, besides the learning rate."""
        ...

    def ideal_seconds(self, trainer: Any) -> Callable[[int], float] | None:
        """Return what a step takes at the devices' peak, or None if not known."""
        ...


def name_of(config: Experiment) -> str:
    """Return the name of the system that a config is of."""
    return next(name for name, cls in CONFIGS.items() if type(config) is cls)


def system_of(config: Experiment) -> System:
    """Return the system that a config is of."""
    module = import_module(f"deepprism_jax.training.{name_of(config)}.system")
    return cast(System, module)


def check(config: Experiment, *, devices: int, processes: int = 1) -> None:
    """See `System.check`."""
    system_of(config).check(config, devices=devices, processes=processes)


def make_trainer(config: Experiment) -> Any:
    """See `System.make_trainer`."""
    return system_of(config).make_trainer(config)


def open_data(config: Experiment) -> Data:
    """See `System.open_data`."""
    return system_of(config).open_data(config)
