"""The channel convolution as a small 2-D one, its taps along the channels as features.

Every depth is an image of its own, with F_in * K_C features: those of the positions
that it reads. A 2-D convolution of few features is what every runtime of exchanged
networks (ONNX) has, where a 3-D one is rare; and the weights stay as few as they are.
"""

import jax
import jax.numpy as jnp
from jax import lax

from deepprism_jax.ops.formulation import with_transposes
from deepprism_jax.ops.geometry import Geometry


def conv(geometry: Geometry, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Correlate x [B, H, W, C] -> [B, H', W', C']."""
    rows, columns, taps, fields, fields_out = geometry.kernel_shape
    depth = geometry.depth
    x = x.reshape(*x.shape[:3], fields, depth)
    x = _extended(geometry, x)
    read = jnp.concatenate([x[..., k : k + depth] for k in range(taps)], axis=3)
    read = read.transpose(0, 4, 1, 2, 3).reshape(-1, *x.shape[1:3], taps * fields)
    weights = kernel.reshape(rows, columns, taps * fields, fields_out)
    y = lax.conv_general_dilated(
        read,
        weights,
        window_strides=geometry.strides,
        padding=[(half, half) for half in geometry.halo[:2]],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    y = y.reshape(-1, depth, *y.shape[1:]).transpose(0, 2, 3, 4, 1)
    return y.reshape(*y.shape[:3], fields_out * depth)


def _extended(geometry: Geometry, x: jax.Array) -> jax.Array:
    """Continue the last axis by half a kernel at both ends, by its topology."""
    taps, depth = geometry.halo[2], geometry.depth
    if not taps:
        return x
    if geometry.padding == "zero":
        return jnp.pad(x, [(0, 0)] * 4 + [(taps, taps)])
    before, after = (
        [x[..., i : i + 1] for i in _read(geometry, positions)]
        for positions in (range(-taps, 0), range(depth, depth + taps))
    )
    return jnp.concatenate([*before, x, *after], axis=-1)


def _read(geometry: Geometry, positions: range) -> list[int]:
    """Return what stands beyond the ends of a circle or of a line."""
    if geometry.padding == "circular":
        return [position % geometry.depth for position in positions]
    return [min(max(position, 0), geometry.depth - 1) for position in positions]


FORMULATION = with_transposes(conv)
