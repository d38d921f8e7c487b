"""Laws of the channel convolution, over values that hypothesis chooses."""

from functools import partial

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from deepprism_jax.ops import prism_conv

DEPTH, SPACE = 7, (1, 3, 4)
PADDINGS = ("zero", "replicate", "circular")

few = settings(max_examples=15, deadline=None)


def arrays(*shape):
    numbers = st.floats(-4, 4, width=32, allow_subnormal=False)
    return hnp.arrays(np.float32, shape, elements=numbers)


maps = arrays(*SPACE, DEPTH)
kernels = arrays(3, 3, 3, 1, 1)

conv = jax.jit(prism_conv, static_argnames=("channel_padding", "strides", "method"))


def close(got, expected, *parts):
    """Equal to the rounding of float32 sums of 27 products as large as 16."""
    np.testing.assert_allclose(got, expected, atol=2e-4, rtol=1e-5)


@few
@given(maps, kernels, st.integers(0, DEPTH - 1))
def test_circular_padding_commutes_with_channel_rotation(x, kernel, by):
    rotated = conv(np.roll(x, by, axis=-1), kernel, channel_padding="circular")
    whole = conv(x, kernel, channel_padding="circular")
    close(rotated, np.roll(whole, by, axis=-1))


@pytest.mark.parametrize("padding", ["zero", "replicate"])
@few
@given(maps, kernels, st.integers(0, DEPTH - 3))
def test_other_paddings_commute_with_shifts_away_from_the_borders(
    padding, x, kernel, by
):
    shifted = conv(np.roll(x, by, axis=-1), kernel, channel_padding=padding)
    whole = conv(x, kernel, channel_padding=padding)
    # Position p of x came to p + by; a tap reaches one further on either side.
    close(shifted[..., by + 1 : -1], whole[..., 1 : DEPTH - 1 - by])


@pytest.mark.parametrize("padding", ["zero", "replicate"])
def test_other_paddings_do_not_commute_with_rotation_at_the_borders(padding):
    x = np.arange(DEPTH, dtype=np.float32).reshape(1, 1, DEPTH)
    kernel = np.ones((1, 1, 3, 1, 1), np.float32)
    rotated = conv(np.roll(x, 2, axis=-1), kernel, channel_padding=padding)
    whole = conv(x, kernel, channel_padding=padding)
    assert np.abs(rotated - np.roll(whole, 2, axis=-1)).max() > 1


@pytest.mark.parametrize("padding", PADDINGS)
@few
@given(maps, maps, kernels, kernels, st.floats(-2, 2, width=32))
def test_linear_in_the_map_and_in_the_kernel(padding, x, other, kernel, second, a):
    along = partial(conv, channel_padding=padding)
    close(along(x + a * other, kernel), along(x, kernel) + a * along(other, kernel))
    close(along(x, kernel + a * second), along(x, kernel) + a * along(x, second))


@pytest.mark.parametrize("padding", PADDINGS)
@few
@given(maps, kernels, maps)
def test_gradients_are_the_adjoints(padding, x, kernel, g):
    y, dx, dkernel = adjoints(x, kernel, g, padding)
    inner = np.vdot(np.float64(g), np.float64(y))
    size = np.linalg.norm(g) * np.linalg.norm(y) + 1
    assert abs(np.vdot(np.float64(dx), np.float64(x)) - inner) < 1e-5 * size
    assert abs(np.vdot(np.float64(dkernel), np.float64(kernel)) - inner) < 1e-5 * size


@partial(jax.jit, static_argnums=3)
def adjoints(x, kernel, g, padding):
    y, pull = jax.vjp(partial(prism_conv, channel_padding=padding), x, kernel)
    return y, *pull(g)


@pytest.mark.parametrize("padding", PADDINGS)
@few
@given(maps, arrays(3, 3), arrays(3))
def test_separable_is_a_deepprism_of_rank_one(padding, x, space, channel):
    along = partial(conv, channel_padding=padding)
    separable = along(
        along(x, space[:, :, None, None, None]), channel[None, None, :, None, None]
    )
    outer = np.einsum("hw,c->hwc", space, channel)[..., None, None]
    np.testing.assert_allclose(separable, along(x, outer), atol=2e-3, rtol=1e-5)


@pytest.mark.parametrize("padding", PADDINGS)
@few
@given(arrays(*SPACE, 2 * DEPTH), arrays(1, 3, 3, 2, 1))
def test_two_fields_are_the_sum_of_two_deepprisms(padding, x, kernel):
    along = partial(conv, channel_padding=padding)
    first, second = np.split(x, 2, axis=-1)
    close(
        along(x, kernel),
        along(first, kernel[..., :1, :]) + along(second, kernel[..., 1:, :]),
    )


@few
@given(arrays(*SPACE, DEPTH), arrays(1, 3, 3, 1, 2))
def test_output_fields_stand_side_by_side(x, kernel):
    both = conv(x, kernel)
    close(both[..., :DEPTH], conv(x, kernel[..., :1]))
    close(both[..., DEPTH:], conv(x, kernel[..., 1:]))


@pytest.mark.parametrize(
    ("padding", "strides"), [("zero", 1), ("replicate", 2), ("circular", 2)]
)
@pytest.mark.parametrize("method", ["reference", "banded", "shift_and_add"])
def test_one_position_with_many_fields_is_a_dense_convolution(padding, strides, method):
    dense = nnx.Conv(
        3, 2, (3, 3), strides=strides, padding=1, use_bias=False, rngs=nnx.Rngs(0)
    )
    x = jax.random.normal(jax.random.key(1), (2, 5, 4, 3))
    y = conv(
        x,
        dense.kernel[...][:, :, None],
        channel_padding=padding,
        strides=strides,
        method=method,
    )
    close(y, dense(x))


@pytest.mark.parametrize("padding", PADDINGS)
def test_an_impulse_is_the_identity(padding):
    kernel = jnp.zeros((3, 3, 3, 1, 1)).at[1, 1, 1].set(1.0)
    x = jax.random.normal(jax.random.key(0), (*SPACE, DEPTH))
    np.testing.assert_array_equal(conv(x, kernel, channel_padding=padding), x)


def test_stride_keeps_every_other_position_from_the_first():
    x = jax.random.normal(jax.random.key(0), (*SPACE, DEPTH))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 1, 1))
    close(conv(x, kernel, strides=2), conv(x, kernel)[:, ::2, ::2])
    close(conv(x, kernel, strides=(1, 3)), conv(x, kernel)[:, :, ::3])
