"""Forward and backward passes of torch's operators, as subjects to be timed."""

import warnings
from collections.abc import Callable
from itertools import product

import numpy as np
import torch
from timing import Pair, Run, cores
from torch import nn
from torch_layers import Kind, Layout, Prism, ResBlock, ShiftAndAdd

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def convolutions(
    x: np.ndarray,
    kernel: np.ndarray,
    g: np.ndarray,
    *,
    dtype: str,
    groups: int,
    depthwise_size: int,
    compiled: bool,
) -> dict[str, Pair]:
    """The paper's layer in both layouts, dense, grouped and depthwise ones.

    Args:
        x, g: input and output gradient, [B, H, W, C].
        kernel: [3, 3, 3, 1, 1] of the channel convolution.
        dtype: type of all arrays.
        groups: of the grouped convolution.
        depthwise_size: side of the depthwise kernels.
        compiled: add what torch.compile makes of the paper's layer and of a
            shift-and-add.
    """
    torch.set_num_threads(cores())
    channels = x.shape[-1]
    rows = [torch.from_numpy(a).to(DTYPES[dtype]) for a in (x, g)]
    planes = [a.permute(0, 3, 1, 2).contiguous() for a in rows]
    flat = [a.contiguous(memory_format=torch.channels_last) for a in planes]
    weight = torch.from_numpy(kernel[..., 0, 0].copy())

    def prism(layout: Layout) -> nn.Module:
        layer = Prism(bias=False, layout=layout)
        # torch's order of the axes is channel, row, column.
        layer.weight.data.copy_(weight.permute(2, 0, 1))
        return layer.to(DTYPES[dtype])

    pairs = {
        f"torch Conv3d, {layout}": pair(prism(layout), *planes)
        for layout in ("contiguous", "channels_last")
    }
    kinds = {
        "dense": (3, 1),
        f"{groups} groups": (3, groups),
        "depthwise": (depthwise_size, channels),
    }
    for name, (size, count) in kinds.items():
        layer = nn.Conv2d(
            channels, channels, size, padding=size // 2, groups=count, bias=False
        )
        layer = layer.to(DTYPES[dtype], memory_format=torch.channels_last)  # pyright: ignore
        pairs[f"torch {name}"] = pair(layer, *flat)
    if compiled:
        pairs["torch Conv3d, compiled"] = pair(
            prism("channels_last"), *planes, compiled=True
        )
        shifts = ShiftAndAdd()
        shifts.weight.data.copy_(weight)
        pairs["torch shift-and-add, compiled"] = pair(
            shifts.to(DTYPES[dtype]), *rows, compiled=True
        )
    return pairs


def blocks(
    x: np.ndarray, g: np.ndarray, *, dtype: str, norm_groups: int, compiled: bool
) -> dict[str, Pair]:
    """Residual blocks of DeepPrism and of dense convolutions; x and g [B, H, W, C]."""
    torch.set_num_threads(cores())
    channels = x.shape[-1]
    planes = [
        torch.from_numpy(a).to(DTYPES[dtype]).permute(0, 3, 1, 2).contiguous()
        for a in (x, g)
    ]
    flat = [a.contiguous(memory_format=torch.channels_last) for a in planes]
    pairs = {}
    kinds: tuple[Kind, ...] = ("deepprism", "dense")
    layouts: tuple[Layout, ...] = ("contiguous", "channels_last")
    for kind, layout in product(kinds, layouts):
        operands = flat if (kind, layout) == ("dense", "channels_last") else planes
        for compile_it in (False, True) if compiled else (False,):
            block = ResBlock(kind, channels, norm_groups, layout).to(DTYPES[dtype])
            name = f"torch {kind}, {layout}" + (", compiled" if compile_it else "")
            pairs[name] = pair(block, *operands, compiled=compile_it)
    return pairs


def pair(
    layer: nn.Module, x: torch.Tensor, g: torch.Tensor, *, compiled: bool = False
) -> Pair:
    """A forward pass, and one with the gradients of input and parameters."""
    x = x.detach().requires_grad_()
    parameters = list(layer.parameters())
    call: Callable = torch.compile(layer) if compiled else layer

    def forward():
        with torch.no_grad():
            return (call(x),)

    def gradients():
        y = call(x)
        return y, *torch.autograd.grad(y, [x, *parameters], g)

    def quietly(run: Run) -> Run:
        def called():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return run()

        return called

    return (quietly(forward), quietly(gradients)) if compiled else (forward, gradients)
