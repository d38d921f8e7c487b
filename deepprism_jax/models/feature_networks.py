"""Frozen feature networks V of eq. (7): SqueezeNet 1.1, VGG16 and AlexNet.

Each network is a tuple of stages and a pure function of its parameters, which are a
plain pytree: a training step takes them as an argument, so they are never baked into
the compiled program. Layout and arithmetic are torchvision's; the features are those
that LPIPS (Zhang et al., 2018) compares. `weights.torchvision` loads the parameters.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# LPIPS feeds the networks (x - SHIFT) / SCALE with x in [-1, 1]: ImageNet's mean and
# standard deviation, moved from [0, 1] to [-1, 1] and rounded as in the reference.
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)

Params = dict[str, Any]


@dataclass(frozen=True)
class Conv:
    """A square convolution with bias, then ReLU."""

    name: str
    out_channels: int
    kernel_size: int
    strides: int = 1
    padding: int = 0
    tap: bool = False

    def shapes(self, in_channels: int) -> Params:
        """Return the parameters' shapes."""
        return _conv_shapes(self.kernel_size, in_channels, self.out_channels)

    def out_size(self, size: int) -> int:
        """Return the output's height for an input's height."""
        return (size + 2 * self.padding - self.kernel_size) // self.strides + 1

    def __call__(self, params: Params, x: Array) -> Array:
        """Map [b, h, w, c] to the next feature map."""
        return _conv(params, x, self.strides, self.padding)


@dataclass(frozen=True)
class Fire:
    """SqueezeNet's block: few channels, then 1x1 and 3x3 kernels side by side."""

    name: str
    squeeze: int
    expand: int
    tap: bool = False

    @property
    def out_channels(self) -> int:
        """Channels of both expansions together."""
        return 2 * self.expand

    def shapes(self, in_channels: int) -> Params:
        """Return the parameters' shapes."""
        return {
            "squeeze": _conv_shapes(1, in_channels, self.squeeze),
            "expand1x1": _conv_shapes(1, self.squeeze, self.expand),
            "expand3x3": _conv_shapes(3, self.squeeze, self.expand),
        }

    def out_size(self, size: int) -> int:
        """Return the output's height for an input's height."""
        return size

    def __call__(self, params: Params, x: Array) -> Array:
        """Map [b, h, w, c] to the next feature map."""
        x = _conv(params["squeeze"], x)
        parts = _conv(params["expand1x1"], x), _conv(params["expand3x3"], x, padding=1)
        return jnp.concatenate(parts, axis=-1)


@dataclass(frozen=True)
class MaxPool:
    """Max pooling with stride 2; `ceil` keeps a last window that is cut by the edge."""

    size: int
    ceil: bool = False

    def out_size(self, size: int) -> int:
        """Return the output's height for an input's height."""
        return (size - self.size + int(self.ceil)) // 2 + 1

    def __call__(self, x: Array) -> Array:
        """Map [b, h, w, c] to the next feature map."""
        missing = [
            max(2 * (self.out_size(size) - 1) + self.size - size, 0)
            for size in x.shape[1:3]
        ]
        return jax.lax.reduce_window(
            x,
            -jnp.inf,
            jax.lax.max,
            (1, self.size, self.size, 1),
            (1, 2, 2, 1),
            ((0, 0), (0, missing[0]), (0, missing[1]), (0, 0)),
        )


Stage = Conv | Fire | MaxPool


@dataclass(frozen=True)
class FeatureNetwork:
    """A trunk of stages whose tapped outputs are the features; holds no parameters.

    Parameters are `{stage name: {"kernel": HWIO, "bias": O}}`, a fire module's one
    level deeper; the names are torchvision's.
    """

    name: str
    stages: tuple[Stage, ...]

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of every feature map, in order."""
        return tuple(
            stage.out_channels
            for stage in self.stages
            if not isinstance(stage, MaxPool) and stage.tap
        )

    @property
    def min_size(self) -> int:
        """The smallest height and width that reach the last stage."""
        size = 1
        while self._last_size(size) < 1:
            size += 1
        return size

    def shapes(self) -> Params:
        """Return the pytree of `jax.ShapeDtypeStruct` that `apply` takes as params."""
        shapes, channels = {}, 3
        for stage in self.stages:
            if not isinstance(stage, MaxPool):
                shapes[stage.name] = stage.shapes(channels)
                channels = stage.out_channels
        return shapes

    def apply(self, params: Params, images: Float[Array, "b h w c"]) -> list[Array]:
        """Return the feature maps [b, h_l, w_l, C_l] of RGB or gray images in [-1, 1].

        A gray image counts as an RGB image of three equal channels. Convolutions run in
        the type of `params`: cast them to bfloat16 for a faster, coarser distance.

        Raises:
            ValueError: for another number of channels, or images below `min_size`.
        """
        height, width, channels = images.shape[1:]
        if channels not in (1, 3):
            raise ValueError(
                f"the {self.name} feature network reads gray or RGB images, got "
                f"{channels} channels; convert the images or drop the perceptual term"
            )
        if min(height, width) < self.min_size:
            raise ValueError(
                f"the {self.name} feature network needs images of at least "
                f"{self.min_size}x{self.min_size}, got {height}x{width}; "
                "use larger images or another network"
            )
        x = (images - jnp.array(SHIFT)) / jnp.array(SCALE)
        x = x.astype(jax.tree.leaves(params)[0].dtype)
        features = []
        for stage in self.stages:
            if isinstance(stage, MaxPool):
                x = stage(x)
                continue
            x = stage(params[stage.name], x)
            if stage.tap:
                features.append(x)
        return features

    def _last_size(self, size: int) -> int:
        for stage in self.stages:
            size = stage.out_size(size)
            if size < 1:
                return 0
        return size


def _conv_shapes(kernel_size: int, in_channels: int, out_channels: int) -> Params:
    kernel = (kernel_size, kernel_size, in_channels, out_channels)
    return {
        "kernel": jax.ShapeDtypeStruct(kernel, jnp.float32),
        "bias": jax.ShapeDtypeStruct((out_channels,), jnp.float32),
    }


def _conv(params: Params, x: Array, strides: int = 1, padding: int = 0) -> Array:
    y = jax.lax.conv_general_dilated(
        x,
        params["kernel"],
        window_strides=(strides, strides),
        padding=((padding, padding), (padding, padding)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return jax.nn.relu(y + params["bias"])


SQUEEZENET = FeatureNetwork(
    "squeeze",
    (
        Conv("0", 64, 3, strides=2, tap=True),
        MaxPool(3, ceil=True),
        Fire("3", 16, 64),
        Fire("4", 16, 64, tap=True),
        MaxPool(3, ceil=True),
        Fire("6", 32, 128),
        Fire("7", 32, 128, tap=True),
        MaxPool(3, ceil=True),
        Fire("9", 48, 192, tap=True),
        Fire("10", 48, 192, tap=True),
        Fire("11", 64, 256, tap=True),
        Fire("12", 64, 256, tap=True),
    ),
)
"""SqueezeNet 1.1 (Iandola et al., 2016): seven features, 0.7 million parameters."""

VGG16 = FeatureNetwork(
    "vgg",
    (
        Conv("0", 64, 3, padding=1),
        Conv("2", 64, 3, padding=1, tap=True),
        MaxPool(2),
        Conv("5", 128, 3, padding=1),
        Conv("7", 128, 3, padding=1, tap=True),
        MaxPool(2),
        Conv("10", 256, 3, padding=1),
        Conv("12", 256, 3, padding=1),
        Conv("14", 256, 3, padding=1, tap=True),
        MaxPool(2),
        Conv("17", 512, 3, padding=1),
        Conv("19", 512, 3, padding=1),
        Conv("21", 512, 3, padding=1, tap=True),
        MaxPool(2),
        Conv("24", 512, 3, padding=1),
        Conv("26", 512, 3, padding=1),
        Conv("28", 512, 3, padding=1, tap=True),
    ),
)
"""VGG16 (Simonyan and Zisserman, 2014): five features, 14.7 million parameters."""

ALEXNET = FeatureNetwork(
    "alex",
    (
        Conv("0", 64, 11, strides=4, padding=2, tap=True),
        MaxPool(3),
        Conv("3", 192, 5, padding=2, tap=True),
        MaxPool(3),
        Conv("6", 384, 3, padding=1, tap=True),
        Conv("8", 256, 3, padding=1, tap=True),
        Conv("10", 256, 3, padding=1, tap=True),
    ),
)
"""AlexNet (Krizhevsky, 2014): five features, 2.5 million parameters."""

NETWORKS = {network.name: network for network in (SQUEEZENET, VGG16, ALEXNET)}


def feature_network(name: str) -> FeatureNetwork:
    """Return the network called `squeeze`, `vgg` or `alex`."""
    if name not in NETWORKS:
        raise ValueError(
            f"unknown feature network {name!r}; choose one of {', '.join(NETWORKS)}"
        )
    return NETWORKS[name]
