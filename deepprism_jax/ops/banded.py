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
    taps, depth = geometry.kernel_shape[2], geometry.depth
    tap, source, target = jnp.ogrid[:taps, :depth, :depth]
    read = target + tap - taps // 2
    if geometry.padding == "circular":
        read = read % depth
    elif geometry.padding == "replicate":
        read = jnp.clip(read, 0, depth - 1)
    selects = (read == source).astype(kernel.dtype)
    dense = jnp.einsum("kst,hwkab->hwasbt", selects, kernel)
    return dense.reshape(
        *geometry.kernel_shape[:2],
        geometry.fields_in * depth,
        geometry.fields_out * depth,
    )


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
