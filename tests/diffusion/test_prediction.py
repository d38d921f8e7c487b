"""The three targets are one: each gives back image, noise and x_t."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepprism_jax.diffusion.prediction import denoised, target_of


@pytest.mark.parametrize("target", ["eps", "x0", "v"])
@pytest.mark.parametrize("angle", [0.1, 0.8, 1.5])
def test_a_perfect_prediction_gives_image_and_noise(target, angle):
    alpha, sigma = np.cos(angle), np.sin(angle)
    x0, eps = jax.random.normal(jax.random.key(0), (2, 2, 4, 4, 3))
    x = alpha * x0 + sigma * eps
    found = denoised(target, target_of(target, x0, eps, alpha, sigma), x, alpha, sigma)
    np.testing.assert_allclose(found.x0, x0, atol=3e-5)
    np.testing.assert_allclose(found.eps, eps, atol=3e-5)


@pytest.mark.parametrize("target", ["eps", "x0", "v"])
def test_any_prediction_keeps_to_x(target):
    alpha, sigma = 0.6, 0.8
    x, prediction = jax.random.normal(jax.random.key(1), (2, 5))
    found = denoised(target, prediction, x, alpha, sigma)
    np.testing.assert_allclose(alpha * found.x0 + sigma * found.eps, x, atol=1e-6)


def test_an_unknown_target_is_refused(without_type_checks):
    wrong: Any = "noise"
    zeros = jnp.zeros(1)
    for function in (denoised, target_of):
        with pytest.raises(ValueError, match="target='noise' is unknown; choose one"):
            function(wrong, zeros, zeros, 0.6, 0.8)
