"""The models of a run of single-image diffusion, each with the image it learnt."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from deepprism_jax.data.images import decode_whole
from deepprism_jax.diffusion.multiscale import MultiScale
from deepprism_jax.evaluation.runs import find_run
from deepprism_jax.models.sinddm import SinDDM
from deepprism_jax.training.preflight import PreflightError, refusing
from deepprism_jax.training.sinddm.config import SinDDMConfig
from deepprism_jax.training.sinddm.process import make_process
from deepprism_jax.training.sinddm.system import IMAGES


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
    run = find_run(
        path,
        SinDDMConfig,
        model=SinDDM.__name__,
        export="an exported model of one image, and does not hold that image: give the "
        "work directory of its run, or a folder of samples and --real",
    )
    if run is None:
        return None
    images = _images(run.workdir, run.config)
    return TrainedRun(run.workdir, run.config, run.checkpoint, run.results, images)


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
