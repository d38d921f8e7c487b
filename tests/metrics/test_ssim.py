"""SSIM against scikit-image."""

import jax
import numpy as np
import pytest
from reference_ssim import reference_ssim

from deepprism_jax.metrics.ssim import SSIM, ssim


def pair(shape, low=0, high=256, sigma=20.0, count=3):
    rng = np.random.default_rng(sum(shape))
    images = rng.integers(low, high, (count, *shape)).astype(np.uint8)
    noisy = np.clip(images + rng.normal(0, sigma, images.shape), 0, 255)
    return images, noisy.astype(np.uint8)


@pytest.mark.parametrize(
    "shape", [(11, 11, 3), (12, 17, 3), (33, 20, 1), (16, 40, 4), (64, 64, 3)]
)
@pytest.mark.parametrize("sigma", [2.0, 60.0])
def test_equals_scikit_image(shape, sigma):
    images, noisy = pair(shape, sigma=sigma)
    expected = [reference_ssim(a, b) for a, b in zip(images, noisy, strict=True)]
    np.testing.assert_allclose(jax.jit(ssim)(images, noisy), expected, atol=1e-6)


@pytest.mark.parametrize(("low", "high"), [(0, 3), (126, 129), (252, 256)])
def test_equals_scikit_image_where_contrast_is_low(low, high):
    images, noisy = pair((32, 32, 3), low, high, sigma=1.0)
    expected = [reference_ssim(a, b) for a, b in zip(images, noisy, strict=True)]
    np.testing.assert_allclose(jax.jit(ssim)(images, noisy), expected, atol=1e-5)


def test_equals_scikit_image_on_a_bright_flat_sky_over_a_dark_ground():
    rng = np.random.default_rng(0)
    image = np.full((1, 64, 64, 3), 250, np.uint8)
    image[:, 40:] = 2
    other = image ^ rng.integers(0, 2, image.shape).astype(np.uint8)
    expected = reference_ssim(image[0], other[0])
    np.testing.assert_allclose(jax.jit(ssim)(image, other)[0], expected, atol=1e-5)


def test_identical_is_1_and_order_does_not_matter():
    images, noisy = pair((20, 13, 3))
    jitted = jax.jit(ssim)
    np.testing.assert_allclose(jitted(images, images), 1.0, atol=1e-6)
    np.testing.assert_allclose(jitted(images, noisy), jitted(noisy, images), atol=1e-6)


def test_an_image_smaller_than_the_window_is_named():
    images = np.zeros((2, 10, 32, 3), np.uint8)
    with pytest.raises(ValueError, match="images of 10x32 are smaller than the 11x11"):
        ssim(images, images)


def test_padding_does_not_count():
    images, noisy = pair((16, 16, 3), count=5)
    mask = np.array([True, True, False, True, False])
    masked = jax.jit(SSIM.from_batch)(images, noisy, mask).compute()
    alone = jax.jit(SSIM.from_batch)(images[mask], noisy[mask]).compute()
    assert masked.count == alone.count == 3
    np.testing.assert_allclose(masked[:2], alone[:2], rtol=1e-5)
