"""Guides: regions and masks, as in the official program and by what they promise."""

from pathlib import Path

import numpy as np
import pytest

from deepprism_jax.diffusion.guides import feathered, region_guide
from deepprism_jax.diffusion.pyramid import make_pyramid, pyramid_sizes

GOLDEN = np.load(Path(__file__).parent / "golden" / "sinddm.npz")
IMAGE = GOLDEN["image"]
PYRAMID = make_pyramid(IMAGE, pyramid_sizes(*IMAGE.shape[:2]))
SIZES = PYRAMID.sizes


def test_a_region_is_put_as_in_the_official_program():
    source, target = (tuple(map(int, box)) for box in GOLDEN["boxes"])
    guide = region_guide(PYRAMID.images, source, [target], SIZES[-1])
    keep, add = guide(1, SIZES[1])
    np.testing.assert_allclose(keep * 0.25 + add, GOLDEN["regions"][0], atol=1e-5)
    assert guide(2, SIZES[2]) is None


def test_a_later_region_covers_an_earlier_one():
    boxes = [(0, 0, 40, 40), (20, 20, 40, 40)]
    guide = region_guide(PYRAMID.images, (8, 8, 9, 9), boxes, (80, 80), free_scales=0)
    keep, add = guide(2, (80, 80))
    np.testing.assert_allclose(
        keep[[0, 30, 50, 70], [0, 30, 50, 70], 0], [0.2, 0.04, 0.2, 1], rtol=1e-5
    )
    once = region_guide(
        PYRAMID.images, (8, 8, 9, 9), boxes[1:], (80, 80), free_scales=0
    )
    np.testing.assert_array_equal(once(2, (80, 80)).add[50, 50], add[50, 50])
    assert not np.allclose(once(2, (80, 80)).add[30, 30], add[30, 30])


def test_a_tiny_box_is_a_pixel_at_the_coarsest_scale():
    guide = region_guide(PYRAMID.images, (111, 89, 1, 1), [(0, 0, 1, 1)], (9, 400))
    keep, _ = guide(0, (4, 90))
    assert (keep < 1).sum() == 1


def test_a_mask_is_feathered_as_in_the_official_program():
    soft = feathered(GOLDEN["mask"] > 0)
    stretched = (soft - soft.min()) / (soft.max() - soft.min())
    np.testing.assert_allclose(stretched, GOLDEN["feathered"], atol=1e-6)
    assert soft.max() == 1
    hard = feathered(GOLDEN["mask"] > 0, grow=0, sigma=0.0)
    np.testing.assert_array_equal(hard, GOLDEN["mask"])


def test_what_no_guide_is_made_of_is_refused():
    with pytest.raises(ValueError, match=r"box 100 0 20 5 .* training image, 112 x 90"):
        region_guide(PYRAMID.images, (100, 0, 20, 5), [], (9, 9))
    with pytest.raises(ValueError, match=r"box 0 0 0 5 .* and not be empty"):
        region_guide(PYRAMID.images, (0, 0, 5, 5), [(0, 0, 0, 5)], (9, 9))
    with pytest.raises(ValueError, match=r"strength=1.5 must lie in \[0, 1\]"):
        region_guide(PYRAMID.images, (0, 0, 5, 5), [], (9, 9), strength=1.5)
    with pytest.raises(ValueError, match="mask is empty"):
        feathered(np.zeros((4, 4), bool))
