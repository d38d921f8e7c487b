"""The pyramid: sizes and pixels of the official program, and Pillow's resampling."""

from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from deepprism_jax.diffusion.pyramid import (
    enlarge,
    make_pyramid,
    pyramid_sizes,
    size_within,
)

GOLDEN = np.load(Path(__file__).parent / "golden" / "sinddm.npz")


@pytest.mark.parametrize("number", range(len(GOLDEN["sides"])))
def test_sizes_are_those_of_the_official_program(number):
    width, height = GOLDEN["sides"][number].tolist()
    found = pyramid_sizes(*size_within(height, width, 50_000))
    np.testing.assert_array_equal(found, GOLDEN[f"sizes{number}"])


def test_pixels_are_those_of_the_official_program():
    image = GOLDEN["image"]
    pyramid = make_pyramid(image, pyramid_sizes(*image.shape[:2]))
    assert len(pyramid.images) == 3
    for scale in range(2):
        pixels = (pyramid.images[scale] + 1) * 127.5
        np.testing.assert_allclose(pixels, GOLDEN[f"image{scale}"], atol=1e-4)
    np.testing.assert_allclose((pyramid.images[2] + 1) * 127.5, image, atol=1e-4)


@pytest.mark.parametrize("size", [(9, 11), (19, 13), (5, 4), (6, 23)])
def test_enlarging_is_pillows_bilinear_and_what_the_pyramid_holds(size):
    x = np.random.default_rng(0).uniform(-1, 1, (2, 6, 8, 1)).astype(np.float32)
    wide = (size[1], size[0])
    expected = [
        np.asarray(Image.fromarray(y[..., 0]).resize(wide, Image.Resampling.BILINEAR))
        for y in x
    ]
    found = jax.jit(enlarge, static_argnums=1)(x, size)
    np.testing.assert_allclose(found[..., 0], expected, atol=2e-6)


def test_a_scale_holds_the_one_before_enlarged():
    image = GOLDEN["image"][:40, :30, :1]
    pyramid = make_pyramid(image, pyramid_sizes(40, 30, coarsest=15))
    assert pyramid.sizes == ((20, 15), (28, 21), (40, 30))
    for scale in (1, 2):
        found = enlarge(pyramid.images[scale - 1], pyramid.sizes[scale])
        np.testing.assert_allclose(found, pyramid.enlarged[scale], atol=1e-6)
    assert pyramid.enlarged[0] is pyramid.images[0]


def test_one_scale_is_enough():
    assert pyramid_sizes(56, 58) == ((56, 58),)
    assert pyramid_sizes(12, 9, coarsest=9) == ((12, 9),)


def test_what_makes_no_pyramid_is_refused():
    with pytest.raises(ValueError, match=r"image of 60 x 41 px is too small.*least 46"):
        pyramid_sizes(60, 41)
    with pytest.raises(ValueError, match=r"factor=1.0 must be above 1"):
        pyramid_sizes(100, 100, factor=1.0)
    with pytest.raises(ValueError, match="must grow"):
        make_pyramid(GOLDEN["image"], [(30, 30), (40, 20)])
