"""Convolutions of torch's state dicts with the batch norm behind them folded in."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

NORM = ("weight", "bias", "running_mean", "running_var")


def folded_shapes(
    conv: str, norm: str, kernel: tuple[int, ...]
) -> dict[str, tuple[int, ...]]:
    """Return what `fold_batch_norm` reads for a kernel HWIO: tensor name -> shape."""
    height, width, in_channels, out_channels = kernel
    return {
        f"{conv}.weight": (out_channels, in_channels, height, width),
        **{f"{norm}.{name}": (out_channels,) for name in NORM},
    }


def fold_batch_norm(
    state: Mapping[str, np.ndarray], conv: str, norm: str, epsilon: float
) -> dict[str, Any]:
    """Return `{"kernel": HWIO, "bias": O}` of a convolution and its batch norm.

    With s = weight / sqrt(running_var + epsilon) the kernel is multiplied by s, and the
    bias is bias - s running_mean. In float64, rounded once.
    """
    kernel = state[f"{conv}.weight"].astype(np.float64).transpose(2, 3, 1, 0)
    weight, bias, mean, variance = (
        state[f"{norm}.{name}"].astype(np.float64) for name in NORM
    )
    scale = weight / np.sqrt(variance + epsilon)
    return {
        "kernel": jnp.asarray(kernel * scale, jnp.float32),
        "bias": jnp.asarray(bias - scale * mean, jnp.float32),
    }


def first_mismatch(
    wanted: Mapping[str, tuple[int, ...]], state: Mapping[str, np.ndarray]
) -> str | None:
    """Say what is wrong with the first tensor that is not as wanted, or None."""
    if wrong := first_misfit(wanted, {name: t.shape for name, t in state.items()}):
        return wrong
    for name in wanted:
        if not np.isfinite(state[name]).all():
            return f"{name} has values that are not finite"
    return None


def first_misfit(
    wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]
) -> str | None:
    """Say which tensor is the first that is missing or of another shape, or None."""
    for name, shape in wanted.items():
        if name not in found:
            return f"it has no {name}"
        if found[name] != shape:
            return f"{name} has shape {found[name]}, not {shape}"
    return None
