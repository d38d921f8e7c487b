"""The channel convolution as it is defined; every other formulation is tested on it."""

import jax
import jax.numpy as jnp
from jax import lax

from deepprism_jax.ops.formulation import with_transposes
from deepprism_jax.ops.geometry import PAD_MODE, Geometry


def conv(geometry: Geometry, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Correlate over (height, width, depth): x [B, H, W, C] -> [B, H', W', C'].

    The channel axis becomes a depth axis, padded by its topology; space is padded with
    zeros; then one 3-D convolution mixes the fields as its features.
    """
    batch = x.shape[0]
    rows, columns, taps = geometry.halo
    x = x.reshape(*x.shape[:3], geometry.fields_in, geometry.depth)
    x = jnp.pad(x, [(0, 0)] * 4 + [(taps, taps)], mode=PAD_MODE[geometry.padding])
    y = lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(*geometry.strides, 1),
        padding=[(rows, rows), (columns, columns), (0, 0)],
        dimension_numbers=("NHWCD", "HWDIO", "NHWCD"),
    )
    return y.reshape(batch, *geometry.out_size, geometry.fields_out * geometry.depth)


FORMULATION = with_transposes(conv)
