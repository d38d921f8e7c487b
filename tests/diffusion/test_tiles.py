"""Tiles: what they give is what the whole image gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from deepprism_jax.diffusion.multiscale import MultiScale, sample_scale
from deepprism_jax.diffusion.schedules import cosine
from deepprism_jax.diffusion.tiles import side_within, tiled
from deepprism_jax.models.sinddm import SinDDM

KERNELS = jax.random.normal(jax.random.key(0), (2, 3, 3, 2, 2)) / 3


def _network(kernels, x, t, scale):
    """See two pixels on each side, and zeros beyond the image, as SinDDM sees 16."""
    for kernel in kernels:
        x = lax.conv_general_dilated(
            x + 0.5, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    return jnp.tanh(x + 0.1 * (t + scale)[:, None, None, None])


NETWORK = jax.tree_util.Partial(_network, KERNELS)
NUMBERS = jnp.array([3, 7]), jnp.array([0, 1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "side"), [((13, 9), 9), ((21, 8), 6), ((11, 30), 12), ((9, 9), 5)]
)
def test_tiles_give_what_the_whole_gives(size, side):
    x = jax.random.normal(jax.random.key(1), (2, *size, 2))
    seen = []

    def watched(x, t, scale):
        seen.append(x.shape)
        return NETWORK(x, t, scale)

    found = tiled(watched, side, margin=2)(x, *NUMBERS)
    np.testing.assert_allclose(found, NETWORK(x, *NUMBERS), atol=1e-6)
    assert all(max(shape[1:3]) <= side < max(size) for shape in seen)


@pytest.mark.slow
def test_less_margin_than_is_seen_shows():
    x = jax.random.normal(jax.random.key(1), (2, 13, 9, 2))
    found = tiled(NETWORK, 7, margin=1)(x, *NUMBERS)
    assert jnp.abs(found - NETWORK(x, *NUMBERS)).max() > 1e-3


def test_samples_do_not_depend_on_the_tiles():
    schedule = cosine(4)
    blur = np.float32([[0.0] * 4, [0.1, 0.3, 0.6, 1.0]])
    process = MultiScale(((7, 7), (15, 11)), schedule, blur, np.int32([4, 4]))
    start = jax.random.uniform(jax.random.key(2), (2, 15, 11, 2), minval=-1.0)
    drawn = [
        sample_scale(denoise, process, 1, start, jax.random.key(3), eta=1.0)
        for denoise in (NETWORK, tiled(NETWORK, 8, margin=2))
    ]
    np.testing.assert_allclose(*drawn, atol=1e-5)


@pytest.mark.slow
def test_sixteen_pixels_are_enough_for_sinddm():
    model = SinDDM(width=8, conv="dense", rngs=nnx.Rngs(0))
    graph, state = nnx.split(model)
    state = jax.tree.map(lambda p: p + 0.01, state)  # its last layer is zero
    network = jax.tree_util.Partial(lambda s, *x: nnx.merge(graph, s)(*x), state)
    x = jax.random.normal(jax.random.key(1), (2, 70, 53, 3))
    whole, *tiles = (
        jax.jit(denoise)(x, *NUMBERS)
        for denoise in (network, tiled(network, 48), tiled(network, 48, margin=6))
    )
    exact, short = (jnp.abs(found - whole).max() for found in tiles)
    assert exact < 2e-6 * jnp.abs(whole).max() < short


def test_sides_come_of_a_number_of_pixels():
    assert side_within(4 * 100 * 100, 4) == 100
    assert side_within(10, 4) == 64


def test_tiles_without_an_inside_are_refused():
    with pytest.raises(ValueError, match="side=32 must be above 32, two margins of 16"):
        tiled(NETWORK, 32)
