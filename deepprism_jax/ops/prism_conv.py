"""The channel convolution: one function, its gradients, the choice of formulation."""

import math
from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from deepprism_jax.ops import banded, reference, shift_and_add
from deepprism_jax.ops.formulation import Formulation
from deepprism_jax.ops.geometry import ChannelPadding, Geometry, geometry_of
from deepprism_jax.ops.native import library
from deepprism_jax.ops.native import prism as native_prism
from deepprism_jax.ops.varying import vary_alike

Method = Literal["auto", "reference", "banded", "shift_and_add", "native"]

FORMULATIONS: dict[str, Formulation] = {
    "reference": reference.FORMULATION,
    "banded": banded.FORMULATION,
    "shift_and_add": shift_and_add.FORMULATION,
    "native": native_prism.FORMULATION,
}

# Above this many pairs of fields the dense band is the faster one on CPUs.
_MOST_SHIFTED_PAIRS = 16


def prism_conv(
    x: Float[Array, "*b h w c_in"],
    kernel: Float[Array, "kh kw kc f_in f_out"],
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
        channel_padding: topology of the channel axis (Table 1): `zero` an interval,
            `replicate` a line, `circular` a circle. Space is padded with zeros.
        strides: spatial stride, one number or (height, width); the kernel is centred on
            the positions that are kept, and H' = ceil(H / stride).
        method: `auto` picks a formulation for the platform when the program is lowered;
            a name forces one: `reference`, `banded`, `shift_and_add` or, where it was
            built (`ops/native`), `native`.

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
    dtype = jnp.result_type(x, kernel)
    batch = x.shape[:-3]
    x, kernel = vary_alike(
        x.reshape(math.prod(batch), *x.shape[-3:]).astype(dtype), kernel.astype(dtype)
    )
    y: Any = _conv(geometry, method, x, kernel)
    return y.reshape(*batch, *y.shape[1:])


def _choose(geometry: Geometry, method: Method, part: str, *operands: jax.Array):
    """Run one part of a formulation: the named one, or the platform's."""
    if method != "auto":
        return getattr(FORMULATIONS[method], part)(geometry, *operands)
    on_cpu = "shift_and_add"
    if geometry.fields_in * geometry.fields_out > _MOST_SHIFTED_PAIRS:
        on_cpu = "banded"
    elif library.loaded() and native_prism.fits(geometry, operands[0].dtype):
        on_cpu = "native"
    return lax.platform_dependent(
        *operands,
        cpu=partial(getattr(FORMULATIONS[on_cpu], part), geometry),
        default=partial(getattr(FORMULATIONS["banded"], part), geometry),
    )


# The convolution and its adjoints are bilinear, and the derivative of each is made of
# the other two: so derivatives of every order stay within the chosen formulation.


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _conv(geometry, method, x, kernel):
    return _choose(geometry, method, "conv", x, kernel)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _input_gradient(geometry, method, g, kernel):
    return _choose(geometry, method, "input_gradient", g, kernel)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _kernel_gradient(geometry, method, x, g):
    return _choose(geometry, method, "kernel_gradient", x, g)


def _saving_operands(function):
    def forward(geometry, method, left, right):
        return function(geometry, method, left, right), (left, right)

    return forward


def _conv_backward(geometry, method, operands, g):
    x, kernel = operands
    return (
        _input_gradient(geometry, method, g, kernel),
        _kernel_gradient(geometry, method, x, g),
    )


def _input_gradient_backward(geometry, method, operands, x):
    g, kernel = operands
    return (
        _conv(geometry, method, x, kernel),
        _kernel_gradient(geometry, method, x, g),
    )


def _kernel_gradient_backward(geometry, method, operands, kernel):
    x, g = operands
    return (
        _input_gradient(geometry, method, g, kernel),
        _conv(geometry, method, x, kernel),
    )


_conv.defvjp(_saving_operands(_conv), _conv_backward)
_input_gradient.defvjp(_saving_operands(_input_gradient), _input_gradient_backward)
_kernel_gradient.defvjp(_saving_operands(_kernel_gradient), _kernel_gradient_backward)
