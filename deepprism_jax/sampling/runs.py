"""A run to draw from: what kind of model it trained, and which checkpoint is meant."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepprism_jax.evaluation.pretrained import Pretrained, open_pretrained
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
    pretrained: Pretrained | None = None
    """The model of the package that this is."""

    @property
    def results(self) -> Path:
        """Where folders of drawn images go, and compiled programs are kept."""
        return self.pretrained.results if self.pretrained else self.workdir

    def step_of(self, checkpoint: Path) -> int:
        """Return the training step of a checkpoint."""
        return self.pretrained.step if self.pretrained else int(checkpoint.name)


def of_package(name: str, kinds: Collection[str]) -> Run:
    """Return a model of the package as if it were a run.

    Args:
        name: of the model.
        kinds: systems whose models draw images.

    Raises:
        PreflightError: there is none of this name.
        ValueError: it is of another kind.
    """
    found = open_pretrained(name)
    _check_kind(f"{name} is a model", found.kind, kinds)
    return Run(found.folder, found.kind, found.config, found.folder, found)


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
    _check_kind(f"{workdir} is a run", kind, kinds)
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


def _check_kind(what: str, kind: str, kinds: Collection[str]) -> None:
    if kind not in kinds:
        raise ValueError(
            f"{what} of the kind {kind}, whose models draw no images; give one of the "
            f"kind {' or '.join(kinds)}"
        )
