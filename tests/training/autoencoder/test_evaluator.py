import jax
import numpy as np
import pytest

from deepprism_jax.training.autoencoder.evaluator import COLUMNS, Evaluator
from deepprism_jax.training.autoencoder.trainer import AutoencoderTrainer
from deepprism_jax.training.grids import image_grid
from deepprism_jax.training.sharding import make_mesh


class Halving(AutoencoderTrainer):
    """Reconstructs every image at half its brightness, spread over all devices."""

    def __init__(self):
        self.mesh = make_mesh()
        self.reconstruct = jax.jit(
            lambda values, images: images // 2, out_shardings=self.batch_sharding
        )


def batches(*masks):
    random = np.random.default_rng(0)
    return [
        {
            "image": random.integers(0, 255, (len(mask), 16, 16, 3), np.uint8),
            "mask": np.array(mask, bool),
        }
        for mask in masks
    ]


def test_scores_are_of_the_images_that_count():
    data = batches([1, 1, 1, 1], [1, 0, 0, 0])
    scores = Evaluator(Halving(), data).scores({})
    images = np.concatenate([b["image"][b["mask"]] for b in data]).astype(float)
    errors = np.mean((images - images // 2) ** 2, axis=(1, 2, 3))
    psnr = 10 * np.log10(255**2 / errors)
    assert scores["psnr"] == pytest.approx(np.mean(psnr), abs=1e-3)
    assert scores["psnr_std"] == pytest.approx(np.std(psnr), abs=1e-3)


def test_picture_shows_the_first_real_images_over_their_reconstructions():
    """Rows come back in their order from four devices."""
    data = batches([1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], [1] * 12)
    evaluator = Evaluator(Halving(), data)
    shown = data[0]["image"][data[0]["mask"]][:COLUMNS]
    expected = image_grid({"input": shown, "reconstruction": shown // 2}, scale=4)
    for _ in range(2):
        np.testing.assert_array_equal(
            evaluator.pictures({})["reconstructions"], expected
        )


def test_a_process_whose_rows_only_fill_up_the_batch_makes_a_picture_too():
    """Three images on two processes of four rows: the second has none of them."""
    for mask in ([1, 1, 1, 0], [0, 0, 0, 0]):
        data = batches(mask)
        shown = data[0]["image"][: max(sum(mask), 1)]
        expected = image_grid({"input": shown, "reconstruction": shown // 2}, scale=4)
        np.testing.assert_array_equal(
            Evaluator(Halving(), data).pictures({})["reconstructions"], expected
        )


def test_an_interrupted_evaluation_gives_nothing():
    asked = []

    def interrupted():
        asked.append(None)
        return len(asked) > 1

    data = batches([1] * 4, [1] * 4, [1] * 4)
    assert Evaluator(Halving(), data, interrupted=interrupted).scores({}) == {}
    assert Evaluator(Halving(), data, interrupted=lambda: False).scores({})
