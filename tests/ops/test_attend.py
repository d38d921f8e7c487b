"""Attention is one function, however many tokens there are and wherever it runs."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import PartitionSpec

from deepprism_jax.ops import attend as attend_module
from deepprism_jax.ops import target
from deepprism_jax.ops.attend import (
    attend,
    chunked_attend,
    cudnn_flash_takes,
    tpu_flash,
    tpu_flash_takes,
)
from deepprism_jax.training.sharding import make_mesh


def operands(*shape, dtype="float32", count=3, scale=1.0):
    draws = np.random.default_rng(0).normal(size=(count, *shape))
    q, *others = (jnp.asarray(a, dtype) for a in draws)
    return q * scale, *others


def softmax_attention(q, k, v):
    """Eq. (4) in float64, and a bound of what rounding can do to it in float32."""
    q, k, v = (np.asarray(a, np.float64) for a in (q, k, v))
    tokens, size = q.shape[1], q.shape[3]
    scores = np.einsum("bnhd,bmhd->bhnm", q, k) / np.sqrt(size)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    # A sum of n rounded products is off by at most (n + 1) / 2^24 of its terms' sizes;
    # an error of a score is a relative one of its weight, and of their sum once more.
    unit = 2.0**-24
    sizes = np.einsum("bnhd,bmhd->bhnm", abs(q), abs(k)).max() / np.sqrt(size)
    relative = 2 * (size + 4) * unit * sizes + (2 * tokens + 8) * unit
    return np.einsum("bhnm,bmhd->bnhd", weights, v), relative * abs(v).max()


def with_gradients(function):
    def run(q, k, v, g):
        y, pull = jax.vjp(function, q, k, v)
        return y, *pull(g)

    return jax.jit(run)


@pytest.mark.parametrize("most_tokens", [11, 5, 4])
@pytest.mark.parametrize(
    ("heads", "size", "scale"),
    [(1, 1, 1.0), (2, 3, 1.0), (2, 3, 100.0), (8, 5, 1.0), (1, 256, 1.0)],
)
def test_is_softmax_attention(most_tokens, heads, size, scale):
    q, k, v = operands(2, 11, heads, size, scale=scale)
    y = jax.jit(partial(attend, most_tokens=most_tokens))(q, k, v)
    expected, bound = softmax_attention(q, k, v)
    np.testing.assert_allclose(y, expected, rtol=0, atol=bound)


@pytest.mark.parametrize("most_tokens", [16, 5])
def test_half_precision_rounds_the_weights_and_the_result(most_tokens):
    q, k, v = operands(2, 11, 2, 8, dtype="bfloat16")
    y = jax.jit(partial(attend, most_tokens=most_tokens))(q, k, v)
    assert y.dtype == jnp.bfloat16
    expected, bound = softmax_attention(q, k, v)
    bound += 2 * 2.0**-8 * np.abs(np.asarray(v, np.float64)).max()
    np.testing.assert_allclose(np.asarray(y, np.float64), expected, rtol=0, atol=bound)


def test_chunks_have_the_gradients_of_the_whole():
    q, k, v, g = operands(2, 11, 2, 3, count=4)
    whole = with_gradients(attend)(q, k, v, g)
    chunked = with_gradients(partial(attend, most_tokens=4))(q, k, v, g)
    for expected, value in zip(whole, chunked, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)
        assert np.abs(expected).max() > 0.01


@pytest.mark.parametrize("part", ["forward", "with gradients"])
def test_memory_is_linear_in_the_tokens(part):
    def megabytes(function, tokens):
        shapes = [jax.ShapeDtypeStruct((1, tokens, 2, 8), jnp.float32)] * 4
        run = jax.jit(function) if part == "forward" else with_gradients(function)
        compiled = run.lower(*shapes[: 3 if part == "forward" else 4]).compile()
        memory = compiled.memory_analysis()
        assert memory is not None
        return memory.temp_size_in_bytes / 1e6

    def growth(function):
        return megabytes(function, 4096) / megabytes(function, 2048)

    assert growth(attend) < 2.1
    if part == "forward":  # so that the bound above means something
        assert growth(partial(attend, most_tokens=4096)) > 3.5


@pytest.mark.parametrize("check_vma", [True, False])
def test_inside_shard_map(check_vma):
    arguments = operands(4, 11, 2, 8, count=4)
    run = with_gradients(partial(attend, most_tokens=5))
    split = PartitionSpec("data")
    spread = jax.shard_map(
        run, mesh=make_mesh(), in_specs=split, out_specs=split, check_vma=check_vma
    )
    for value, expected in zip(
        jax.jit(spread)(*arguments), run(*arguments), strict=True
    ):
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "gradients"),
    [
        ("float32", False),
        pytest.param("float32", True, marks=pytest.mark.slow),
        pytest.param("bfloat16", True, marks=pytest.mark.slow),
    ],
)
def test_the_kernel_for_tpus_is_the_same_function(dtype, gradients):
    *qkv, g = operands(1, 256, 2, 8, dtype=dtype, count=4)

    def run(function):
        y = jax.jit(function)(*qkv)
        return with_gradients(function)(*qkv, g) if gradients else (y,)

    with pltpu.force_tpu_interpret_mode():
        kernel = run(tpu_flash)
    rounding = {"float32": 1e-5, "bfloat16": 2.0**-6}[dtype]
    for value, expected in zip(kernel, run(attend), strict=True):
        value, expected = (np.asarray(a, np.float32) for a in (value, expected))
        size = np.abs(expected).max()
        np.testing.assert_allclose(value, expected, rtol=0, atol=rounding * size)


def lowered(platform, tokens=2048, dtype="float32", spread=False):
    shape = jax.ShapeDtypeStruct((4, tokens, 1, 8), dtype)

    def gradient(q, k, v):
        return jax.grad(lambda *a: attend(*a).astype(jnp.float32).sum())(q, k, v)

    if spread:
        split = PartitionSpec("data")
        gradient = jax.shard_map(
            gradient, mesh=make_mesh(), in_specs=split, out_specs=split
        )
    with target.compiling_for("gpu" if platform == "cuda" else platform):
        traced = jax.jit(gradient).trace(shape, shape, shape)
    return traced.lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize(
    ("platform", "options", "kernel"),
    [
        ("tpu", {}, True),
        ("tpu", {"tokens": 1024}, False),  # few tokens
        ("tpu", {"tokens": 2049}, False),  # not in blocks
        ("tpu", {"spread": True}, False),  # the kernel does not know its mesh axes
        ("cpu", {}, False),
        ("cuda", {"dtype": "bfloat16"}, False),  # no GPU to ask for its abilities
    ],
)
def test_the_platform_chooses_when_the_program_is_lowered(platform, options, kernel):
    assert ("tpu_custom_call" in lowered(platform, **options)) == kernel


def test_second_derivatives_exist_in_compiled_programs():
    q = jax.random.normal(jax.random.key(0), (1, 256, 1, 8))

    def penalty(q, most_tokens):
        def total(q):
            return jnp.sum(attend(q, q, q, most_tokens=most_tokens) ** 2)

        return jnp.sum(jax.grad(total)(q) ** 2)

    gradient = jax.jit(jax.grad(penalty), static_argnums=1)
    # Shapes that the kernel for TPUs would take.
    assert tpu_flash_takes(q)
    found, wanted = gradient(q, 128), gradient(q, 256)
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("platform", ["cuda", "cpu", "tpu"])
def test_only_programs_for_cuda_see_cudnn(platform, monkeypatch):
    monkeypatch.setattr(attend_module, "_is_on_cudnn", lambda: True)
    monkeypatch.setattr(attend_module, "cudnn_flash", lambda q, k, v: jnp.sinh(q))
    text = lowered(platform, dtype="bfloat16")
    assert ("cosh" in text) == (platform == "cuda")


@pytest.mark.parametrize(
    ("shape", "dtype", "cudnn", "tpu"),
    [
        ((1, 4096, 1, 64), "bfloat16", True, True),
        ((1, 4096, 1, 64), "float32", False, True),
        ((1, 4096, 1, 64), "float16", True, False),
        ((1, 4096, 1, 256), "bfloat16", False, True),
        ((1, 4096, 1, 12), "bfloat16", False, False),
        ((1, 4098, 1, 64), "bfloat16", True, False),
        ((1, 4095, 1, 64), "bfloat16", False, False),
    ],
)
def test_which_kernel_takes_what(shape, dtype, cudnn, tpu):
    q = jnp.zeros(shape, dtype)
    assert (cudnn_flash_takes(q), tpu_flash_takes(q)) == (cudnn, tpu)


def test_a_chunk_may_be_larger_than_the_tokens():
    q, k, v = operands(1, 5, 1, 2)
    y, expected = chunked_attend(q, k, v, chunk=8), attend(q, k, v)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
