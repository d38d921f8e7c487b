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


@pytest.mark.parametrize(
    ("kind", "parameters"),
    # Three 1x1 or 3x3 kernels and their biases, and norms of 16 and of 32 channels.
    [
        ("dense", 16 * 32 * 10 + 32 * 32 * 9 + 3 * 32),
        ("deepprism", 2 * 27 + 27 + 6 + 5),
    ],
)
def test_a_residual_block_that_changes_the_width_has_a_shortcut(kind, parameters):
    found = traced(ResBlock, (2, 4, 6, 16), kind, 16, out_channels=32, **NORMED)
    assert found == (parameters + 2 * (16 + 32), (2, 4, 6, 32))


def test_downsampling_may_pad_below_and_to_the_right_alone():
    block = make(Downsample, "dense", 4, padding="after")
    x = jax.random.normal(jax.random.key(0), (2, 4, 7, 4))

    def one_sided(x):
        return jax.lax.conv_general_dilated(
            x,
            block.conv.kernel[...],
            (2, 2),
            [(0, 1), (0, 1)],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    y, expected = jax.jit(lambda x: (block(x), one_sided(x)))(x)
    assert y.shape == (2, 2, 3, 4)
    np.testing.assert_allclose(y, expected, atol=1e-6)


def test_an_unknown_padding_is_refused(without_type_checks):
    del without_type_checks
    message = r"downsample_padding='same' is unknown; choose one of \['both', 'after'\]"
    with pytest.raises(ValueError, match=f"^{message}$"):
        make(Downsample, padding="same")


def zero(conv):
    conv.kernel[...] *= 0.0
    conv.bias[...] += 0.5


def test_residual_blocks_add_to_their_input():
    x = jax.random.normal(jax.random.key(0), (1, 4, 4, 8))
    res = make(ResBlock, channels=8, **NORMED)
    attention = make(AttentionBlock, channels=8, heads=1, **NORMED)
    wider = make(ResBlock, "dense", 8, out_channels=16, **NORMED)
    for conv in (res.conv2, attention.attention.output, wider.conv2):
        zero(conv)
    *same, wide = jax.jit(lambda x: (res(x), attention(x), wider(x)))(x)
    for y in same:
        np.testing.assert_array_equal(y, x + 0.5)
    shortcut = wider.shortcut.kernel[0, 0]
    np.testing.assert_allclose(wide, x @ shortcut + 0.5, atol=1e-6)


def test_upsampling_repeats_and_downsampling_skips():
    x = jax.random.normal(jax.random.key(0), (1, 4, 6, 8))
    up, down = make(Upsample, channels=8), make(Downsample, channels=8)
    for block in (up, down):
        block.conv.kernel[...] = jnp.zeros((3, 3, 3, 1, 1)).at[1, 1, 1].set(1.0)
    larger, smaller = jax.jit(lambda x: (up(x), down(x)))(x)
    np.testing.assert_array_equal(larger, np.repeat(np.repeat(x, 2, 1), 2, 2))
    np.testing.assert_array_equal(smaller, x[:, ::2, ::2])
