"""What an experiment of latent diffusion is; nothing here computes.

The string under a field is its `--help`.
"""

from dataclasses import dataclass, field
from typing import Literal

from deepprism_jax.choices import ChannelPadding, ConvKind
from deepprism_jax.training.config import (
    DataConfig,
    MeshConfig,
    OptimizerConfig,
    TrainConfig,
)


@dataclass(frozen=True)
class UNetConfig:
    """The denoiser."""

    conv: ConvKind = "deepprism"
    """Kind of every hidden convolution; the dial between DeepPrism and the baseline."""
    width: int = 256
    """Channels C of the first level."""
    multipliers: tuple[int, ...] = (1, 1, 1)
    """Width of every level, as a multiple of `width`; the paper has one width."""
    blocks: int = 2
    """Residual blocks a level on the way down; one more on the way up."""
    attention: tuple[int, ...] = (2, 4)
    """Downsampling factors at which there is attention."""
    heads: int = 1
    """Attention heads."""
    norm_groups: int = 32
    """Groups of every GroupNorm; must divide `width`."""
    fields: int = 1
    """Fields F of `deepprism`: 1 is the paper's; between 1 and C it nears `dense`."""
    groups: int = 32
    """Groups of the `group` kind."""
    rank: int = 16
    """Rank of the `low_rank` kind."""
    channel_padding: ChannelPadding = "circular"
    """Topology of the channel axis (Table 1): interval, line or circle."""
    time_conv: Literal["dense", "prism"] = "dense"
    """Layers of the time embedding: dense as in the paper, or channel convolutions."""
    scale_shift: bool = False
    """The time scales and shifts after the norm (adaptive), or is added before it."""
    dropout: float = 0.0
    """Share of features dropped inside residual blocks."""
    classes: int = 0
    """Classes to condition on, as many as the data have; 0 is unconditional."""


@dataclass(frozen=True)
class AutoencoderConfig:
    """The trained autoencoder whose latents are diffused."""

    path: str = ""
    """Run or export of an autoencoder; empty diffuses the pixels themselves."""
    z_channels: int = 3
    """Numbers at a position of its latent."""
    factor: int = 4
    """Pixels of an image a position of its latent, along each side."""


@dataclass(frozen=True)
class LatentDataConfig(DataConfig):
    """Where images come from and how they become latents."""

    crop: Literal["center"] = "center"
    """Images larger than `image_size` are cut at the centre: latents are made once."""
    latents: str = ""
    """Folder of the cached latents; empty is one of their own in the user's cache."""
    encode_batch: int = 64
    """Images that are encoded at once, over all devices; as many more as fill them."""


@dataclass(frozen=True)
class DenoisingConfig:
    """Noise, and what is learned of it."""

    times: int = 1000
    """Times T of the schedule, from almost the latent to almost noise."""
    schedule: Literal["linear", "scaled_linear", "cosine"] = "cosine"
    """Noise schedule; latent diffusion's is `scaled_linear`."""
    target: Literal["eps", "v", "x0"] = "v"
    """What is predicted: the noise, v = alpha eps - sigma x0, or the latent."""
    min_snr: float = 0.0
    """Least ratio of signal to noise from which errors weigh less; 0 weighs alike."""
    class_dropout: float = 0.1
    """Share of labels withheld, for classifier-free guidance."""


@dataclass(frozen=True)
class LDMOptimizerConfig(OptimizerConfig):
    """Optimizer of the denoiser."""

    time_ratio: float = 1.0
    """Learning rate of the layers of time and class, as a ratio of the others'."""


@dataclass(frozen=True)
class LDMConfig:
    """One experiment."""

    model: UNetConfig = field(default_factory=UNetConfig)
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    data: LatentDataConfig = field(default_factory=LatentDataConfig)
    diffusion: DenoisingConfig = field(default_factory=DenoisingConfig)
    optimizer: LDMOptimizerConfig = field(default_factory=LDMOptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
