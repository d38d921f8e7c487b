"""The baselines against Pillow, numpy and scikit-learn."""

import numpy as np
import pytest
from PIL import Image
from sklearn.decomposition import PCA as SklearnPCA

from deepprism_jax.metrics import baselines
from deepprism_jax.metrics.baselines import bicubic_down_up, fit_pca
from deepprism_jax.metrics.psnr import psnr


def smooth_images(count, height, width, channels=3, seed=0):
    """Images that are mostly low frequencies, as photographs are."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width][:, None, :, :, None] / 8.0
    phase = rng.uniform(0, 6, (4, count, 1, 1, channels))
    waves = np.sin(y + phase[0]) * 60 + np.sin(phase[1] * x + phase[2]) * 40
    noise = rng.normal(0, 10, (count, height, width, channels))
    return np.clip(waves + noise + 128, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("shape", "factor"), [((32, 32), 4), ((24, 40), 2), ((16, 8), 8)]
)
def test_bicubic_is_pillows(shape, factor):
    images = smooth_images(2, *shape)
    ours = np.asarray(bicubic_down_up(images, factor))
    for image, mine in zip(images, ours, strict=True):
        for channel in range(3):
            # Pillow's float mode, since the small image here is not rounded to 8 bits.
            plane = Image.fromarray(image[..., channel].astype(np.float32))
            size = (shape[1] // factor, shape[0] // factor)
            plane = plane.resize(size, Image.Resampling.BICUBIC)
            plane = plane.resize(shape[::-1], Image.Resampling.BICUBIC)
            expected = np.clip(np.asarray(plane), 0, 255)
            assert np.abs(mine[..., channel] - expected).max() <= 0.501


def test_bicubic_needs_sides_divisible_by_the_factor():
    with pytest.raises(
        ValueError, match="images of 30x32 are not divisible by the fac"
    ):
        bicubic_down_up(np.zeros((1, 30, 32, 3), np.uint8), 4)


@pytest.mark.parametrize("gram", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_pca_is_scikit_learns(gram, channels, monkeypatch):
    if gram:
        monkeypatch.setattr(baselines, "MAX_SIDE", 50)
    images = smooth_images(50, 8, 6, channels)
    test = smooth_images(9, 8, 6, channels, seed=1)
    pca = fit_pca((images[i : i + 7] for i in range(0, 50, 7)), 12)
    theirs = SklearnPCA(12, svd_solver="full").fit(images.reshape(50, -1).astype(float))
    assert pca.images == 50
    np.testing.assert_allclose(pca.mean.reshape(-1), theirs.mean_, atol=1e-4)
    dots = np.abs(np.sum(pca.components * theirs.components_, axis=1))
    np.testing.assert_allclose(dots, 1.0, atol=1e-5)
    rows = theirs.inverse_transform(theirs.transform(test.reshape(9, -1).astype(float)))
    expected = np.clip(rows, 0, 255).reshape(test.shape)
    assert np.abs(np.asarray(pca.reconstruct(test)) - expected).max() <= 0.501


def test_pca_is_the_best_projection_of_its_rank():
    images = smooth_images(40, 8, 8, 1)
    rows = images.reshape(40, -1).astype(float)
    spectrum = np.linalg.svd(rows - rows.mean(0), compute_uv=False)
    pca = fit_pca([images], 5)
    centred = rows - np.asarray(pca.mean).reshape(-1)
    components = np.asarray(pca.components)
    rest = centred - centred @ components.T @ components
    assert np.sum(rest**2) == pytest.approx(np.sum(spectrum[5:] ** 2), rel=1e-5)


@pytest.mark.parametrize("gram", [False, True])
def test_fewer_images_than_components_gives_fewer_components(gram, monkeypatch):
    if gram:
        monkeypatch.setattr(baselines, "MAX_SIDE", 50)
    images = smooth_images(10, 8, 8)
    pca = fit_pca([images], 48)
    assert pca.components.shape == (9, 8 * 8 * 3)
    np.testing.assert_allclose(pca.components @ pca.components.T, np.eye(9), atol=1e-5)
    assert psnr(images, pca.reconstruct(images)).min() > 58


@pytest.mark.parametrize("gram", [False, True])
def test_images_that_are_all_the_same_have_no_component(gram, monkeypatch):
    if gram:
        monkeypatch.setattr(baselines, "MAX_SIDE", 50)
    images = np.repeat(smooth_images(1, 8, 8), 7, axis=0)
    pca = fit_pca([images], 4)
    assert pca.components.shape == (0, 8 * 8 * 3)
    np.testing.assert_array_equal(pca.reconstruct(images), images)


def test_large_images_are_kept_up_to_the_limit(monkeypatch):
    monkeypatch.setattr(baselines, "MAX_SIDE", 50)
    monkeypatch.setattr(baselines, "MAX_VALUES", 20 * 8 * 8 * 3)
    images = smooth_images(32, 8, 8)

    def stream():
        yield images[:16]
        yield images[16:]
        raise AssertionError("read on although no more images are used")

    pca = fit_pca(stream(), 4)
    assert pca.images == 20
    np.testing.assert_allclose(pca.mean, images[:20].mean(0), atol=1e-4)


def test_batch_size_does_not_move_the_covariance():
    images = smooth_images(50, 8, 6)
    one = fit_pca([images], 6)
    other = fit_pca(np.split(images, [3, 17, 18]), 6)
    np.testing.assert_array_equal(one.components, other.components)


def test_an_empty_training_split_is_an_error():
    with pytest.raises(ValueError, match="no image to fit PCA on"):
        fit_pca([], 4)
    with pytest.raises(ValueError, match="components=0 must be at least 1"):
        fit_pca([smooth_images(3, 8, 8)], 0)
