"""PSNR against scikit-image."""

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from deepprism_jax.metrics.psnr import PSNR, psnr

SHAPES = [(5, 7, 3), (16, 16, 1), (33, 20, 4), (1, 1, 3), (128, 96, 3)]


def pair(shape, sigma=20.0, count=3):
    rng = np.random.default_rng(sum(shape))
    images = rng.integers(0, 256, (count, *shape)).astype(np.uint8)
    noisy = np.clip(images + rng.normal(0, sigma, images.shape), 0, 255)
    return images, noisy.astype(np.uint8)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sigma", [2.0, 60.0])
def test_equals_scikit_image(shape, sigma):
    images, noisy = pair(shape, sigma)
    expected = [
        peak_signal_noise_ratio(a, b, data_range=255)
        for a, b in zip(images, noisy, strict=True)
    ]
    np.testing.assert_allclose(psnr(images, noisy), expected, rtol=1e-6)


def test_the_largest_error_is_0_db():
    black, white = np.zeros((1, 64, 64, 3), np.uint8), np.full((1, 64, 64, 3), 255)
    assert psnr(black, white.astype(np.uint8))[0] == pytest.approx(0.0, abs=1e-5)


def test_identical_images_score_as_one_value_off_by_one():
    images, _ = pair((8, 8, 3), count=1)
    nearly = images.copy()
    nearly[0, 0, 0, 0] ^= 1
    identical = psnr(images, images)[0]
    assert identical == psnr(images, nearly)[0]
    expected = 20 * np.log10(255) + 10 * np.log10(8 * 8 * 3)
    assert identical == pytest.approx(expected, abs=1e-4)
    nearly[0, 1, 1, 1] ^= 1
    assert psnr(images, nearly)[0] < identical


def test_mean_and_std_are_over_images():
    images, noisy = pair((9, 9, 3), count=5)
    values = np.asarray(psnr(images, noisy))
    score = PSNR.from_batch(images, noisy).compute()
    assert score.value == pytest.approx(values.mean(), rel=1e-6)
    assert score.std == pytest.approx(values.std(), rel=1e-5)


def test_padding_does_not_count():
    images, noisy = pair((8, 8, 3), count=5)
    mask = np.array([True, True, False, True, False])
    masked = PSNR.from_batch(images, noisy, mask).compute()
    alone = PSNR.from_batch(images[mask], noisy[mask]).compute()
    assert masked.count == alone.count == 3
    np.testing.assert_allclose(masked[:2], alone[:2], rtol=1e-6)
