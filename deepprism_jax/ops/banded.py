"""The channel convolution as a dense 2-D one whose kernel is a band along the channels.

Many more multiplications than the definition, but ones that matrix units and the 2-D
convolutions of every backend are made for.
"""

import jax
import jax.numpy as jnp
from jax import lax

from deepprism_jax.ops.formulation import with_transposes
from deepprism_jax.ops.geometry import Geometry


def band(geometry: Geometry, kernel: jax.Array) -> jax.Array:
    """Spread a kernel [K_H, K_W, K_C, F_in, F_out] to [K_H, K_W, C_in, C_out].

    Tap k of output position d reads input position d + k - K_C // 2, clamped at the
    ends (`replicate`), taken modulo the depth (`circular`) or dropped (`zero`).
    """
    rows, columns, taps, fields_in, fields_out = kernel.shape
    depth = geometry.depth
    shape = (rows, columns, fields_in, depth, fields_out, depth)
    # Selections by position, without a product: XLA makes them where the band is read,
    # within the convolution that reads it, and a TPU never stores a band.
    source = lax.broadcasted_iota(jnp.int32, shape, 3)
    target = lax.broadcasted_iota(jnp.int32, shape, 5)
    dense = jnp.zeros(shape, kernel.dtype)
    for tap in range(taps):
        read = target + (tap - taps // 2)
        if geometry.padding == "circular":
            read = read % depth
        elif geometry.padding == "replicate":
            read = jnp.clip(read, 0, depth - 1)
        weights = kernel[:, :, tap, :, None, :, None]
        dense += jnp.where(read == source, weights, jnp.zeros((), kernel.dtype))
    return dense.reshape(rows, columns, fields_in * depth, fields_out * depth)


def conv(geometry: Geometry, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Correlate x [B, H, W, C] with the band of the kernel."""
    rows, columns, _ = geometry.halo
    return lax.conv_general_dilated(
        x,
        band(geometry, kernel),
        window_strides=geometry.strides,
        padding=[(rows, rows), (columns, columns)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


FORMULATION = with_transposes(conv)
