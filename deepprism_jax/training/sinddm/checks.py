"""What is checked of an experiment on single images before any work."""

from collections.abc import Iterator
from typing import Any

from deepprism_jax.training.preflight import PreflightError, common_problems, divisors
from deepprism_jax.training.sinddm.config import SinDDMConfig

_LEAST = {
    "model.width": 1,
    "model.fields": 1,
    "model.groups": 1,
    "model.rank": 1,
    "model.embedding": 4,
    "diffusion.times": 2,
    "diffusion.coarsest": 0,
}


def check(config: SinDDMConfig, *, devices: int, processes: int = 1) -> None:
    """Check a config against itself and the devices.

    Args:
        config: the experiment.
        devices: devices over all processes.
        processes: processes of the run; any number will do.

    Raises:
        PreflightError: with all problems that there are.
    """
    del processes
    problems = [
        *common_problems(config, _LEAST),
        *_particular(config),
        *_mesh(config.mesh, devices),
    ]
    if problems:
        raise PreflightError(*problems)


def _particular(config: SinDDMConfig) -> Iterator[str]:
    if not config.diffusion.factor > 1:
        yield f"diffusion.factor={config.diffusion.factor} must be above 1"
    if not -4 <= (power := config.diffusion.favour_small) <= 4:
        yield f"diffusion.favour_small={power} must lie in [-4, 4]"
    if config.train.accumulation > 1:
        yield (
            f"train.accumulation={config.train.accumulation}: a batch of single images "
            "is not cut into pieces; set a smaller --train.batch-size"
        )
    if config.train.keep_best > 0:
        yield (
            f"train.keep_best={config.train.keep_best}: samples of a single image have "
            "no score by which one checkpoint is best; set --train.keep-best 0"
        )


def _mesh(mesh: Any, devices: int) -> Iterator[str]:
    if mesh.channel != 1:
        yield (
            f"mesh.channel={mesh.channel}: these denoisers are not cut; set "
            "--mesh.channel 1"
        )
    for name, size, least in (("data", mesh.data, 0), ("fsdp", mesh.fsdp, 1)):
        if size < least or (size and devices % size):
            yield (
                f"mesh.{name}={size} must divide the {devices} devices; choose one of "
                f"{divisors(devices)}"
            )
