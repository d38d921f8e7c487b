"""A run to draw from: what kind of model it trained, and which checkpoint is meant."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepprism_jax.evaluation.runs import newest_checkpoint
from deepprism_jax.training.systems import name_of
from deepprism_jax.training.workdir import read_config
from deepprism_jax.weights.items import steps
from deepprism_jax.weights.pretrained import CHECKPOINTS, ORBAX, WEIGHTS, checkpoint_at


@dataclass(frozen=True)
class Run:
    """A work directory with something to draw from."""

    workdir: Path
    kind: str
    """Name of its system, see `training.systems`."""
    config: Any
    """Of the experiment."""
    checkpoint: Path | None
    """The one that was asked for; None is the newest."""


def open_run(path: Path, kinds: Collection[str]) -> Run:
    """Find out what a work directory, or a checkpoint of one, holds.

    Args:
        path: of either.
        kinds: systems whose models draw images.

    Raises:
        FileNotFoundError: it is neither, or has no checkpoint.
        ValueError: it is of another kind, an export or in a bucket, or its config is
            damaged.
    """
    if path.parts[:1] == ("gs:",):
        raise ValueError(
            "runs in a bucket are not drawn from; copy the run here first, with "
            "`gcloud storage cp -r`"
        )
    chosen = checkpoint_at(path)
    workdir = path if chosen is None else path.absolute().parents[1]
    if not workdir.is_dir():
        raise FileNotFoundError(
            f"{workdir} is no directory; give the work directory of a run"
        )
    if (workdir / WEIGHTS).is_file() or (workdir / ORBAX).is_dir():
        raise ValueError(
            f"{workdir} is an exported model, which does not hold its training image "
            "or autoencoder; give the work directory of its run"
        )
    config = read_config(workdir)
    kind = name_of(config)
    if kind not in kinds:
        raise ValueError(
            f"{workdir} is a run of the kind {kind}, whose models draw no images; give "
            f"one of the kind {' or '.join(kinds)}"
        )
    if not steps(workdir / CHECKPOINTS):
        raise FileNotFoundError(
            f"{workdir} has no checkpoint yet; wait for the first one of its run"
        )
    where = None if chosen is None else Path(str(chosen))
    return Run(workdir, kind, config, where)


def checkpoint_of(run: Run) -> Path:
    """Return the checkpoint that is meant, or the newest that can be read.

    Raises:
        PreflightError: none can be read.
    """
    return run.checkpoint or newest_checkpoint(run.workdir)
