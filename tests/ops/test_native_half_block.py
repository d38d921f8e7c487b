"""Half a residual block by the C++ kernels equals its definition."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

from deepprism_jax.layers import ResBlock, conv_factory
from deepprism_jax.layers.blocks import run
from deepprism_jax.ops.half_block import Affine, half_block
from deepprism_jax.ops.moments import moments
from deepprism_jax.ops.native import library
from deepprism_jax.training.sharding import make_mesh


def random(seed, *shape, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def operands(size, fields, dtype=jnp.float32, depth=32):
    channels, out = depth * fields[0], depth * fields[1]
    affine = Affine(*(random(seed, size[0], channels) for seed in (1, 2, 3)))
    kernel, bias = 0.1 * random(4, 3, 3, 3, *fields), random(5, fields[1])
    x = (random(0, *size, channels) + 1.0).astype(dtype)
    return x, affine, kernel, bias, random(6, *size, out, dtype=dtype)


def with_gradients(x, affine, kernel, bias, residual, *, method, padding, given):
    """Every output, and the gradients of a sum that all of them take part in."""

    def total(x, affine, kernel, bias, residual):
        y, of_y, x = half_block(
            x,
            affine,
            kernel,
            bias,
            residual=residual if given else None,
            channel_padding=padding,
            method=method,
        )
        found = (y, *of_y, x) if given else (y, *of_y)
        wide = [jnp.sin(a.astype(jnp.float32)) * (i + 1) for i, a in enumerate(found)]
        return sum(map(jnp.sum, wide)), found

    gradients, found = jax.grad(total, argnums=range(5), has_aux=True)(
        x, affine, kernel, bias, residual
    )
    return found, gradients


def assert_close(found, wanted, tolerance):
    for a, b in zip(*map(jax.tree.leaves, (found, wanted)), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        a, b = (np.asarray(v, np.float32) for v in (a, b))
        size = np.abs(b).max(initial=1.0)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * size)


@pytest.mark.parametrize(
    ("size", "fields", "padding", "given"),
    [
        ((2, 7, 5), (1, 1), "zero", True),
        ((2, 1, 1), (1, 1), "replicate", True),
        ((1, 33, 4), (2, 3), "circular", True),  # several blocks of rows
        ((9, 16, 16), (1, 1), "replicate", False),  # work for several threads
    ],
)
def test_equals_the_definition(native, size, fields, padding, given):
    args = operands(size, fields)
    run = partial(with_gradients, padding=padding, given=given)
    found, wanted = (
        jax.jit(partial(run, method=method))(*args) for method in ("auto", "plain")
    )
    assert_close(found, wanted, tolerance=2e-5)


def test_bfloat16_is_as_near_to_float32_as_its_digits(native):
    args = operands((2, 9, 6), (1, 1), jnp.bfloat16)
    run = partial(with_gradients, padding="circular", given=True)
    found = jax.jit(partial(run, method="native"))(*args)
    x, affine, kernel, bias, residual = args
    wide = (x.astype(jnp.float32), affine, kernel, bias, residual.astype(jnp.float32))
    exact = jax.jit(partial(run, method="plain"))(*wide)
    assert found[0][0].dtype == found[1][0].dtype == jnp.bfloat16
    for a, b in zip(*map(jax.tree.leaves, (found, exact)), strict=True):
        a, b = (np.asarray(v, np.float32) for v in (a, b))
        # Numbers of eight bits, rounded when they are read, when the convolution is
        # written and once more when the residual is added.
        assert np.sqrt(np.mean((a - b) ** 2)) < 1.5 * 2**-8 * np.sqrt(np.mean(b**2) + 1)


def test_moments_are_those_of_jax_far_from_zero(native):
    x = random(0, 3, 20, 8, 16) * 0.01 + jnp.linspace(-3000.0, 3000.0, 16)
    exact = np.asarray(x, np.float64)
    found = jax.jit(moments)(x)
    np.testing.assert_allclose(found.mean, exact.mean((1, 2)), rtol=1e-6)
    np.testing.assert_allclose(found.variance, exact.var((1, 2)), rtol=1e-5)


def test_what_is_no_number_stays_none(native):
    x, *others, residual = operands((2, 4, 4), (1, 1))
    x = x.at[1, 2, 2, 5].set(jnp.nan)
    y, of_y, _ = half_block(x, *others, residual=residual)
    assert np.isnan(y[1, 1:4, 1:4, 4:7]).all()
    assert np.isnan(of_y.mean[1, 4:7]).all()
    assert np.isnan(of_y.variance[1, 4:7]).all()
    assert np.isfinite(y[0]).all()


def test_results_do_not_depend_on_the_run(native):
    args = operands((4, 32, 32), (1, 1))
    run = jax.jit(
        partial(with_gradients, method="native", padding="circular", given=True)
    )
    first = run(*args)
    for _ in range(5):
        for a, b in zip(*map(jax.tree.leaves, (first, run(*args))), strict=True):
            np.testing.assert_array_equal(a, b)


def test_runs_over_a_mesh(native):
    args = operands((4, 3, 3), (1, 1))
    part, whole = PartitionSpec("data"), PartitionSpec()
    of_arguments = (part, part, whole, whole, part)
    run = partial(with_gradients, method="auto", padding="circular", given=True)
    spread = jax.shard_map(
        run, mesh=make_mesh(), in_specs=of_arguments, out_specs=(part, of_arguments)
    )
    assert_close(jax.jit(spread)(*args), jax.jit(run)(*args), tolerance=1e-5)


def blocks_of(kind):
    conv = conv_factory(kind, fields=1)
    rngs = nnx.Rngs(0)
    return [ResBlock(32, conv=conv, norm_groups=4, rngs=rngs) for _ in range(2)]


@pytest.mark.parametrize(
    "shape",
    [pytest.param((4, 6, 32), marks=pytest.mark.slow), (2, 1, 8, 8, 32)],
)
def test_a_chain_of_blocks_is_what_it_is_without_kernels(native, monkeypatch, shape):
    blocks, x = blocks_of("deepprism"), random(0, *shape)

    def measure(x):
        return jnp.sum(jnp.sin(run(blocks, x))), run(blocks, x)

    gradients = jax.jit(jax.grad(measure, has_aux=True))
    assert "deepprism_half_block" in gradients.lower(x).as_text()
    found = gradients(x)
    one_by_one = jax.jit(lambda x: blocks[1](blocks[0](x)))(x)
    assert_close(one_by_one, found[1], tolerance=1e-6)
    monkeypatch.setattr(library, "loaded", lambda: False)
    jax.clear_caches()
    assert_close(found, jax.jit(jax.grad(measure, has_aux=True))(x), tolerance=1e-5)
