"""From a config to its U-Net, and the autoencoder whose latents it works on."""

import hashlib
import os
from dataclasses import asdict
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from deepprism_jax.layers.functional import values_of
from deepprism_jax.models import AutoencoderKL, AutoencoderVQ
from deepprism_jax.models.unet import UNet
from deepprism_jax.training.ldm.config import LDMConfig
from deepprism_jax.training.preflight import naming_options
from deepprism_jax.weights.pretrained import class_name, from_pretrained

AUTOENCODERS: dict[str, Any] = {
    cls.__name__: cls for cls in (AutoencoderKL, AutoencoderVQ)
}
"""Classes whose latents can be diffused."""


class LatentShape(NamedTuple):
    """A latent, as the U-Net sees it."""

    height: int
    width: int
    channels: int


def make_unet(config: LDMConfig, rngs: nnx.Rngs) -> UNet:
    """Make the U-Net of `config.model` for the latents of the config.

    Raises:
        ValueError: the values contradict each other; names the options.
    """
    with naming_options(config, "model"):
        return UNet(
            **asdict(config.model),
            channels=latent_shape(config).channels,
            dtype=config.train.dtype,
            rngs=rngs,
        )


def latent_shape(config: LDMConfig) -> LatentShape:
    """Return the shape of what is diffused: a latent, or the image itself."""
    height, width = config.data.image_size
    if not config.autoencoder.path:
        return LatentShape(height, width, config.data.channels)
    factor = config.autoencoder.factor
    return LatentShape(height // factor, width // factor, config.autoencoder.z_channels)


def open_autoencoder(path: str | os.PathLike[str]) -> AutoencoderKL | AutoencoderVQ:
    """Load the autoencoder of a run or of an export.

    Raises:
        FileNotFoundError: the path is neither.
        ValueError: it holds another kind of model, or is damaged.
    """
    try:
        name = class_name(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"autoencoder.path={os.fspath(path)}: {error}; train one first, for "
            "example `python train.py cifar10_deepprism`"
        ) from None
    if name not in AUTOENCODERS:
        raise ValueError(
            f"autoencoder.path={os.fspath(path)} holds {name}; give a run or an export "
            f"of {' or '.join(AUTOENCODERS)}"
        )
    return from_pretrained(AUTOENCODERS[name], path)


def check_autoencoder(config: LDMConfig, autoencoder: Any) -> None:
    """Check that an autoencoder is what the config says.

    Raises:
        ValueError: it has another factor, or other channels of images or latents.
    """
    options, where = (
        autoencoder.options,
        f"the autoencoder in {config.autoencoder.path}",
    )
    for name, asked, there in (
        (
            "autoencoder.z_channels",
            config.autoencoder.z_channels,
            options["z_channels"],
        ),
        ("autoencoder.factor", config.autoencoder.factor, autoencoder.factor),
        ("data.channels", config.data.channels, options["image_channels"]),
    ):
        if asked != there:
            raise ValueError(
                f"{name}={asked}, but {where} has {there}: set "
                f"--{name.replace('_', '-')} {there}"
            )


def fingerprint(model: Any) -> str:
    """Return a hash of a model's options and values: equal models, equal latents."""
    digest = hashlib.sha256(repr(sorted(model.options.items())).encode())
    for name, value in sorted(values_of(model).items()):
        array = np.ascontiguousarray(jax.device_get(value))
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
