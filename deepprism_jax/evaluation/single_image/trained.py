"""The models of a run of single-image diffusion, each with the image it learnt."""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from deepprism_jax.data.images import decode_whole
from deepprism_jax.diffusion.multiscale import MultiScale
from deepprism_jax.evaluation.pretrained import Pretrained
from deepprism_jax.evaluation.runs import FoundRun, find_run
from deepprism_jax.models.sinddm import SinDDM
from deepprism_jax.training.preflight import PreflightError, refusing
from deepprism_jax.training.sinddm.config import SinDDMConfig
from deepprism_jax.training.sinddm.pictures import read_pictures
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
    step: int
    """Training step of the checkpoint."""
    images: dict[str, UInt8[np.ndarray, "_ _ _"]] = field(repr=False)
    """The training images by name."""
    notes: tuple[str, ...] = ()
    """What a reader of figures must know."""

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
    return _with(run, _images(run.workdir, run.config))


def of_package(model: Pretrained, real: Path | None) -> TrainedRun:
    """Return a model of the package with the image that it learnt.

    Args:
        model: of one image.
        real: file of that image, which does not come with the package; None where it
            was trained on the photograph that is there anyway.

    Raises:
        PreflightError: the image is not given, or is of another size.
    """
    assert model.image is not None
    name, (height, width, _) = model.image
    data = model.config.data
    if real is None and data.path:
        raise PreflightError(
            f"{model.name} is to be measured beside its training image, which does not "
            f"come with the package: give {name} as --real IMAGE"
        )
    if real is not None and not real.is_file():
        what = "a folder" if real.is_dir() else "not there"
        raise PreflightError(f"--real {real} is {what}: give the image {name}")
    with refusing():
        (image,) = read_pictures(replace(data, path=str(real or ""))).values()
    if image.shape[:2] != (height, width):
        given = f"{image.shape[0]}x{image.shape[1]}"
        raise PreflightError(
            f"--real {real} becomes {given} px, and {model.name} has learnt an image "
            f"of {height}x{width}: give {name}"
        )
    found = _with(model.as_run, {name: image})
    if model.digest in ("", digest_of(image)):
        return found
    told = (
        f"{real or name}: its pixels are not those that {model.name} has learnt: it is "
        "another image, or was shrunk by another program"
    )
    return replace(found, notes=(told,))


def digest_of(image: UInt8[np.ndarray, "_ _ _"]) -> str:
    """Return the SHA-256 of an image's numbers."""
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()


def _with(run: FoundRun, images: dict[str, np.ndarray]) -> TrainedRun:
    return TrainedRun(
        run.workdir, run.config, run.checkpoint, run.results, run.step, images
    )


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
