"""The worst and the best of a stream, however it is cut, and their picture."""

import numpy as np
import pytest
from PIL import Image

from deepprism_jax.evaluation.extremes import SIDE, Extremes, ranking_metric
from deepprism_jax.training.grids import GAP


def batch(values, start=0):
    """Images that show their own index; reconstructions are 100 brighter."""
    indices = np.arange(start, start + len(values))
    images = np.zeros((len(values), 4, 4, 3), np.uint8) + indices[:, None, None, None]
    images = images.astype(np.uint8)
    return indices, np.float32(values), images, images + np.uint8(100)


def found(cases):
    return [case.index for case in cases]


def test_lower_is_worse_for_psnr_and_better_for_lpips():
    values = [3.0, 9.0, 1.0, 5.0, 7.0]
    psnr = Extremes("psnr", 2).add(*batch(values))
    assert (found(psnr.worst), found(psnr.best)) == ([2, 0], [1, 4])
    lpips = Extremes("lpips_vgg", 2).add(*batch(values))
    assert (found(lpips.worst), found(lpips.best)) == ([1, 4], [2, 0])
    assert [case.value for case in lpips.worst] == [9.0, 7.0]


def test_ties_go_by_index_and_nan_is_worst():
    values = [4.0, np.nan, 4.0, 4.0, np.nan]
    kept = Extremes("psnr", 3).add(*batch(values))
    assert found(kept.worst) == [1, 4, 0]
    assert found(kept.best) == [0, 2, 3]
    last = Extremes("psnr", 5).add(*batch(values))
    assert found(last.best) == [0, 2, 3, 1, 4]
    infinite = Extremes("lpips_vgg", 3).add(*batch([np.nan, np.inf, 1.0]))
    assert (found(infinite.worst), found(infinite.best)) == ([0, 1, 2], [2, 1, 0])
    infinite = Extremes("lpips_vgg", 3).add(*batch([np.inf, np.nan, 1.0]))
    assert (found(infinite.worst), found(infinite.best)) == ([1, 0, 2], [2, 0, 1])


@pytest.mark.parametrize("metric", ["psnr", "lpips_squeeze"])
def test_any_cut_into_batches_and_parts_gives_the_same(metric):
    values = np.random.default_rng(0).integers(0, 12, 60).astype(np.float32)
    values[[7, 31]] = np.nan
    whole = Extremes(metric, 6).add(*batch(values))
    parts = [Extremes(metric, 6), Extremes(metric, 6)]
    for number, start in enumerate(range(0, 60, 7)):
        cut = batch(values[start : start + 7], start)
        parts[number % 2] = parts[number % 2].add(*cut)
    for merged in (parts[0].merge(parts[1]), parts[1].merge(parts[0])):
        assert found(merged.worst) == found(whole.worst)
        assert found(merged.best) == found(whole.best)


def test_images_stay_with_their_values_and_padding_is_left_out():
    indices, values, images, made = batch([5.0, 1.0, 3.0, 0.0])
    mask = np.array([True, True, True, False])
    kept = Extremes("psnr", 2).add(indices + 50, values, images, made, mask)
    assert found(kept.worst) == [51, 52]
    for case in (*kept.worst, *kept.best):
        assert (case.image == case.index - 50).all()
        assert (case.reconstruction == case.index + 50).all()


def test_memory_is_bounded():
    kept = Extremes("psnr", 2)
    for start in range(0, 100, 10):
        kept = kept.add(*batch(np.arange(start, start + 10.0), start))
    assert len(kept.worst) == len(kept.best) == 2
    # A view would keep its whole batch alive.
    assert all(case.image.base is None for case in (*kept.worst, *kept.best))
    assert all(case.reconstruction.base is None for case in kept.worst)


def test_parts_of_different_kinds_are_not_merged():
    with pytest.raises(ValueError, match="2 extremes by ssim are not merged with 2 by"):
        Extremes("psnr", 2).merge(Extremes("ssim", 2))


def test_picture_shows_worst_above_best_with_originals_over_reconstructions(tmp_path):
    kept = Extremes("psnr", 2).add(*batch([5.0, 1.0, 3.0, 9.0]))
    path = tmp_path / "new" / "extremes.png"
    kept.save(path)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        pixels = np.asarray(picture)
    np.testing.assert_array_equal(pixels, kept.picture())
    assert list(path.parent.iterdir()) == [path]
    half = pixels.shape[0] // 2
    side, right = SIDE // 2, pixels.shape[1] - GAP - SIDE // 2
    for top, (first, second) in ((0, (1, 2)), (half, (3, 0))):
        bottom = top + half - GAP - side
        for left, index in ((right - SIDE - GAP, first), (right, second)):
            assert (pixels[bottom - SIDE - GAP, left] == index).all()
            assert (pixels[bottom, left] == index + 100).all()
        # A caption stands over every column.
        heading = pixels[top : top + 56, right - side : right + side]
        assert (heading < 128).any()


def test_few_images_are_shown_once():
    kept = Extremes("psnr", 8).add(*batch([5.0, 1.0]))
    alone = Extremes("psnr", 8, worst=kept.worst)
    np.testing.assert_array_equal(kept.picture(), alone.picture())


def test_there_is_no_picture_of_nothing():
    with pytest.raises(ValueError, match="no image was measured"):
        Extremes("psnr", 3).picture()


def test_lpips_ranks_before_psnr():
    assert ranking_metric(["psnr", "ssim", "lpips_alex", "lpips_vgg"]) == "lpips_vgg"
    assert ranking_metric(["ssim", "psnr"]) == "psnr"
    assert ranking_metric(["fid"]) is None
