"""Evaluation over a masked stream equals evaluation of the images themselves."""

import jax.numpy as jnp
import numpy as np
import pytest
from reference_ssim import reference_ssim
from skimage.metrics import peak_signal_noise_ratio

from deepprism_jax.metrics.state import Score
from deepprism_jax.training.evaluation import evaluate, scalars

SHAPE = (16, 12, 3)


def images(count, shape=SHAPE):
    """Noise of different contrasts, so that figures differ from image to image."""
    rng = np.random.default_rng(0)
    most = rng.integers(10, 256, (count, 1, 1, 1))
    return (rng.integers(0, 256, (count, *shape)) * most // 256).astype(np.uint8)


def batched(all_images, size):
    for start in range(0, len(all_images), size):
        part = all_images[start : start + size]
        rest = size - len(part)
        # Padding that would ruin every score it entered.
        padding = np.full((rest, *part.shape[1:]), 7, np.uint8)
        mask = np.arange(size) < len(part)
        yield {"image": np.concatenate([part, padding]), "mask": mask}


def darker(batch):
    return jnp.asarray(batch) // 2


@pytest.mark.parametrize("size", [1, 4, 11, 16])
def test_scores_are_the_mean_and_std_over_all_images(size):
    data = images(11)
    scores = evaluate(darker, batched(data, size))
    psnr = [peak_signal_noise_ratio(x, x // 2, data_range=255) for x in data]
    ssim = [reference_ssim(x, x // 2) for x in data]
    assert set(scores) == {"psnr", "ssim"}
    for name, values in (("psnr", psnr), ("ssim", ssim)):
        assert scores[name].count == 11
        assert scores[name].value == pytest.approx(np.mean(values), rel=1e-5)
        assert scores[name].std == pytest.approx(np.std(values), rel=1e-4)


def test_images_below_the_window_of_ssim_still_get_their_psnr():
    scores = evaluate(darker, batched(images(3, (8, 16, 3)), 2))
    assert list(scores) == ["psnr"]


def test_another_measure_and_placement_can_be_given():
    class Count(int):
        def merge(self, other):
            return Count(self + other)

        def compute(self):
            return Score(float(self), None, int(self), "images")

    placed = []
    scores = evaluate(
        darker,
        batched(images(5), 2),
        measure=lambda images, other, mask: {"images": Count(mask.sum())},
        place=lambda batch: placed.append(batch) or batch,
    )
    assert scores == {"images": Score(5.0, None, 5, "images")}
    assert scalars(scores) == {"images": 5.0}
    assert len(placed) == 3


def test_no_image_is_an_error():
    with pytest.raises(ValueError, match="no image was measured"):
        evaluate(darker, [])


def test_scalars_name_value_and_spread():
    flat = scalars(evaluate(darker, batched(images(3), 2)))
    assert list(flat) == ["psnr", "psnr_std", "ssim", "ssim_std"]
    assert all(type(value) is float for value in flat.values())
