"""The baselines on real CIFAR-10, against figures that numpy and Pillow gave."""

import os
from pathlib import Path

import numpy as np
import pytest

from deepprism_jax.metrics import PSNR, bicubic_down_up, fit_pca

ROOT = os.environ.get("DEEPPRISM_CIFAR10")
pytestmark = pytest.mark.skipif(
    ROOT is None, reason="DEEPPRISM_CIFAR10 does not name a cifar-10-batches-bin folder"
)


def read(name):
    records = np.fromfile(Path(str(ROOT)) / name, np.uint8).reshape(-1, 3073)
    planes = records[:, 1:].reshape(-1, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1))


def test_bicubic_4x_on_the_first_2000_test_images():
    images = read("test_batch.bin")[:2000]
    score = PSNR.from_batch(images, bicubic_down_up(images, 4)).compute()
    assert score.value == pytest.approx(21.16, abs=0.005)
    assert score.std == pytest.approx(2.59, abs=0.005)


@pytest.mark.slow
def test_pca_192_on_all_test_images():
    train = [read(f"data_batch_{number}.bin") for number in range(1, 6)]
    images = read("test_batch.bin")
    pca = fit_pca(train, 192)
    assert (len(pca.components), pca.images) == (192, 50_000)
    score = PSNR.from_batch(images, pca.reconstruct(images)).compute()
    assert score.value == pytest.approx(25.25, abs=0.005)
    assert score.std == pytest.approx(2.56, abs=0.005)
