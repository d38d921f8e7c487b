"""What an experiment of single-image diffusion is; nothing here computes.

The string under a field is its `--help`.
"""

from dataclasses import dataclass, field
from typing import Literal

from deepprism_jax.choices import ChannelPadding, ConvKind
from deepprism_jax.training.config import MeshConfig, OptimizerConfig, TrainConfig


@dataclass(frozen=True)
class DenoiserConfig:
    """The denoiser."""

    conv: ConvKind = "deepprism"
    """Kind of every hidden convolution; the dial between DeepPrism and the baseline."""
    width: int = 160
    """Channels C of the hidden layers."""
    half_ends: bool = False
    """Half the width after the first and the last block, as the official network."""
    fields: int = 1
    """Fields F of `deepprism`: 1 is the paper's; between 1 and C it nears `dense`."""
    groups: int = 32
    """Groups of the `group` kind."""
    rank: int = 16
    """Rank of the `low_rank` kind."""
    channel_padding: ChannelPadding = "circular"
    """Topology of the channel axis (Table 1): interval, line or circle."""
    embedding: int = 32
    """Channels of the embedding of time and scale."""


@dataclass(frozen=True)
class PictureConfig:
    """The image, or the images of which each gets a model of its own."""

    path: str = ""
    """Image, or folder of images; empty is a photograph that scikit-learn brings."""
    longest: int = 250
    """Larger images are shrunk to this longest side; 0 leaves them."""
    image_size: tuple[int, int] = (0, 0)
    """Height and width to which images are shrunk and cropped; 0 0 keeps their own."""
    channels: int = 3
    """Image channels: 1 grayscale, 3 RGB, 4 RGBA; images are converted."""


@dataclass(frozen=True)
class DiffusionConfig:
    """Noise and pyramid."""

    times: int = 100
    """Times T of the schedule, from almost the image to almost noise."""
    schedule: Literal["cosine", "linear", "scaled_linear"] = "cosine"
    """Noise schedule."""
    factor: float = 1.411
    """Step between the sizes of two scales, about; adjusted to end at the image."""
    coarsest: int = 0
    """Shorter side of the coarsest scale; 0 chooses 42 to 55 by the image's shape."""
    favour_small: float = 1.5
    """Draw scales with their pixels to minus this power; 0 draws all alike."""
    target: Literal["eps", "v", "x0"] = "v"
    """What is predicted: the noise, v = alpha eps - sigma x0, or the image."""
    loss: Literal["l1", "l2"] = "l2"
    """Error of the prediction: mean absolute or mean square."""


@dataclass(frozen=True)
class SinDDMConfig:
    """One experiment."""

    model: DenoiserConfig = field(default_factory=DenoiserConfig)
    data: PictureConfig = field(default_factory=PictureConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
