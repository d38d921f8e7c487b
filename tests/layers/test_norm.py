"""GroupNorm against float64 NumPy; its gradient against complex steps through it."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh, PartitionSpec

from deepprism_jax.layers import GroupNorm
from deepprism_jax.layers.norm import group_norm

GROUPS = 4
SHAPE = (2, 3, 2, 8)


def oracle(x, scale, bias, silu=False, eps=1e-6):
    """The definition; analytic in its arguments, so that they may be complex."""
    batch, height, width, channels = x.shape
    groups = x.reshape(batch, height, width, GROUPS, channels // GROUPS)
    axes = (1, 2, 4)
    centred = groups - groups.mean(axes, keepdims=True)
    variance = (centred**2).mean(axes, keepdims=True)
    y = (centred / np.sqrt(variance + eps)).reshape(x.shape) * scale + bias
    return y / (1 + np.exp(-y)) if silu else y


def oracle_gradients(x, scale, bias, g, silu):
    """d sum(g y) of every number, exact to float64: Im f(x + i h) / h for tiny h."""
    operands = [np.asarray(a, np.complex128) for a in (x, scale, bias)]
    gradients = [np.empty(a.shape) for a in operands]
    for operand, gradient in zip(operands, gradients, strict=True):
        for index in np.ndindex(operand.shape):
            operand[index] += 1e-30j
            gradient[index] = np.sum(g * oracle(*operands, silu)).imag / 1e-30
            operand[index] -= 1e-30j
    return gradients


def operands(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(1.0, 2.0, SHAPE)
    scale, bias = rng.normal(1.0, 0.3, SHAPE[-1]), rng.normal(0.0, 0.3, SHAPE[-1])
    return [a.astype(np.float32) for a in (x, scale, bias)]


@jax.jit
def both(x, scale, bias):
    return [
        group_norm(x, scale, bias, groups=GROUPS, silu=silu) for silu in (False, True)
    ]


def test_values_are_the_definition():
    arrays = operands()
    for silu, y in enumerate(both(*arrays)):
        expected = oracle(*(a.astype(np.float64) for a in arrays), bool(silu))
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("silu", [False, True])
def test_gradients_are_those_of_the_definition(silu):
    arrays = operands()
    g = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)

    @jax.jit
    def gradients(*arrays):
        _, pull = jax.vjp(lambda *a: group_norm(*a, groups=GROUPS, silu=silu), *arrays)
        return pull(jnp.asarray(g))

    for value, expected in zip(
        gradients(*arrays), oracle_gradients(*arrays, g, silu), strict=True
    ):
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)


def plain(x, scale, bias, silu):
    """The definition for JAX to differentiate, as often as one likes."""
    groups = x.reshape(*x.shape[:-1], GROUPS, -1)
    axes = (-4, -3, -1)
    centred = groups - groups.mean(axes, keepdims=True)
    variance = (centred**2).mean(axes, keepdims=True)
    y = (centred / jnp.sqrt(variance + 1e-6)).reshape(x.shape) * scale + bias
    return nnx.silu(y) if silu else y


@pytest.mark.parametrize("silu", [False, True])
def test_second_derivatives_are_those_of_the_definition(silu):
    # R1 differentiates the gradient of a discriminator once more.
    arrays = operands()
    g = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)

    def second(norm, arrays, g):
        def measure(arrays):
            _, pull = jax.vjp(norm, *arrays)
            return sum(jnp.sum(gradient**2) for gradient in pull(g))

        return jax.grad(measure)(arrays)

    got = jax.jit(lambda *a: second(partial(group_norm, groups=GROUPS, silu=silu), *a))(
        arrays, g
    )
    with jax.enable_x64(True):
        exact = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), (arrays, g))
        expected = jax.jit(lambda *a: second(partial(plain, silu=silu), *a))(*exact)
    for value, exact_value in zip(got, expected, strict=True):
        size = np.abs(exact_value).max()
        np.testing.assert_allclose(value, exact_value, atol=1e-5 * size)


def test_shared_parameters_add_up_inside_shard_map():
    x, scale, bias = operands()
    x = np.concatenate([x, -x])

    def loss(x, scale, bias):
        return jnp.sum(group_norm(x, scale, bias, groups=GROUPS, silu=True) ** 2)

    gradients = jax.grad(loss, argnums=(0, 1, 2))
    split, shared = PartitionSpec("data"), PartitionSpec()
    spread = jax.shard_map(
        gradients,
        mesh=Mesh(np.array(jax.devices()[:4]), ("data",)),
        in_specs=(split, shared, shared),
        out_specs=(split, shared, shared),
    )
    expected = jax.jit(gradients)(x, scale, bias)
    for value, whole in zip(jax.jit(spread)(x, scale, bias), expected, strict=True):
        np.testing.assert_allclose(value, whole, rtol=1e-4, atol=1e-4)


def test_stays_exact_far_from_zero():
    # The naive E[x^2] - E[x]^2 has no digit left here.
    x, scale, bias = operands()
    x = np.random.default_rng(2).normal(1000.0, 1.0, SHAPE).astype(np.float32)
    expected = oracle(x.astype(np.float64), scale, bias)
    np.testing.assert_allclose(both(x, scale, bias)[0], expected, atol=3e-4)


def test_stays_exact_where_groups_lie_far_apart():
    x, scale, bias = operands()
    x = x + np.repeat(np.float32([1000, -1000, 0, 3000]), SHAPE[-1] // GROUPS)
    expected = oracle(x.astype(np.float64), scale, bias)
    np.testing.assert_allclose(both(x, scale, bias)[0], expected, atol=5e-4)


def test_a_constant_becomes_the_bias_and_has_a_finite_gradient():
    _, scale, bias = operands()
    x = np.full(SHAPE, 5.0, np.float32)
    np.testing.assert_allclose(
        both(x, scale, bias)[0], np.broadcast_to(bias, SHAPE), atol=1e-6
    )
    gradient = jax.grad(lambda x: both(x, scale, bias)[1].sum())(x)
    assert np.isfinite(gradient).all()


def test_bfloat16_is_rounded_only_at_the_end():
    arrays = operands()
    x = jnp.asarray(arrays[0], jnp.bfloat16)
    scale, bias = (jnp.asarray(a) for a in arrays[1:])
    g = np.random.default_rng(1).normal(size=SHAPE)
    g = jnp.asarray(g, jnp.bfloat16)
    y, pull = jax.vjp(lambda *a: group_norm(*a, groups=GROUPS), x, scale, bias)
    gradients = pull(g)
    exact = [np.asarray(a, np.float64) for a in (x, scale, bias)]
    half_ulp = 2.0**-8

    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        np.asarray(y, np.float64), oracle(*exact), rtol=half_ulp, atol=1e-5
    )
    assert [a.dtype for a in gradients] == [jnp.bfloat16, jnp.float32, jnp.float32]
    expected = oracle_gradients(*exact, np.asarray(g, np.float64), False)
    for value, exact_value, rtol in zip(
        gradients, expected, (half_ulp, 1e-4, 1e-4), strict=True
    ):
        np.testing.assert_allclose(
            np.asarray(value, np.float64), exact_value, rtol=rtol, atol=1e-5
        )


@pytest.mark.parametrize("batch", [(), (2, 3)], ids=str)
def test_any_number_of_batch_axes(batch):
    shape = jax.ShapeDtypeStruct((*batch, 4, 6, 8), jnp.float32)
    norm = GroupNorm(8, 2, rngs=nnx.Rngs(0))
    assert jax.eval_shape(norm, shape).shape == shape.shape
    assert jax.eval_shape(norm.silu, shape).shape == shape.shape


def test_module_starts_as_plain_normalisation():
    x, _, _ = operands()
    norm = GroupNorm(8, GROUPS, rngs=nnx.Rngs(0))
    expected = [oracle(x.astype(np.float64), 1.0, 0.0, silu) for silu in (False, True)]
    plain, silu = jax.jit(lambda x: (norm(x), norm.silu(x)))(x)
    np.testing.assert_allclose(plain, expected[0], rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(silu, expected[1], rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("groups", [0, 3, 16])
def test_groups_must_divide_the_channels(groups):
    message = f"norm groups={groups} must divide C=8; choose one of [1, 2, 4, 8]"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        GroupNorm(8, groups, rngs=nnx.Rngs(0))
