"""Latent diffusion as a system: from its config to what the training program runs."""

import functools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from flax import nnx

from deepprism_jax.data import (
    EvalBatches,
    Source,
    class_names,
    eval_batches,
    train_batches,
)
from deepprism_jax.layers.functional import Functional
from deepprism_jax.models import AutoencoderVQ
from deepprism_jax.paths import AnyPath, is_remote, write_whole
from deepprism_jax.training.ldm.cache import Part
from deepprism_jax.training.ldm.checks import check as check
from deepprism_jax.training.ldm.config import LDMConfig
from deepprism_jax.training.ldm.encoding import latents_of, make_encode
from deepprism_jax.training.ldm.evaluator import LDMEvaluator
from deepprism_jax.training.ldm.latents import HeldOut, LatentBatches, Latents
from deepprism_jax.training.ldm.networks import (
    check_autoencoder,
    fingerprint,
    latent_shape,
    make_unet,
    open_autoencoder,
)
from deepprism_jax.training.ldm.trainer import LDMTrainer
from deepprism_jax.training.preflight import PreflightError, plural, refusing
from deepprism_jax.training.setup import Data, mesh_of, open_split
from deepprism_jax.training.setup import mesh_shape as mesh_shape
from deepprism_jax.training.sharding import batch_parts, data_part
from deepprism_jax.weights.items import all_or_none
from deepprism_jax.weights.pretrained import save_pretrained
from deepprism_jax.weights.together import first_problem, from_first

AUTOENCODER, CLASSES = "autoencoder", "classes.json"
"""In a work directory: an export of the autoencoder, and the names of the classes."""

EVAL_LATENTS = 1024
"""Held-out latents, where `train.eval_images` does not say."""


def make_trainer(config: LDMConfig) -> LDMTrainer:
    """Check the config and make its U-Net on a mesh of all devices.

    Raises:
        PreflightError: the config contradicts itself, the devices or the autoencoder.
    """
    check(config, devices=jax.device_count(), processes=jax.process_count())
    with refusing():
        autoencoder = _autoencoder(config)
        certain = isinstance(autoencoder, AutoencoderVQ)
        return LDMTrainer(config, mesh_of(config), autoencoder, certain=certain)


def planned_trainer(config: LDMConfig, devices: Any) -> LDMTrainer:
    """Return the trainer on devices that need not be there; no weights are read.

    Raises:
        ValueError: the U-Net cannot be made, or does not take the latents.
    """
    return LDMTrainer(config, mesh_of(config, devices), certain=False)


def open_data(config: LDMConfig) -> Data:
    """Open both splits of the config's data; latents are made later, by `prepare`.

    Raises:
        PreflightError: a split is missing, empty or damaged, or has other classes; or
            the cache holds latents of something else.
    """
    data, train = config.data, config.train
    with refusing():
        if is_remote(data.latents):
            raise ValueError(
                f"data.latents={data.latents} must be on a file system that all "
                "processes share, for latents are mapped to memory"
            )
        index, count = data_part(mesh_of(config))
        shared = {"process_index": index, "process_count": count}
        source = open_split(data, data.train_split)
        held_out = open_split(data, data.eval_split)
        names = _check_classes(config, source, held_out)
        autoencoder = _autoencoder(config)
        if autoencoder is None:
            batches = train_batches(
                source,
                batch_size=train.batch_size,
                image_size=data.image_size,
                channels=data.channels,
                seed=train.seed,
                crop="center",
                flip=data.flip,
                labels=bool(names),
                pieces=train.accumulation,
                **shared,
            )
            images = _in_order(config, held_out, limit=_held_out(config), **shared)
            counts = len(source), images.images
            return Data(batches, HeldOut(None, images, names), *counts)
        ours = fingerprint(autoencoder)

        def latents(split: str, source: Source, *, limit: int, flip: bool) -> Latents:
            images = _in_order(config, source, limit=limit, **shared)
            part = Part(index, count)
            found = latents_of(
                data, split, source, images, part, autoencoder=ours, flip=flip
            )
            found.check()
            return found

        to_train = latents(data.train_split, source, limit=0, flip=data.flip)
        to_hold = latents(
            data.eval_split, held_out, limit=_held_out(config), flip=False
        )
        batches = LatentBatches(
            to_train,
            batch_size=train.batch_size,
            seed=train.seed,
            labels=bool(names),
            pieces=train.accumulation,
            **shared,
        )
        kept = HeldOut(to_hold, to_hold.images, names)
        return Data(batches, kept, len(source), to_hold.images.images)


def prepare(
    trainer: LDMTrainer, data: Data, workdir: AnyPath, begin: Callable[[str, int], None]
) -> None:
    """Keep the autoencoder in the work directory, and make the latents; all call.

    Args:
        trainer: of the run; learns the moments of its latents.
        data: of the run.
        workdir: of the run.
        begin: told what is done next; what it raises ends the run.

    Raises:
        PreflightError: what is there is of another autoencoder, or cannot be written.
    """
    held_out: HeldOut = data.held_out
    if trainer.autoencoder is None or held_out.latents is None:
        return
    with refusing():
        _keep_autoencoder(trainer.autoencoder, workdir / AUTOENCODER)
        encode = make_encode(trainer.autoencoder, trainer.mesh)
        for what, latents in (
            ("training", data.train.latents),
            ("held-out", held_out.latents),
        ):
            there = latents.check()
            if first_problem(None if there else "missing") is None:
                continue

            def proceed(done: int, what: str = what) -> None:
                begin(f"latents of {what} images, from number", done)

            # One process looks for all: they encode a piece together, or not at all.
            pieces = from_first(latents.missing())
            all_or_none(functools.partial(latents.make, encode, proceed, pieces))
        trainer.moments = data.train.latents.cache().moments()


def make_evaluator(
    trainer: LDMTrainer, data: Data, interrupted: Callable[..., bool]
) -> LDMEvaluator:
    """Return what measures errors and draws samples."""
    return LDMEvaluator(trainer, data.held_out, interrupted)


def keep_inputs(workdir: AnyPath, data: Data) -> None:
    """Write the names of the classes.

    Raises:
        PreflightError: they cannot be written.
    """
    if data.held_out.classes:
        with refusing():
            text = json.dumps(list(data.held_out.classes), indent=2) + "\n"
            write_whole(workdir / CLASSES, text)


def networks(config: LDMConfig) -> dict[str, Any]:
    """Return the shapes of all that is trained, by network and name.

    Raises:
        PreflightError: the U-Net cannot be made.
    """
    with refusing():
        module = nnx.eval_shape(lambda: make_unet(config, nnx.Rngs(0)))
    return {"denoiser": Functional(module).parameter_shapes}


def batch_line(config: LDMConfig) -> str:
    """Say how a batch is cut over devices and accumulation."""
    train = config.train
    parts = batch_parts(mesh_of(config))
    each = train.batch_size // (parts * train.accumulation)
    what = "latents" if config.autoencoder.path else "images"
    return (
        f"batch: {train.batch_size} {what} = {parts} {plural(parts, 'device')} x "
        f"{train.accumulation} accumulation {plural(train.accumulation, 'step')} "
        f"x {each}"
    )


def data_line(config: LDMConfig, data: Data) -> str:
    """Say which images there are, and where their latents are."""
    height, width, channels = latent_shape(config)
    held_out: HeldOut = data.held_out
    line = (
        f"data: {config.data.source}, {data.train_images:,} images to train on and "
        f"{data.held_out_images:,} to evaluate on, "
        f"{len(held_out.classes) or 'no'} classes, as {height}x{width}x{channels}"
    )
    if held_out.latents is None:
        return f"{line} pixels"
    latents = data.train.latents
    if latents.check():
        return f"{line} latents in {latents.folder}"
    size = latents.size(height * width * channels) / 2**20
    return f"{line} latents, {size:,.0f} MiB to be encoded to {latents.folder}"


def images_per_step(config: LDMConfig, data: Data) -> int:
    """Return how many latents a step works on, over all devices."""
    del data
    return config.train.batch_size


def spanned(config: LDMConfig) -> list[str]:
    """Nothing but the learning rate is laid out over `train.steps`."""
    del config
    return []


def ideal_seconds(trainer: LDMTrainer) -> None:
    """No figure."""
    del trainer


def _autoencoder(config: LDMConfig) -> Any:
    """Return the autoencoder, None for pixels; read once, for it is asked for twice."""
    if not config.autoencoder.path:
        return None
    autoencoder = _opened(config.autoencoder.path)
    check_autoencoder(config, autoencoder)
    return autoencoder


@functools.lru_cache(maxsize=1)
def _opened(path: str) -> Any:
    return open_autoencoder(path)


def _held_out(config: LDMConfig) -> int:
    return config.train.eval_images or EVAL_LATENTS


def _in_order(
    config: LDMConfig, source: Source, *, limit: int, **shared: int
) -> EvalBatches:
    """Return images as batches to be encoded, or to be evaluated on."""
    data = config.data
    return eval_batches(
        source,
        batch_size=_encoded(config) if config.autoencoder.path else _rows(config),
        image_size=data.image_size,
        channels=data.channels,
        limit=limit,
        **shared,
    )


def _encoded(config: LDMConfig) -> int:
    """Images that are encoded at once: as many on each device."""
    devices = jax.device_count()
    return math.ceil(config.data.encode_batch / devices) * devices


def _rows(config: LDMConfig) -> int:
    """Images at once where there is no backward pass."""
    return config.train.batch_size // config.train.accumulation


def _check_classes(
    config: LDMConfig, source: Source, held_out: Source
) -> tuple[str, ...]:
    """Return the names of the classes that the model is conditioned on."""
    names, asked = class_names(source), config.model.classes
    if not asked:
        return ()
    if len(names) != asked:
        remedy = (
            f"set --model.classes {len(names)}"
            if names
            else "set --model.classes 0, or give every class a folder of its own"
        )
        raise ValueError(
            f"model.classes={asked}, but data.source={config.data.source} has "
            f"{len(names) or 'no'} classes: {remedy}"
        )
    if class_names(held_out) != names:
        raise ValueError(
            f"data.eval_split={config.data.eval_split} has other classes than "
            f"data.train_split={config.data.train_split}: give one with the same, or "
            "set --model.classes 0"
        )
    return names


def _keep_autoencoder(autoencoder: Any, path: AnyPath) -> None:
    """Export the autoencoder, unless it is there."""
    if first_problem(None if path.is_dir() else "missing") is not None:
        save_pretrained(autoencoder, path)
    elif fingerprint(open_autoencoder(path)) != fingerprint(autoencoder):
        raise PreflightError(
            f"autoencoder.path is another autoencoder than {path}, which the run began "
            f"with: give --autoencoder.path {path}"
        )


def kept_autoencoder(workdir: Path) -> Any:
    """Return the autoencoder of a run, None where it diffuses pixels.

    Raises:
        FileNotFoundError, ValueError: it is damaged.
    """
    path = workdir / AUTOENCODER
    return open_autoencoder(path) if path.is_dir() else None


def kept_classes(workdir: Path) -> tuple[str, ...]:
    """Return the names of the classes of a run, () of an unconditional one."""
    path = workdir / CLASSES
    return tuple(json.loads(path.read_text())) if path.is_file() else ()
