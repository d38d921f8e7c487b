"""SIFID has its closed forms; beside SinGAN's program: models/test_early_maps.py."""

import numpy as np
import pytest

from deepprism_jax.metrics.sifid import SIFID, few_positions, patches, sifid

STEP = np.array([1.0, -2.0], np.float32)


def test_is_the_distance_of_gaussians_over_positions():
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(3, 9, 7, 2)).astype(np.float32)
    # Scaled and moved copies have covariances that commute: a closed form.
    image = patches(2.0 * maps[0] + STEP)
    mean = maps[0].mean((0, 1), dtype=np.float64)
    variance = np.trace(np.cov(maps[0].reshape(-1, 2), rowvar=False))
    expected = np.sum((mean + STEP) ** 2) + variance
    found = sifid(image, maps)
    assert found[0] == pytest.approx(expected, rel=1e-6)
    # Where the patches lie does not matter, nor how often all of them are there.
    assert sifid(patches(maps[1][::-1, ::-1]), maps[1:2])[0] < 1e-12
    twice = np.concatenate([maps, maps], axis=1)
    assert sifid(image, twice) == pytest.approx(found, rel=0.02)
    score = SIFID.from_batch(image, maps, np.array([True, False, True])).compute()
    chosen = found[[0, 2]]
    assert score[:3] == pytest.approx((chosen.mean(), chosen.std(), 2), rel=1e-6)


def test_few_positions_are_told():
    assert few_positions(np.zeros((1, 4, 5, 19), np.float32)) is None
    line = few_positions(np.zeros((1, 4, 5, 20), np.float32))
    assert line is not None
    assert line.startswith("SIFID from 20 positions of 20 features: covariances are")
