import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from deepprism_jax.layers import (
    AttentionBlock,
    Downsample,
    ResBlock,
    Upsample,
    conv_factory,
)

NORMED = {"norm_groups": 4}


def make(block, kind="deepprism", channels=32, **options):
    conv = conv_factory(kind, groups=4, rank=4)
    return block(channels, conv=conv, rngs=nnx.Rngs(0), **options)


def traced(block, shape, *arguments, **options):
    """Number of parameters and shape of the output, without running anything."""

    def run(x):
        module = make(block, *arguments, **options)
        return nnx.state(module), module(x)

    state, y = jax.eval_shape(run, jax.ShapeDtypeStruct(shape, jnp.float32))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state)), y.shape


@pytest.mark.parametrize(
    ("block", "options", "size", "dense", "deepprism"),
    [
        (ResBlock, NORMED, (5, 7), 18_624, 184),
        (AttentionBlock, {"heads": 2, **NORMED}, (5, 7), 4_288, 80),
        (Downsample, {}, (3, 4), 9_248, 28),
        (Upsample, {}, (10, 14), 9_248, 28),
    ],
)
def test_shapes_and_parameters(block, options, size, dense, deepprism):
    for kind, parameters in (("dense", dense), ("deepprism", deepprism)):
        for batch in ((), (2,), (2, 3)):
            count, shape = traced(block, (*batch, 5, 7, 32), kind, **options)
            assert shape == (*batch, *size, 32)
            assert count == parameters


@pytest.mark.parametrize(
    "kind",
    ["group", "depthwise_separable", "low_rank", "channel", "prism_separable"],
)
def test_every_kind_makes_every_block(kind):
    shape = (2, 4, 4, 32)
    assert traced(ResBlock, shape, kind, **NORMED)[1] == shape
    assert traced(AttentionBlock, shape, kind, heads=1, **NORMED)[1] == shape
    assert traced(Upsample, shape, kind)[1] == (2, 8, 8, 32)
    assert traced(Downsample, shape, kind)[1] == (2, 2, 2, 32)


def zero(conv):
    conv.kernel[...] *= 0.0
    conv.bias[...] += 0.5


def test_residual_blocks_add_to_their_input():
    x = jax.random.normal(jax.random.key(0), (1, 4, 4, 8))
    res = make(ResBlock, channels=8, **NORMED)
    attention = make(AttentionBlock, channels=8, heads=1, **NORMED)
    zero(res.conv2)
    zero(attention.attention.output)
    for y in jax.jit(lambda x: (res(x), attention(x)))(x):
        np.testing.assert_array_equal(y, x + 0.5)


def test_upsampling_repeats_and_downsampling_skips():
    x = jax.random.normal(jax.random.key(0), (1, 4, 6, 8))
    up, down = make(Upsample, channels=8), make(Downsample, channels=8)
    for block in (up, down):
        block.conv.kernel[...] = jnp.zeros((3, 3, 3, 1, 1)).at[1, 1, 1].set(1.0)
    larger, smaller = jax.jit(lambda x: (up(x), down(x)))(x)
    np.testing.assert_array_equal(larger, np.repeat(np.repeat(x, 2, 1), 2, 2))
    np.testing.assert_array_equal(smaller, x[:, ::2, ::2])
