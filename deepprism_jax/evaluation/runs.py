"""Which run a path names, and which of its checkpoints."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepprism_jax.training.checkpoints import Checkpoints
from deepprism_jax.training.preflight import PreflightError, refusing
from deepprism_jax.training.workdir import read_config
from deepprism_jax.weights.items import steps
from deepprism_jax.weights.pretrained import (
    CHECKPOINTS,
    CONFIG,
    ORBAX,
    WEIGHTS,
    checkpoint_at,
    class_name,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FoundRun:
    """A run with a checkpoint."""

    workdir: Path
    config: Any
    checkpoint: Path
    results: Path
    """Where figures belong: the work directory or, of a chosen checkpoint, in it."""
    step: int
    """Training step of the checkpoint."""


def find_run(path: Path, config: type, *, model: str, export: str) -> FoundRun | None:
    """Find a run of one kind, or one checkpoint of it, `RUN/checkpoints/N`.

    Args:
        path: of either.
        config: class of such a run's config.
        model: class of its models.
        export: what an export of one is and lacks, and what to give instead.

    Returns None where it is anything else.

    Raises:
        PreflightError: it is such a run but has no checkpoint, or it is an export.
    """
    with refusing():
        chosen = checkpoint_at(path)
    workdir = path if chosen is None else path.absolute().parents[1]
    if (workdir / WEIGHTS).is_file() or (workdir / ORBAX).is_dir():
        with refusing():
            exported = class_name(workdir)
        if exported == model:
            raise PreflightError(f"{workdir} is {export}")
        return None
    if not (workdir / CONFIG).is_file():
        return None
    with refusing():
        of_run = read_config(workdir)
    if not isinstance(of_run, config):
        return None
    if not steps(workdir / CHECKPOINTS):
        raise PreflightError(
            f"{workdir} has no checkpoint yet; wait for the first one of its run"
        )
    if chosen is not None:
        where, results = Path(str(chosen)), workdir / f"eval-{chosen.name}"
    else:
        where, results = newest_checkpoint(workdir), workdir
    return FoundRun(workdir, of_run, where, results, int(where.name))


def newest_checkpoint(workdir: Path) -> Path:
    """Return the newest checkpoint of a run that can be read.

    Raises:
        PreflightError: none can be.
    """
    checkpoints = Checkpoints(workdir / CHECKPOINTS, keep=1, say=log.warning)
    step, _ = checkpoints.restore({"config": None})
    return workdir / CHECKPOINTS / str(step)
