"""From a configuration to the networks it names."""

from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx

from deepprism_jax.losses import PerceptualDistance
from deepprism_jax.models import AutoencoderKL, AutoencoderVQ
from deepprism_jax.models.discriminator import PatchDiscriminator, default_layers
from deepprism_jax.models.feature_networks import feature_network
from deepprism_jax.training.config import Config, LossConfig
from deepprism_jax.training.preflight import naming_options
from deepprism_jax.weights import store
from deepprism_jax.weights.torchvision import (
    TORCHVISION_NAMES,
    load_perceptual_distance,
)

LPIPS = "lpips"
"""Names the heads of the weights' store, in place of a file."""


def make_autoencoder(config: Config, rngs: nnx.Rngs) -> AutoencoderKL | AutoencoderVQ:
    """The autoencoder of `config.model` for images of `config.data`.

    Raises:
        ValueError: the values contradict each other; names the options.
    """
    model = config.model
    options = {
        "image_channels": config.data.channels,
        "width": model.width,
        "multipliers": model.multipliers,
        "conv": model.conv,
        "fields": model.fields,
        "groups": model.groups,
        "rank": model.rank,
        "channel_padding": model.channel_padding,
        "downsamples": model.downsamples,
        "blocks": model.blocks,
        "z_channels": model.z_channels,
        "attention": model.attention,
        "heads": model.heads,
        "norm_groups": model.norm_groups,
        "dtype": config.train.dtype,
    }
    with naming_options(config, "model"):
        if model.latent == "kl":
            return AutoencoderKL(**options, rngs=rngs)
        return AutoencoderVQ(
            **options,
            codebook_size=model.codebook_size,
            codebook_update=model.codebook_update,
            rngs=rngs,
        )


def make_discriminator(config: Config, rngs: nnx.Rngs) -> PatchDiscriminator:
    """The discriminator of `config.discriminator` for images of `config.data`.

    Raises:
        ValueError: the values contradict each other; names the options.
    """
    critic = config.discriminator
    with naming_options(config, "discriminator"):
        return PatchDiscriminator(
            image_channels=config.data.channels,
            width=critic.width,
            layers=critic.layers or default_layers(config.data.image_size),
            conv=critic.conv,
            fields=critic.fields,
            groups=critic.groups,
            rank=critic.rank,
            channel_padding=config.model.channel_padding,
            dtype=config.train.dtype,
            rngs=rngs,
        )


def make_perceptual(config: Config) -> PerceptualDistance | None:
    """The frozen perceptual distance, where that term is on.

    Raises:
        FileNotFoundError, ValueError: its weights cannot be read; says what to bring.
    """
    if config.loss.perceptual_weight <= 0:
        return None
    weights, heads = perceptual_files(config.loss)
    return load_perceptual_distance(config.loss.perceptual_net, weights, heads)


def describe_perceptual(loss: LossConfig) -> PerceptualDistance | None:
    """The perceptual distance as shapes, where that term is on: no file is needed."""
    if loss.perceptual_weight <= 0:
        return None
    network = feature_network(loss.perceptual_net)
    heads = (jax.ShapeDtypeStruct((n,), jnp.float32) for n in network.channels)
    described = tuple(heads) if loss.perceptual_heads else None
    return PerceptualDistance(network, network.shapes(), described)


def perceptual_files(loss: LossConfig) -> tuple[Path, Path | None]:
    """The files of the feature network and of LPIPS's heads, None for learned ones.

    Raises:
        FileNotFoundError: one is to come from the store and is not there.
    """
    net = loss.perceptual_net
    if loss.perceptual_heads == LPIPS:
        heads = store.need(f"lpips_{net}")
    else:
        heads = Path(loss.perceptual_heads) if loss.perceptual_heads else None
    if loss.perceptual_weights:
        return Path(loss.perceptual_weights), heads
    return store.need(TORCHVISION_NAMES[net]), heads
