"""Schedules: their laws, and their values against those of diffusers."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from deepprism_jax.diffusion.schedules import add_noise, from_betas, make_schedule

NAMES = ["linear", "scaled_linear", "cosine"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [10, 1000])
def test_variance_is_preserved_and_noise_only_grows(name, steps):
    schedule = make_schedule(name, steps)
    assert schedule.steps == steps
    np.testing.assert_allclose(schedule.alpha**2 + schedule.sigma**2, 1.0, rtol=1e-6)
    assert np.all(np.diff(schedule.sigma) >= 0)
    assert np.all(np.diff(schedule.alpha) < 0)
    assert schedule.sigma[0] > 0
    assert schedule.alpha[-1] > 0


@pytest.mark.parametrize("name", NAMES)
def test_values_are_those_of_diffusers(name):
    path = Path(__file__).parent / "golden" / "samplers.json"
    kept = np.asarray(make_schedule(name, 1000).alpha, np.float64) ** 2
    expected = json.loads(path.read_text())[name]
    # Its products are of float32 numbers.
    np.testing.assert_allclose(kept[[0, 1, 250, 500, 900]], expected, rtol=1e-4)


def test_an_image_is_noised_at_its_own_time():
    schedule = make_schedule("linear", 100)
    x0, eps = jnp.ones((2, 3, 3, 1)), jnp.full((2, 3, 3, 1), 2.0)
    t = jnp.array([0, 99])
    x = add_noise(x0, eps, t, schedule)
    expected = schedule.alpha[[0, 99]] + 2 * schedule.sigma[[0, 99]]
    np.testing.assert_allclose(x[:, 0, 0, 0], expected, rtol=1e-6)
    assert x.shape == x0.shape


def test_what_is_no_schedule_is_refused():
    with pytest.raises(ValueError, match=r"beta=1.5 must lie in \(0, 1\)"):
        from_betas(np.array([0.1, 1.5]))
    with pytest.raises(ValueError, match="steps=0 must be at least 1"):
        make_schedule("cosine", 0)
