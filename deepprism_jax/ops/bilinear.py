"""The convolution and its two adjoints, each by the formulation of the platform.

They are bilinear, and the derivative of each is made of the other two: so derivatives
of every order stay within the chosen formulation.
"""

from functools import partial
from typing import Literal

import jax
from jax import lax

from deepprism_jax.ops import (
    banded,
    reference,
    shift_and_add,
    shifted,
    stacked,
    target,
)
from deepprism_jax.ops.formulation import Formulation
from deepprism_jax.ops.geometry import Geometry
from deepprism_jax.ops.native import library
from deepprism_jax.ops.native import prism as native_prism

Method = Literal[
    "auto", "reference", "banded", "shift_and_add", "shifted", "stacked", "native"
]

FORMULATIONS: dict[str, Formulation] = {
    "reference": reference.FORMULATION,
    "banded": banded.FORMULATION,
    "shift_and_add": shift_and_add.FORMULATION,
    "shifted": shifted.FORMULATION,
    "stacked": stacked.FORMULATION,
    "native": native_prism.FORMULATION,
}

# Above this many pairs of fields the dense band is the faster one on CPUs.
_MOST_SHIFTED_PAIRS = 16


def _choose(geometry: Geometry, method: Method, part: str, *operands: jax.Array):
    """Run one part of a formulation: the named one, or the platform's."""
    if method == "auto" and target.platform() == target.ONNX:
        method = "stacked"
    if method != "auto":
        return getattr(FORMULATIONS[method], part)(geometry, *operands)
    on_cpu = "shift_and_add"
    if geometry.fields_in * geometry.fields_out > _MOST_SHIFTED_PAIRS:
        on_cpu = "banded"
    elif library.loaded() and native_prism.fits(geometry, operands[0].dtype):
        on_cpu = "native"
    on_cuda = "shifted" if shifted.pays(geometry, operands[0].dtype) else "banded"
    return lax.platform_dependent(
        *operands,
        cpu=partial(getattr(FORMULATIONS[on_cpu], part), geometry),
        cuda=partial(getattr(FORMULATIONS[on_cuda], part), geometry),
        default=partial(getattr(FORMULATIONS["banded"], part), geometry),
    )


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def convolve(geometry: Geometry, method: Method, x, kernel) -> jax.Array:
    """Return y [B, H', W', C_out] of x [B, H, W, C_in] and the kernel."""
    return _choose(geometry, method, "conv", x, kernel)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def input_gradient(geometry: Geometry, method: Method, g, kernel) -> jax.Array:
    """Return what g, like y, pulls on x."""
    return _choose(geometry, method, "input_gradient", g, kernel)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def kernel_gradient(geometry: Geometry, method: Method, x, g) -> jax.Array:
    """Return what g, like y, pulls on the kernel."""
    return _choose(geometry, method, "kernel_gradient", x, g)


def _saving_operands(function):
    def forward(geometry, method, left, right):
        return function(geometry, method, left, right), (left, right)

    return forward


def _conv_backward(geometry, method, operands, g):
    x, kernel = operands
    return (
        input_gradient(geometry, method, g, kernel),
        kernel_gradient(geometry, method, x, g),
    )


def _input_gradient_backward(geometry, method, operands, x):
    g, kernel = operands
    return (
        convolve(geometry, method, x, kernel),
        kernel_gradient(geometry, method, x, g),
    )


def _kernel_gradient_backward(geometry, method, operands, kernel):
    x, g = operands
    return (
        input_gradient(geometry, method, g, kernel),
        convolve(geometry, method, x, kernel),
    )


convolve.defvjp(_saving_operands(convolve), _conv_backward)
input_gradient.defvjp(_saving_operands(input_gradient), _input_gradient_backward)
kernel_gradient.defvjp(_saving_operands(kernel_gradient), _kernel_gradient_backward)
