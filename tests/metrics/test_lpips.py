"""LPIPS as a metric; against the lpips package: tests/losses/test_perceptual.py."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepprism_jax.losses import PerceptualDistance
from deepprism_jax.metrics.lpips import LPIPS, lpips


class OneLayer:
    """The least that LPIPS can be built on."""

    channels = (4,)

    def apply(self, params, images):
        return [jnp.tanh(images @ params)]


PARAMS = jax.random.normal(jax.random.key(0), (3, 4))
DISTANCE = PerceptualDistance(OneLayer(), PARAMS, (jnp.arange(4.0),))


MEASURE = jax.jit(partial(lpips, distance=DISTANCE))


def pair(count=5):
    draw = np.random.default_rng(0).integers
    return [draw(0, 256, (count, 6, 5, 3)).astype(np.uint8) for _ in range(2)]


def test_pixels_are_mapped_to_minus_one_to_one():
    images, other = pair()
    floats = [jnp.asarray(pixels / 127.5 - 1, jnp.float32) for pixels in pair()]
    expected = jax.jit(DISTANCE.apply)(DISTANCE.frozen, *floats)
    np.testing.assert_allclose(MEASURE(images, other), expected, rtol=1e-5)
    np.testing.assert_allclose(MEASURE(images, images), 0.0, atol=1e-12)


def test_the_weights_may_be_an_argument():
    images, other = pair()
    twice = {"params": PARAMS, "heads": (2 * jnp.arange(4.0),)}
    found = MEASURE(images, other, frozen=twice)
    np.testing.assert_allclose(found, 2 * MEASURE(images, other), rtol=1e-5)


def test_padding_does_not_count():
    images, other = pair()
    mask = np.array([True, True, False, True, False])
    from_batch = jax.jit(partial(LPIPS.from_batch, distance=DISTANCE))
    score = from_batch(images, other, mask=mask).compute()
    assert score.count == 3
    values = np.asarray(MEASURE(images, other))[mask]
    np.testing.assert_allclose(score[:2], [values.mean(), values.std()], rtol=1e-4)


def test_products_are_of_full_precision_everywhere():
    text = MEASURE.lower(*pair()).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert products
    assert all("HIGHEST" in line for line in products)


@pytest.mark.usefixtures("without_type_checks")
def test_floats_are_refused_whose_range_cannot_be_told():
    images, other = pair()
    with pytest.raises(TypeError, match="reconstructions are float32, not uint8"):
        lpips(images, (other / 255).astype(np.float32), DISTANCE)


def test_a_distance_without_heads_is_no_lpips():
    without = PerceptualDistance(OneLayer(), PARAMS)
    with pytest.raises(ValueError, match=r"no LPIPS: load them with weights\.torchv"):
        lpips(*pair(), without)
