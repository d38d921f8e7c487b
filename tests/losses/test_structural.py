"""The structural loss against scikit-image."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from reference_ssim import reference_ssim

from deepprism_jax.losses import structural_loss


def pair(shape=(2, 13, 16, 3), noise=0.3):
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, shape).astype(np.float32)
    return images, images + noise * rng.standard_normal(shape).astype(np.float32)


def reference(images, others):
    scores = [
        reference_ssim(image, other, data_range=2.0)
        for image, other in zip(
            images.astype(np.float64), others.astype(np.float64), strict=True
        )
    ]
    return 1.0 - float(np.mean(scores))


@pytest.mark.parametrize("noise", [0.01, 0.3, 2.0])
def test_equals_scikit_image(noise):
    images, others = pair(noise=noise)
    loss = structural_loss(jnp.asarray(images), jnp.asarray(others))
    np.testing.assert_allclose(loss, reference(images, others), atol=2e-6)


def test_its_gradient_is_the_slope_of_scikit_images():
    images, others = pair()
    slope = jax.grad(lambda y: structural_loss(jnp.asarray(images), y))(
        jnp.asarray(others)
    )
    way = np.random.default_rng(1).standard_normal(images.shape)
    ahead, behind = (reference(images, others + step * way) for step in (1e-4, -1e-4))
    np.testing.assert_allclose(np.vdot(slope, way), (ahead - behind) / 2e-4, rtol=1e-4)


def test_is_nothing_for_equal_images_and_finite_where_they_are_flat():
    flat = jnp.full((1, 12, 12, 3), 0.25)
    loss, slope = jax.value_and_grad(lambda y: structural_loss(flat, y))(flat)
    np.testing.assert_allclose(loss, 0.0, atol=1e-6)
    assert np.isfinite(slope).all()


def test_is_float32_for_bfloat16_images():
    images, others = (jnp.asarray(one, jnp.bfloat16) for one in pair())
    loss = structural_loss(images, others)
    assert loss.dtype == jnp.float32
    rounded = (np.asarray(one, np.float32) for one in (images, others))
    np.testing.assert_allclose(loss, reference(*rounded), atol=2e-6)


def test_small_or_unlike_images_are_refused(monkeypatch):
    images = jnp.zeros((1, 10, 16, 3))
    with pytest.raises(ValueError, match="10x16 are smaller than the 11x11 window"):
        structural_loss(images, images)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match="equal shapes"):
        structural_loss(images, jnp.zeros((1, 16, 16, 3)))
