"""PSNR, SSIM and MS-SSIM of generated pairs against other libraries, and their laws."""

import json
from pathlib import Path

import generated_features
import jax
import numpy as np
import pytest

from deepprism_jax.metrics.ms_ssim import MSSSIM, ms_ssim
from deepprism_jax.metrics.psnr import psnr
from deepprism_jax.metrics.ssim import ssim

GOLDEN = json.loads((Path(__file__).parent / "golden" / "pairs.json").read_text())


MASK = np.array([False, True])


@jax.jit
def measure(images, noisy):
    figures = {
        "psnr": psnr(images, noisy),
        "ssim": ssim(images, noisy),
        "ms_ssim": ms_ssim(images, noisy),
    }
    return figures, MSSSIM.from_batch(images, noisy, MASK)


@pytest.mark.parametrize("name", generated_features.PAIRS)
def test_equals_the_peers(name):
    figures, masked = measure(*generated_features.image_pair(name))
    for label, expected in GOLDEN[name].items():
        # pytorch-msssim's window is in float32, which moves its SSIM by 8e-7.
        rtol = 2e-6 if label == "pytorch-msssim/ssim" else 1e-6
        own = figures[label.split("/")[1]]
        np.testing.assert_allclose(own, expected, rtol=rtol, err_msg=label)
    # The first image only fills up the batch.
    score = masked.compute()
    assert (score.value, score.count) == (float(figures["ms_ssim"][1]), 1)


def test_ms_ssim_of_identical_and_of_inverted_images():
    images, _ = generated_features.image_pair("odd")
    np.testing.assert_allclose(measure(images, images)[0]["ms_ssim"], 1.0, atol=1e-6)
    # A negative structure is no similarity, and no NaN when it is raised to a power.
    inverted = measure(images, 255 - images)[0]["ms_ssim"]
    np.testing.assert_array_equal(inverted, 0.0)


def test_ms_ssim_names_the_smallest_side():
    images = np.zeros((2, 200, 160, 3), np.uint8)
    with pytest.raises(ValueError, match=r"200x160 are too small .* at least 161"):
        ms_ssim(images, images)
