import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepprism_jax.ops.bias import add_bias


def operands(fields, channels, dtype):
    draw = np.random.default_rng(0).normal
    y, bias = draw(size=(3, 5, 4, channels)), draw(size=fields)
    return jnp.asarray(y, dtype), jnp.asarray(bias, dtype)


def measures(add):
    def measure(y, bias):
        return jnp.sum(jnp.sin(add(y, bias).astype(jnp.float32)))

    def penalty(y, bias):  # second derivatives
        return sum(jnp.sum(g**2) for g in jax.grad(measure, (0, 1))(y, bias))

    return jax.jit(jax.grad(measure, (0, 1))), jax.jit(jax.grad(penalty, (0, 1)))


def check(fields, channels, dtype, tolerance):
    def plain(y, bias):
        return y + jnp.repeat(bias, channels // fields)

    y, bias = operands(fields, channels, dtype)
    np.testing.assert_array_equal(add_bias(y, bias), plain(y, bias))
    for found, wanted in zip(measures(add_bias), measures(plain), strict=True):
        for a, b in zip(found(y, bias), wanted(y, bias), strict=True):
            assert a.dtype == b.dtype
            a, b = (np.asarray(v, np.float32) for v in (a, b))
            np.testing.assert_allclose(a, b, atol=tolerance * np.abs(b).max())


@pytest.mark.parametrize(("fields", "channels"), [(1, 32), (2, 32), (32, 32), (3, 3)])
def test_is_an_addition_with_its_derivatives(fields, channels):
    check(fields, channels, jnp.float32, 1e-5)


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.02)]
)
def test_the_kernel_sums_alike(dtype, tolerance):
    check(2, 32, dtype, tolerance)
