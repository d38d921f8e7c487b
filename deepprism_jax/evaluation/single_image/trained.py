"""The models of a run of single-image diffusion, each with the image it learnt."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from deepprism_jax.data.images import decode_whole
from deepprism_jax.diffusion.multiscale import MultiScale
from deepprism_jax.models.sinddm import SinDDM
from deepprism_jax.training.checkpoints import Checkpoints
from deepprism_jax.training.preflight import PreflightError, refusing
from deepprism_jax.training.sinddm.config import SinDDMConfig
from deepprism_jax.training.sinddm.process import make_process
from deepprism_jax.training.sinddm.system import IMAGES
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


class Trained(NamedTuple):
    """One model of a run."""

    name: str
    """Of its image."""
    image: UInt8[np.ndarray, "h w c"]
    network: SinDDM
    process: MultiScale


@dataclass(frozen=True)
class TrainedRun:
    """A run of one model, or of several, each of an image."""

    workdir: Path
    config: SinDDMConfig
    checkpoint: Path
    results: Path
    """Where figures belong: the work directory or, of a chosen checkpoint, in it."""
    images: dict[str, UInt8[np.ndarray, "_ _ _"]] = field(repr=False)
    """The training images by name."""

    @property
    def step(self) -> int:
        """Training step of the checkpoint."""
        return int(self.checkpoint.name)

    def load(self, name: str) -> Trained:
        """Return the model of a training image.

        Raises:
            PreflightError: it cannot be read.
        """
        image = self.images[name]
        with refusing():
            network = SinDDM.from_pretrained(self.checkpoint, model=name)
            _, process = make_process(self.config, image)
        return Trained(name, image, network, process)


def open_run(path: Path) -> TrainedRun | None:
    """Open a run of single-image models, or one checkpoint of it, `RUN/checkpoints/N`.

    Returns None where it is anything else.

    Raises:
        PreflightError: it is such a run but has no checkpoint or no training image, or
            it is an export of such a model, which lacks its image.
    """
    with refusing():
        chosen = checkpoint_at(path)
    workdir = path if chosen is None else path.absolute().parents[1]
    if (workdir / WEIGHTS).is_file() or (workdir / ORBAX).is_dir():
        with refusing():
            exported = class_name(workdir)
        if exported == SinDDM.__name__:
            raise PreflightError(
                f"{workdir} is an exported model of one image, and does not hold that "
                "image: give the work directory of its run, or a folder of samples "
                "and --real"
            )
        return None
    if not (workdir / CONFIG).is_file():
        return None
    with refusing():
        config = read_config(workdir)
    if not isinstance(config, SinDDMConfig):
        return None
    if not steps(workdir / CHECKPOINTS):
        raise PreflightError(
            f"{workdir} has no checkpoint yet; wait for the first one of its run"
        )
    if chosen is not None:
        checkpoint, results = Path(str(chosen)), workdir / f"eval-{chosen.name}"
    else:
        checkpoints = Checkpoints(workdir / CHECKPOINTS, keep=1, say=log.warning)
        step, _ = checkpoints.restore({"config": None})  # the newest that is readable
        checkpoint, results = workdir / CHECKPOINTS / str(step), workdir
    return TrainedRun(workdir, config, checkpoint, results, _images(workdir, config))


def _images(workdir: Path, config: SinDDMConfig) -> dict[str, np.ndarray]:
    files = sorted((workdir / IMAGES).glob("*.png"))
    if not files:
        raise PreflightError(
            f"{workdir / IMAGES} has no training image in it; bring the images that "
            "the run has written there"
        )
    channels = config.data.channels
    with refusing():
        return {file.stem: decode_whole(file, channels) for file in files}
