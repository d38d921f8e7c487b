import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from deepprism_jax.losses import reconstruction_loss


def images(seed, shape=(2, 4, 5, 3)):
    return jax.random.uniform(jax.random.key(seed), shape, minval=-1.0, maxval=1.0)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("kind", ["l2", "l1"])
def test_equals_its_definition(kind, reduction):
    x, y = images(0), images(1)
    difference = np.asarray(x, np.float64) - np.asarray(y, np.float64)
    error = difference**2 if kind == "l2" else np.abs(difference)
    expected = error.mean() if reduction == "mean" else error.sum() / 2
    loss = reconstruction_loss(x, y, kind, reduction)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_gradient_of_the_mean_square():
    x, y = images(0), images(1)
    gradient = jax.grad(reconstruction_loss)(x, y)
    np.testing.assert_allclose(gradient, 2 * (x - y) / x.size, rtol=1e-6)


def test_is_float32_for_bfloat16_images():
    # In bfloat16 a sum over 3 * 64 * 64 equal terms would stop growing far too early.
    x = jnp.full((1, 64, 64, 3), 0.5, jnp.bfloat16)
    loss = reconstruction_loss(x, jnp.zeros_like(x), "l2", "sum")
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, 0.25 * 3 * 64 * 64, rtol=1e-6)


@pytest.fixture
def unchecked(monkeypatch):
    """Arguments reach the function's own checks, as they do outside the tests."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.mark.usefixtures("unchecked")
def test_refuses_what_would_broadcast():
    with pytest.raises(ValueError, match=r"equal shapes, got \(2, 4, 5, 3\) and \(1,"):
        reconstruction_loss(images(0), images(1, (1, 4, 5, 3)))


@pytest.mark.usefixtures("unchecked")
def test_unknown_choices_are_named():
    with pytest.raises(ValueError, match="kind='huber'; choose 'l2' or 'l1'"):
        reconstruction_loss(images(0), images(1), "huber")
    with pytest.raises(ValueError, match="reduction='max'; choose 'mean' or 'sum'"):
        reconstruction_loss(images(0), images(1), "l2", "max")
