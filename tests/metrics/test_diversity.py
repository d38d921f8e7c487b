"""Diversity of samples: by pixels in its closed form, by LPIPS over all pairs."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepprism_jax.losses import PerceptualDistance
from deepprism_jax.metrics.lpips import lpips
from deepprism_jax.metrics.lpips_diversity import LPIPSDiversity
from deepprism_jax.metrics.pixel_diversity import PixelDiversity


class TwoLayers:
    """The least that LPIPS can be built on, of maps of two sizes."""

    channels = (4, 3)

    def apply(self, params, images):
        x = jnp.tanh(images @ params)
        return [x, x[:, ::2, ::2, :3] + 0.5]


PARAMS = jax.random.normal(jax.random.key(0), (3, 4))
HEADS = (jnp.arange(4.0), jnp.arange(3.0) + 1)
DISTANCE = PerceptualDistance(TwoLayers(), PARAMS, HEADS)


def draw(count, seed=0, channels=3):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 6, 5, channels), dtype=np.uint8)


def halves(from_batch, samples):
    """Two parts that together have each sample once."""
    first = np.arange(len(samples)) < 4
    return from_batch(samples, mask=first).merge(from_batch(samples, mask=~first))


def test_pixel_diversity_is_the_spread_of_every_pixel_beside_that_of_the_image():
    samples, image = draw(7), draw(1, seed=1)[0]
    gray, still = (x @ [0.299, 0.587, 0.114] for x in (samples, image))
    expected = gray.std(axis=0, ddof=1).mean() / still.std()
    for state in (
        PixelDiversity.from_batch(samples),
        halves(PixelDiversity.from_batch, samples),
    ):
        score = state.compute(image)
        assert score.value == pytest.approx(expected, rel=1e-12)
        assert (score.count, score.over) == (7, "samples")
    lone = draw(3, channels=1)
    found = PixelDiversity.from_batch(lone).compute(lone[0])
    expected = lone.std(axis=0, ddof=1).mean() / lone[0].std()
    assert found.value == pytest.approx(expected)


def test_independent_samples_of_the_images_intensities_have_a_diversity_of_one():
    rng = np.random.default_rng(0)
    image = draw(1)[0]
    pixels = image.reshape(-1, 3)
    samples = np.stack([rng.permutation(pixels).reshape(6, 5, 3) for _ in range(400)])
    value = PixelDiversity.from_batch(samples).compute(image).value
    assert value == pytest.approx(1.0, abs=0.02)
    same = np.broadcast_to(image, (4, 6, 5, 3))
    assert PixelDiversity.from_batch(same).compute(image).value == 0.0


def test_lpips_diversity_is_the_mean_over_all_pairs():
    samples = draw(7)
    first, second = map(list, zip(*itertools.combinations(range(7), 2), strict=True))
    pairs = jax.jit(partial(lpips, distance=DISTANCE))(samples[first], samples[second])
    from_batch = jax.jit(partial(LPIPSDiversity.from_batch, distance=DISTANCE))
    whole = from_batch(samples, mask=np.ones(7, bool))
    for state in (whole, halves(from_batch, samples)):
        score = state.compute()
        assert score.value == pytest.approx(float(jnp.mean(pairs)), rel=1e-5)
        assert (score.count, score.over, score.images) == (21, "pairs", 7)


@pytest.mark.usefixtures("without_type_checks")
def test_what_has_no_diversity_is_refused():
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        PixelDiversity.from_batch(draw(1)).compute(draw(1)[0])
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        LPIPSDiversity(jnp.int32(1), (), jnp.float32(0.0), ()).compute()
    with pytest.raises(ValueError, match="of one intensity"):
        PixelDiversity.from_batch(draw(2)).compute(np.zeros((6, 5, 3), np.uint8))
    with pytest.raises(ValueError, match="draw all of one size"):
        PixelDiversity.from_batch(draw(2)).merge(
            PixelDiversity.from_batch(draw(2)[:, :5])
        )
    with pytest.raises(TypeError, match="images are float64, not uint8"):
        PixelDiversity.from_batch(draw(2) / 255)
    with pytest.raises(ValueError, match="gray or RGB images, got 4 channels"):
        PixelDiversity.from_batch(draw(2, channels=4))
    with pytest.raises(ValueError, match="without LPIPS's heads is no LPIPS"):
        LPIPSDiversity.from_batch(draw(2), PerceptualDistance(TwoLayers(), PARAMS))
