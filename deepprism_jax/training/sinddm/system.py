"""Single-image diffusion as a system: from its config to what training runs."""

import io
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx
from PIL import Image

from deepprism_jax.data.images import to_channels, to_pillow
from deepprism_jax.layers.functional import Functional
from deepprism_jax.paths import AnyPath, write_whole
from deepprism_jax.training.preflight import PreflightError, plural, refusing
from deepprism_jax.training.setup import Data
from deepprism_jax.training.sharding import AXES, make_mesh, mesh_sizes
from deepprism_jax.training.sinddm.checks import check as check
from deepprism_jax.training.sinddm.config import SinDDMConfig
from deepprism_jax.training.sinddm.evaluator import SinDDMEvaluator
from deepprism_jax.training.sinddm.pictures import count_pictures, read_pictures
from deepprism_jax.training.sinddm.process import make_process
from deepprism_jax.training.sinddm.steps import Steps
from deepprism_jax.training.sinddm.trainer import SinDDMTrainer, make_denoiser
from deepprism_jax.weights.items import steps
from deepprism_jax.weights.pretrained import CHECKPOINTS

IMAGES = "images"
"""Folder in the work directory with the images that the models are trained on."""


def make_trainer(config: SinDDMConfig) -> SinDDMTrainer:
    """Check the config and make its denoisers on a mesh of all devices.

    Raises:
        PreflightError: the config contradicts itself, the devices or the images.
    """
    check(config, devices=jax.device_count(), processes=jax.process_count())
    with refusing():
        return planned_trainer(config, jax.devices())


def planned_trainer(config: SinDDMConfig, devices: Any) -> SinDDMTrainer:
    """Return the trainer on devices that need not be there.

    Raises:
        ValueError, OSError: the denoisers cannot be made, or an image not be read.
    """
    pictures = read_pictures(config.data)
    sizes = _mesh_sizes(config, len(devices), len(pictures))
    mesh = make_mesh(devices, **dict(zip(AXES, sizes, strict=True)))
    return SinDDMTrainer(config, mesh, pictures)


def open_data(config: SinDDMConfig) -> Data:
    """Read the images.

    Raises:
        PreflightError: one cannot be read, or they do not fit.
    """
    with refusing():
        pictures = read_pictures(config.data)
        _, process = make_process(config, next(iter(pictures.values())))
    stream = Steps(
        process.sizes,
        config.diffusion.favour_small,
        seed=config.train.seed,
        images=len(pictures),
    )
    return Data(stream, pictures, len(pictures), 0)


def make_evaluator(
    trainer: SinDDMTrainer, data: Data, interrupted: Callable[..., bool]
) -> SinDDMEvaluator:
    """Return what measures errors and draws samples."""
    return SinDDMEvaluator(trainer, data.held_out, interrupted)


def keep_inputs(workdir: AnyPath, data: Data) -> None:
    """Keep the images in the work directory, as samples are drawn by them too.

    Raises:
        PreflightError: others are there, or they cannot be written.
    """
    folder = workdir / IMAGES
    with refusing():
        found = folder.iterdir() if folder.is_dir() else ()
        there = {path.name for path in found if path.name.endswith(".png")}
        files = {f"{name}.png": image for name, image in data.held_out.items()}
        # What broke off before its first checkpoint may not have written them all.
        begun = bool(steps(workdir / CHECKPOINTS))
        if there - set(files) or (begun and there != set(files)):
            raise PreflightError(
                f"{folder} holds other images than data.path: bring those back, or "
                "choose another --workdir"
            )
        for name in sorted(there):
            _check_same(folder / name, files[name])
        folder.mkdir(parents=True, exist_ok=True)
        for name in files.keys() - there:
            write_whole(folder / name, _png(files[name]))


def prepare(
    trainer: SinDDMTrainer,
    data: Data,
    workdir: AnyPath,
    begin: Callable[[str, int], None],
) -> None:
    """Nothing."""
    del trainer, data, workdir, begin


def mesh_shape(config: SinDDMConfig, devices: int) -> dict[str, int]:
    """Return how that many devices are arranged: sizes by axis."""
    with refusing():
        sizes = _mesh_sizes(config, devices, count_pictures(config.data))
    return dict(zip(AXES, sizes, strict=True))


def networks(config: SinDDMConfig) -> dict[str, Any]:
    """Return the shapes of one denoiser, by name.

    Raises:
        PreflightError: it cannot be made.
    """
    with refusing():
        module = nnx.eval_shape(lambda: make_denoiser(config, nnx.Rngs(0)))
    return {"denoiser": Functional(module).shapes}


def batch_line(config: SinDDMConfig) -> str:
    """Say how models and copies are spread."""
    shape = mesh_shape(config, jax.device_count())
    copies = config.train.batch_size
    each = copies // shape["fsdp"]
    return (
        f"batch: {copies} {'copy' if copies == 1 else 'copies'} of each image a step, "
        f"{each} on a device; models in {shape['data']} {plural(shape['data'], 'part')}"
    )


def data_line(config: SinDDMConfig, data: Data) -> str:
    """Say which images there are, and at which scales."""
    image = next(iter(data.held_out.values()))
    _, process = make_process(config, image)
    sizes = ", ".join(f"{height}x{width}" for height, width in process.sizes)
    count = data.train_images
    which = next(iter(data.held_out)) if count == 1 else f"{count} images"
    times = ", ".join(map(str, process.starts))
    return f"data: {which} at {len(process.sizes)} scales, {sizes}; times {times}"


def images_per_step(config: SinDDMConfig, data: Data) -> int:
    """Return how many noised copies of all images a step works on."""
    return config.train.batch_size * data.train_images


def spanned(config: SinDDMConfig) -> list[str]:
    """Nothing but the learning rate is laid out over `train.steps`."""
    del config
    return []


def ideal_seconds(trainer: SinDDMTrainer) -> None:
    """No figure: a step draws its scale, and each takes another time."""
    del trainer


def _mesh_sizes(
    config: SinDDMConfig, devices: int, models: int
) -> tuple[int, int, int]:
    """Return the axes of the mesh: models over `data`, copies over `fsdp`.

    Raises:
        ValueError: models or copies cannot be shared out.
    """
    data, fsdp, copies = config.mesh.data, config.mesh.fsdp, config.train.batch_size
    if data == 0 and fsdp == 1:
        data = math.gcd(models, devices)
    if data and fsdp == 1:
        fsdp = devices // data
    data, fsdp, _ = mesh_sizes(devices, data=data, fsdp=fsdp)
    if models % data:
        raise ValueError(
            f"mesh.data={data} must divide the {models} models, one an image; leave it "
            "out, or give another number of images"
        )
    if copies % fsdp:
        near = max(round(copies / fsdp), 1) * fsdp
        raise ValueError(
            f"train.batch_size={copies} must be divisible by the {fsdp} devices that "
            f"share the copies of an image; the nearest is {near}"
        )
    return data, fsdp, 1


def _png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    to_pillow(image).save(file, format="PNG")
    return file.getvalue()


def _check_same(path: AnyPath, image: np.ndarray) -> None:
    try:
        with Image.open(io.BytesIO(path.read_bytes())) as file:
            there = np.asarray(file)
    except OSError:
        raise PreflightError(
            f"{path} is damaged: bring the image back that was there"
        ) from None
    there = to_channels(there.reshape(*there.shape[:2], -1), image.shape[-1])
    if there.shape != image.shape or not np.array_equal(there, image):
        raise PreflightError(
            f"{path} is not the image that data.path names now: bring that back, or "
            "choose another --workdir"
        )
