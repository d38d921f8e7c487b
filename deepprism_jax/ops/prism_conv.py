"""The channel convolution: one function for every platform."""

import math
from typing import Any, get_args

import jax.numpy as jnp
from jaxtyping import Array, Float

from deepprism_jax.ops import biased
from deepprism_jax.ops.bilinear import Method
from deepprism_jax.ops.geometry import ChannelPadding, geometry_of
from deepprism_jax.ops.native import library
from deepprism_jax.ops.varying import vary_alike


def prism_conv(
    x: Float[Array, "*b h w c_in"],
    kernel: Float[Array, "kh kw kc f_in f_out"],
    bias: Float[Array, " f_out"] | None = None,
    *,
    channel_padding: ChannelPadding = "circular",
    strides: int | tuple[int, int] = 1,
    method: Method = "auto",
) -> Float[Array, "*b h_out w_out c_out"]:
    """Convolve over height, width and channel: eq. (1) to (3) of the paper.

    C_in = F_in * D channels are F_in fields of depth D, field-major. With one field,
    a 3x3x3 kernel is DeepPrism (eq. 3), 1x1x3 is Prism (eq. 1), and 3x3x1 followed by
    1x1x3 is the separable one (eq. 2). With D = 1 it is a dense 2-D convolution.
    As everywhere in deep learning, "convolution" is cross-correlation.

    Args:
        x: feature map [..., H, W, C_in].
        kernel: [K_H, K_W, K_C, F_in, F_out], odd sizes.
        bias: one number a field of the output, added to it.
        channel_padding: topology of the channel axis (Table 1): `zero` an interval,
            `replicate` a line, `circular` a circle. Space is padded with zeros.
        strides: spatial stride, one number or (height, width); the kernel is centred on
            the positions that are kept, and H' = ceil(H / stride).
        method: `auto` picks a formulation for the platform when the program is lowered;
            a name forces one: `reference`, `banded`, `shift_and_add`, `shifted`,
            `stacked` or, where it was built (`ops/native`), `native`.

    Returns:
        Feature map [..., H', W', F_out * D] of the promoted type of x and kernel.

    Raises:
        ValueError: shapes, types or names that do not fit; the message says which.
    """
    if method not in get_args(Method):
        raise ValueError(
            f"method={method!r} is unknown; choose one of {list(get_args(Method))}"
        )
    if method == "native" and not library.loaded():
        raise ValueError(
            "method='native' needs kernels that are not built; run "
            f"`{library.BUILD}`, or choose 'auto'"
        )
    geometry = geometry_of(x, kernel, channel_padding, strides)
    if bias is not None and bias.shape != (geometry.fields_out,):
        raise ValueError(
            f"bias has shape {bias.shape}; it must be ({geometry.fields_out},), one "
            "number a field of the output"
        )
    dtype = jnp.result_type(x, kernel)
    batch = x.shape[:-3]
    x = x.reshape(math.prod(batch), *x.shape[-3:]).astype(dtype)
    given = [kernel] if bias is None else [kernel, bias]
    x, kernel, *given = vary_alike(x, *(a.astype(dtype) for a in given))
    y: Any
    if method == "auto" and given and biased.fits(geometry, dtype):
        y = biased.convolve(geometry, x, kernel, *given)
    else:
        y = biased.plain(geometry, method, x, kernel, *given)
    return y.reshape(*batch, *y.shape[1:])
