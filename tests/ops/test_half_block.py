"""Half a residual block equals its parts, differentiated by JAX."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from deepprism_jax.ops import bilinear, prism_conv
from deepprism_jax.ops.half_block import Affine, half_block
from deepprism_jax.ops.moments import moments
from deepprism_jax.training.sharding import make_mesh


@pytest.fixture(autouse=True)
def _one_formulation(monkeypatch):
    # The numbers are the same, and the dense band compiles in no time.
    monkeypatch.setattr(bilinear, "_MOST_SHIFTED_PAIRS", 0)


def random(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def operands(size=(2, 5, 4), depth=6, fields=(1, 1)):
    channels, out = depth * fields[0], depth * fields[1]
    affine = Affine(*(random(seed, size[0], channels) for seed in (1, 2, 3)))
    kernel, bias = 0.1 * random(4, 3, 3, 3, *fields), random(5, fields[1])
    return random(0, *size, channels) + 1.0, affine, kernel, bias, random(6, *size, out)


def spread(coefficients):
    return coefficients[:, None, None]


def parts(x, affine, kernel, bias, residual, *, padding):
    """The same of other operators, whose derivatives JAX knows."""
    h = (x - spread(affine.mean)) * spread(affine.slope) + spread(affine.offset)
    y = prism_conv(
        h * jax.nn.sigmoid(h), kernel, channel_padding=padding, method="banded"
    )
    y = y + jnp.repeat(bias, y.shape[-1] // bias.size) + residual
    return y, y.mean((1, 2)), y.var((1, 2)), x


def fused(x, affine, kernel, bias, residual, *, padding, method="plain"):
    y, of_y, x = half_block(
        x,
        affine,
        kernel,
        bias,
        residual=residual,
        channel_padding=padding,
        method=method,
    )
    return y, *of_y, x


def with_gradients(function, *args):
    """Every output, and the gradients of a sum that all of them take part in."""

    def total(*args):
        found = function(*args)
        return sum(jnp.sum(jnp.sin(a) * (i + 1)) for i, a in enumerate(found)), found

    gradients, found = jax.grad(total, argnums=range(5), has_aux=True)(*args)
    return found, gradients


def assert_close(found, wanted, tolerance):
    for a, b in zip(*map(jax.tree.leaves, (found, wanted)), strict=True):
        assert a.shape == b.shape
        size = np.abs(b).max(initial=1.0)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * size)


@pytest.mark.parametrize(
    ("padding", "fields"),
    [("zero", (1, 1)), ("replicate", (1, 1)), ("circular", (2, 3))],
)
def test_equals_its_parts(padding, fields):
    args = operands(fields=fields)
    both = [
        jax.jit(partial(with_gradients, partial(form, padding=padding)))(*args)
        for form in (fused, parts)
    ]
    assert_close(*both, tolerance=2e-5)


def test_second_derivatives_exist():
    args = operands(size=(1, 3, 3))

    def penalty(form, kernel):
        def total(x):
            found = form(x, args[1], kernel, *args[3:], padding="circular")
            return sum(jnp.sum(jnp.sin(a)) for a in found)

        return jnp.sum(jax.grad(total)(args[0]) ** 2)

    found, wanted = (
        jax.jit(jax.grad(partial(penalty, form)))(args[2]) for form in (fused, parts)
    )
    assert_close(found, wanted, tolerance=1e-4)


def test_what_is_left_out_counts_as_zero():
    x, affine, kernel, bias, residual = operands()

    def alone(x, kernel):
        return half_block(x, affine, kernel, bias, method="plain")[0].sum()

    def beside(x, kernel):
        zeros = jnp.zeros_like(residual)
        y, *_ = parts(x, affine, kernel, bias, zeros, padding="circular")
        return y.sum()

    found, wanted = (jax.jit(jax.grad(f, (0, 1)))(x, kernel) for f in (alone, beside))
    assert_close(found, wanted, tolerance=1e-5)


def test_moments_keep_their_digits_beside_a_large_mean():
    x = random(0, 2, 16, 16, 4) * 0.01 + jnp.asarray([0.0, 10.0, -300.0, 5000.0])
    exact = np.asarray(x, np.float64)
    found = moments(x)
    np.testing.assert_allclose(found.mean, exact.mean((1, 2)), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found.variance, exact.var((1, 2)), rtol=1e-4)


def test_the_gradient_of_moments():
    x = random(0, 2, 4, 5, 3) + 2.0

    def of_sums(x):
        found = moments(x)
        return jnp.sum(jnp.sin(found.mean) * found.variance)

    def of_numpy(x):
        return jnp.sum(jnp.sin(x.mean((1, 2))) * x.var((1, 2)))

    assert_close(jax.grad(of_sums)(x), jax.grad(of_numpy)(x), tolerance=1e-6)


def test_runs_over_a_mesh():
    args = operands(size=(4, 3, 3))
    part, whole = PartitionSpec("data"), PartitionSpec()

    def gradients(x, affine, kernel, bias, residual):
        form = partial(fused, padding="circular")
        return with_gradients(form, x, affine, kernel, bias, residual)

    of_arguments = (part, part, whole, whole, part)
    spread_out = jax.jit(
        jax.shard_map(
            gradients,
            mesh=make_mesh(),
            in_specs=of_arguments,
            out_specs=(part, of_arguments),
        )
    )
    assert_close(spread_out(*args), jax.jit(gradients)(*args), tolerance=1e-5)


def test_a_kernel_that_is_not_there_is_refused_by_name():
    x, affine, kernel, bias, _ = operands()
    with pytest.raises(ValueError, match=r"ops\.native"):
        half_block(x, affine, kernel, bias, method="native")


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize("name", ["mean", "slope", "offset", "bias", "residual"])
def test_what_would_have_to_be_broadcast_is_refused(name):
    x, affine, kernel, bias, residual = operands()
    given = {**affine._asdict(), "bias": bias, "residual": residual}
    given[name] = jnp.ones((1,) * (given[name].ndim + (name == "bias")))
    affine = Affine(*(given[field] for field in Affine._fields))
    with pytest.raises(ValueError, match=rf"{name} has shape \(1.*must be \("):
        half_block(x, affine, kernel, given["bias"], residual=given["residual"])
