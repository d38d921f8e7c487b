"""Grids hold the pixels they were given, where they belong."""

import numpy as np
import pytest
from PIL import Image

from deepprism_jax.training.grids import GAP, image_grid, save_grid


def images(channels=3, count=4, height=6, width=5, seed=0):
    shape = (count, height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def cell(grid, row, column, height, width):
    left = grid.shape[1] - 4 * (width + GAP) - GAP
    top = GAP + row * (height + GAP)
    start = left + GAP + column * (width + GAP)
    return grid[top : top + height, start : start + width]


@pytest.mark.parametrize("captions", [False, True])
def test_every_image_lies_in_its_row_and_column(captions):
    rows = {"input": images(), "reconstruction": images(seed=1)}
    grid = image_grid(rows, captions=captions)
    assert grid.dtype == np.uint8
    for row, row_images in enumerate(rows.values()):
        for column, image in enumerate(row_images):
            np.testing.assert_array_equal(cell(grid, row, column, 6, 5), image)


def test_without_captions_the_grid_is_images_and_gaps():
    grid = image_grid({"a": images(), "b": images()}, captions=False)
    assert grid.shape == (2 * (6 + GAP) + GAP, 4 * (5 + GAP) + GAP, 3)


def test_captions_are_written_left_of_the_images():
    rows = {"input": images(height=24), "model": images(height=24)}
    plain, captioned = image_grid(rows, captions=False), image_grid(rows)
    left = captioned.shape[1] - plain.shape[1]
    assert left > 0
    gutters = np.split(captioned[GAP : GAP + 2 * 26, :left], 2)
    assert all((gutter < 128).any() for gutter in gutters)
    assert not np.array_equal(*gutters)


def test_scale_repeats_pixels():
    grid = image_grid({"a": images()}, scale=3, captions=False)
    expected = np.kron(images()[2], np.ones((3, 3, 1), np.uint8))
    np.testing.assert_array_equal(cell(grid, 0, 2, 18, 15), expected)


def test_gray_becomes_rgb_and_alpha_lies_on_white():
    gray = images(channels=1)
    grid = image_grid({"a": gray}, captions=False)
    np.testing.assert_array_equal(cell(grid, 0, 0, 6, 5), np.repeat(gray[0], 3, -1))
    clear = images(channels=4)
    clear[..., 3] = 0
    assert (image_grid({"a": clear}, captions=False) == 255).all()
    clear[..., 3] = 255
    grid = image_grid({"a": clear}, captions=False)
    np.testing.assert_array_equal(cell(grid, 0, 1, 6, 5), clear[1, ..., :3])


def test_rows_of_different_shape_or_without_images_are_refused():
    with pytest.raises(ValueError, match="rows of one shape"):
        image_grid({"a": images(), "b": images(count=3)})
    with pytest.raises(ValueError, match="rows of one shape"):
        image_grid({})
    with pytest.raises(ValueError, match="rows of one shape"):
        image_grid({"a": images(count=0)})


def test_save_writes_the_grid_as_png(tmp_path):
    path = tmp_path / "grids" / "first.png"
    rows = {"input": images()}
    save_grid(path, rows, scale=2)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        np.testing.assert_array_equal(np.asarray(picture), image_grid(rows, scale=2))
