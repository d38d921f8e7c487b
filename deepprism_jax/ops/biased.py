"""The channel convolution with its bias, in one kernel where a platform has one."""

from functools import partial
from typing import Any

import jax
from jax import lax

from deepprism_jax.ops import bilinear, target
from deepprism_jax.ops.bias import add_bias, plain_field_sums
from deepprism_jax.ops.bilinear import Method
from deepprism_jax.ops.geometry import Geometry
from deepprism_jax.ops.pallas import backward as pallas_backward
from deepprism_jax.ops.pallas import forward as pallas_forward
from deepprism_jax.ops.pallas import tiles


def fits(geometry: Geometry, dtype: Any) -> bool:
    """Return whether the platform has a kernel for `convolve`."""
    return target.platform() == "tpu" and tiles.fits(geometry, dtype)


def plain(geometry: Geometry, method: Method, x, kernel, *bias) -> Any:
    """Return conv(x, kernel) and, where there is one, its field's bias."""
    y: Any = bilinear.convolve(geometry, method, x, kernel)
    return add_bias(y, bias[0]) if bias else y


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def convolve(geometry: Geometry, x, kernel, bias):
    """Return conv(x, kernel) + bias; both gradients and the bias's are one kernel."""
    return lax.platform_dependent(
        *(x, kernel, bias),
        tpu=partial(_forward, geometry),
        default=partial(plain, geometry, "auto"),
    )


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _gradients(geometry, x, kernel, g):
    return lax.platform_dependent(
        *(x, kernel, g),
        tpu=partial(_backward, geometry),
        default=partial(_plain_gradients, geometry),
    )


# Compiled functions are traced once a shape, however many layers have it.
_forward = partial(jax.jit, static_argnums=0)(pallas_forward.forward)


@partial(jax.jit, static_argnums=0)
def _backward(geometry, x, kernel, g):
    dx, dkernel, dbias = pallas_backward.backward(geometry, x, kernel, g)
    return dx, dkernel.astype(x.dtype), dbias.astype(x.dtype)


def _plain_gradients(geometry, x, kernel, g):
    return (
        bilinear.input_gradient(geometry, "auto", g, kernel),
        bilinear.kernel_gradient(geometry, "auto", x, g),
        plain_field_sums(geometry.fields_out, g),
    )


def _saving(geometry, x, kernel, bias):
    return convolve(geometry, x, kernel, bias), (x, kernel)


def _pull(geometry, saved, g) -> Any:
    return _gradients(geometry, *saved, g)


convolve.defvjp(_saving, _pull)


def _gradients_saving(geometry, *operands):
    return _gradients(geometry, *operands), operands


def _gradients_pull(geometry, operands, pulls):
    return jax.vjp(partial(_plain_gradients, geometry), *operands)[1](pulls)


_gradients.defvjp(_gradients_saving, _gradients_pull)
