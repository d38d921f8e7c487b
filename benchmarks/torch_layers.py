"""The layers of the comparison in torch: what one would write there."""

from itertools import product
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

Layout = Literal["contiguous", "channels_last"]
Kind = Literal["deepprism", "dense"]


class Prism(nn.Conv3d):
    """DeepPrism as the paper gives it: Conv3d from one channel to one.

    Zeros on all sides, as there; a circle costs one copy more. Of the layouts,
    `channels_last` is far faster backward: torch takes another algorithm.
    """

    def __init__(
        self,
        taps: int = 3,
        size: int = 3,
        *,
        stride: int = 1,
        bias: bool = True,
        layout: Layout = "channels_last",
    ):
        super().__init__(
            1,
            1,
            (taps, size, size),
            stride=(1, stride, stride),
            padding=(taps // 2, size // 2, size // 2),
            bias=bias,
        )
        if layout == "channels_last":
            # One channel has all layouts at once: the kernel's decides the algorithm.
            self.to(memory_format=torch.channels_last_3d)  # pyright: ignore

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, C, H, W] to [B, C, H', W']."""
        return super().forward(x.unsqueeze(1)).squeeze(1)


class ShiftAndAdd(nn.Module):
    """The 3x3x3 channel convolution as 27 shifted copies, channels on a circle."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 3, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, H, W, C] to the same shape; the kernel is [row, column, channel]."""
        height, width, channels = x.shape[1:]
        x = torch.cat((x[..., -1:], x, x[..., :1]), dim=-1)
        x = functional.pad(x, (0, 0, 1, 1, 1, 1))
        y = torch.zeros((), dtype=x.dtype)
        for i, j, k in product(range(3), repeat=3):
            window = x[:, i : i + height, j : j + width, k : k + channels]
            y = y + self.weight[i, j, k] * window
        return y


def conv(
    kind: Kind, channels: int, *, size: int = 3, stride: int = 1, layout: Layout
) -> nn.Module:
    """A convolution [B, C, H, W] -> [B, C, H', W'] of the autoencoder's hidden ones."""
    if kind == "deepprism":
        return Prism(size=size, stride=stride, layout=layout)
    layer = nn.Conv2d(channels, channels, size, stride=stride, padding=size // 2)
    if layout == "channels_last":
        return layer.to(memory_format=torch.channels_last)  # pyright: ignore
    return layer


class ResBlock(nn.Module):
    """x + 2 * (GroupNorm, SiLU, convolution)(x)."""

    def __init__(self, kind: Kind, channels: int, groups: int, layout: Layout):
        super().__init__()
        halves = [
            layer
            for _ in range(2)
            for layer in (
                nn.GroupNorm(groups, channels, eps=1e-6),
                nn.SiLU(),
                conv(kind, channels, layout=layout),
            )
        ]
        self.body = nn.Sequential(*halves)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, C, H, W] to the same shape."""
        return x + self.body(x)
