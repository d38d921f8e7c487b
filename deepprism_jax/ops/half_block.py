"""SiLU of a normalised map, then the channel convolution: half a residual block.

Normalisation is an affine map a channel of an image, its coefficients made of moments.
Where a platform has kernels for it, the map is applied to lines as the convolution
reads them, and the moments of the result are summed as it is written: an activation is
read once and written once, and nothing but it is kept for the way back.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple, cast, get_args

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from deepprism_jax.ops import bilinear, target
from deepprism_jax.ops.bias import plain_field_sums
from deepprism_jax.ops.geometry import ChannelPadding, Geometry, geometry_of
from deepprism_jax.ops.materialize import materialize_on_cpu
from deepprism_jax.ops.moments import Moments, plain_moments, pull_on, spread
from deepprism_jax.ops.native import half_block as native
from deepprism_jax.ops.native import library
from deepprism_jax.ops.pallas import half_block as pallas
from deepprism_jax.ops.varying import vary_alike

HalfBlockMethod = Literal["auto", "plain", "native"]


class Affine(NamedTuple):
    """(x - mean) * slope + offset, a channel of an image."""

    mean: Float[Array, "b c"]
    slope: Float[Array, "b c"]
    offset: Float[Array, "b c"]


def fits(geometry: Geometry, dtype: Any) -> bool:
    """Return whether the platform has a kernel for a half-block of this shape."""
    return bool(_kernels(geometry, dtype))


def half_block(
    x: Float[Array, "b h w c_in"],
    affine: Affine,
    kernel: Float[Array, "3 3 3 f_in f_out"],
    bias: Float[Array, " f_out"],
    *,
    residual: Float[Array, "b h w c_out"] | None = None,
    channel_padding: ChannelPadding = "circular",
    method: HalfBlockMethod = "auto",
) -> tuple[Float[Array, "b h w c_out"], Moments, Float[Array, "b h w c_in"]]:
    """Return y = prism_conv(silu(affine(x)), kernel) + bias (+ residual).

    Args:
        x: feature map [B, H, W, F_in * D].
        affine: coefficients [B, C_in], as a normalisation makes them of the moments.
        kernel: [3, 3, 3, F_in, F_out].
        bias: one number a field of the output.
        residual: feature map like y, added to it in the same pass.
        channel_padding: topology of the channel axis.
        method: `auto` takes the kernel of the platform that the program is lowered for,
            where there is one; `plain` is the definition; a name forces a kernel.

    Returns:
        y, its moments, and x as it was given: what else is made of x is best made of
        that, for what comes back through it is then added in the same pass.

    Raises:
        ValueError: shapes that do not fit each other, or a kernel that does not take
            them was asked for by name.
    """
    if method not in get_args(HalfBlockMethod):
        choices = list(get_args(HalfBlockMethod))
        raise ValueError(f"method={method!r} is unknown; choose one of {choices}")
    geometry = geometry_of(x, kernel, channel_padding, 1)
    _check(geometry, x, affine, bias, residual)
    if method == "native" and not _native_fits(geometry, x.dtype):
        raise ValueError(
            f"method='native' has no kernel for {geometry} of {x.dtype}, or it is not "
            f"built (`{library.BUILD}`); choose 'auto' or 'plain'"
        )
    wide = [a.astype(jnp.float32) for a in (*affine, kernel.astype(x.dtype), bias)]
    others = [] if residual is None else [residual.astype(x.dtype)]
    operands = vary_alike(x, *wide, *others)
    y, mean, variance, x = cast(Any, _half_block(geometry, method, *operands))
    return y, Moments(mean, variance), x


def _check(geometry: Geometry, x, affine, bias, residual) -> None:
    """Kernels read what they are told is there: nothing is broadcast."""
    channels = geometry.fields_out * geometry.depth
    expected = {name: (len(x), x.shape[3]) for name in Affine._fields}
    expected |= {"bias": (geometry.fields_out,)}
    expected |= {"residual": (*x.shape[:3], channels)}
    given = {**affine._asdict(), "bias": bias, "residual": residual}
    for name, shape in expected.items():
        if given[name] is not None and given[name].shape != shape:
            raise ValueError(
                f"{name} has shape {given[name].shape}; it must be {shape}"
            )


def _native_fits(geometry: Geometry, dtype: Any) -> bool:
    return library.loaded() and native.fits(geometry, dtype)


def _kernels(geometry: Geometry, dtype: Any) -> dict[str, Any]:
    """Return the module with kernels for a shape, by its platform.

    Without a kernel the parts by themselves are a little faster and sooner compiled: a
    kernel for TPUs is no reason to take this way elsewhere.
    """
    platform = target.platform()
    if platform == "cpu" and _native_fits(geometry, dtype):
        return {platform: native}
    if platform == "tpu" and pallas.fits(geometry, dtype):
        return {platform: pallas}
    return {}


def _choose(
    geometry: Geometry, method: str, part: str, residual: bool, *operands: jax.Array
) -> Any:
    """Run the kernel of the platform, or the plain definition."""
    plain = partial(_PLAIN[part], geometry, residual)
    if method == "native":
        return getattr(native, part)(geometry, residual, *operands)
    kernels = _kernels(geometry, operands[0].dtype) if method == "auto" else {}
    if not kernels:
        return plain(*operands)
    branches = {
        platform: partial(getattr(module, part), geometry, residual)
        for platform, module in kernels.items()
    }
    return lax.platform_dependent(*operands, **branches, default=plain)


# Operands: x, mean, slope, offset, kernel, bias and, where there is one, the residual.


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _half_block(geometry, method, *operands):
    residual = len(operands) == 7
    found = _choose(geometry, method, "forward", residual, *operands)
    return *found, operands[0]


def _saving(geometry, method, *primals):
    operands = [primal.value for primal in primals]
    found: Any = _half_block(geometry, method, *operands)
    y, y_mean, *_ = found
    return found, (*operands[:5], y, y_mean, len(operands) == 7)


def _pull(geometry, method, saved, gradients):
    *operands, y, y_mean, residual = saved
    slope = operands[2]
    *of_y, of_x = gradients
    g, g_mean, g_variance = (
        jnp.zeros_like(like) if type(pull) is SymbolicZero else pull
        for pull, like in zip(of_y, (y, y_mean, y_mean), strict=True)
    )
    # Most often nothing is made of the x that is handed on.
    g_x = [] if type(of_x) is SymbolicZero else [of_x]
    count = y.shape[1] * y.shape[2]
    beta = g_variance * (2.0 / count)
    alpha = g_mean / count - beta * y_mean
    gradients_of: Any = _backward(
        geometry, method, residual, *operands, y, alpha, beta, g, *g_x
    )
    dx, dslope, doffset, *others = gradients_of
    return dx, -slope * doffset, dslope, doffset, *others


_half_block.defvjp(_saving, _pull, symbolic_zeros=True)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _backward(geometry, method, residual, *operands):
    return _choose(geometry, method, "backward", residual, *operands)


def _saving_operands(geometry, method, residual, *operands):
    return _backward(geometry, method, residual, *operands), operands


def _pull_of_backward(geometry, method, residual, operands, gradients):
    del method
    plain = partial(_plain_backward, geometry, residual)
    return jax.vjp(plain, *operands)[1](gradients)


_backward.defvjp(_saving_operands, _pull_of_backward)


# The definition. The backward pass is written out so that its own derivative, which a
# gradient penalty asks for, exists in plain operators.


def _plain_forward(geometry, residual, x, mean, slope, offset, kernel, bias, *others):
    h = jax.nn.silu(_before(x, mean, slope, offset)).astype(x.dtype)
    y: Any = bilinear.convolve(geometry, "auto", h, kernel.astype(x.dtype))
    y = y + jnp.repeat(bias.astype(y.dtype), geometry.depth)
    if residual:
        y = y + others[0]
    return y, *plain_moments(y)


def _plain_backward(
    geometry, residual, x, mean, slope, offset, kernel, y, alpha, beta, g, *g_x
):
    total: Any = materialize_on_cpu(pull_on(y, alpha, beta, g))
    before = _before(x, mean, slope, offset)
    sigmoid = jax.nn.sigmoid(before)
    h = (before * sigmoid).astype(x.dtype)
    dh: Any = bilinear.input_gradient(geometry, "auto", total, kernel.astype(x.dtype))
    dkernel: Any = bilinear.kernel_gradient(geometry, "auto", h, total)
    dbefore = dh.astype(jnp.float32) * (sigmoid * (1.0 + before * (1.0 - sigmoid)))
    dbefore = materialize_on_cpu(dbefore)
    dx = dbefore * spread(slope)
    if g_x:
        dx = dx + g_x[0].astype(jnp.float32)
    centred = x.astype(jnp.float32) - spread(mean)
    return (
        dx.astype(x.dtype),
        (dbefore * centred).sum((1, 2)),
        dbefore.sum((1, 2)),
        dkernel.astype(jnp.float32),
        plain_field_sums(geometry.fields_out, total.astype(jnp.float32)),
        *((total,) if residual else ()),
    )


_PLAIN: dict[str, Callable] = {"forward": _plain_forward, "backward": _plain_backward}


def _before(x, mean, slope, offset):
    """What SiLU is applied to, in float32."""
    return (x.astype(jnp.float32) - spread(mean)) * spread(slope) + spread(offset)
