import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from deepprism_jax.losses import gaussian_kl

numbers = st.floats(-4, 4, width=32)


@pytest.mark.parametrize(
    ("mean", "std", "other_mean", "other_std"),
    [(0.3, 0.5, 0.0, 1.0), (-1.0, 2.0, 0.5, 0.7), (0.0, 1.0, 0.0, 3.0)],
)
def test_equals_the_integral(mean, std, other_mean, other_std):
    """The definition itself, so that a lost square of eq. (8) cannot hide."""
    p, q = stats.norm(mean, std), stats.norm(other_mean, other_std)
    expected, _ = integrate.quad(
        lambda x: p.pdf(x) * (p.logpdf(x) - q.logpdf(x)),
        mean - 12 * std,
        mean + 12 * std,
    )
    kl = gaussian_kl(
        jnp.full((1, 1), mean),
        jnp.full((1, 1), 2 * np.log(std)),
        other_mean,
        2 * np.log(other_std),
    )
    np.testing.assert_allclose(kl, [expected], rtol=1e-5)


def test_sums_over_the_latent_and_keeps_the_batch():
    mean = jax.random.normal(jax.random.key(0), (3, 4, 5, 2))
    logvar = jax.random.normal(jax.random.key(1), (3, 4, 5, 2))
    expected = 0.5 * (mean**2 + jnp.exp(logvar) - 1 - logvar).sum((1, 2, 3))
    np.testing.assert_allclose(gaussian_kl(mean, logvar), expected, rtol=1e-5)


@hypothesis.settings(deadline=None, max_examples=50)
@hypothesis.given(numbers, numbers, numbers, numbers)
def test_is_positive_and_zero_only_at_equality(mean, logvar, other_mean, other_logvar):
    one = jnp.ones((1, 1))
    kl = gaussian_kl(mean * one, logvar * one, other_mean, other_logvar)
    assert kl[0] >= 0
    same = gaussian_kl(mean * one, logvar * one, mean, logvar)
    assert same[0] == 0
    if abs(mean - other_mean) > 1e-2 or abs(logvar - other_logvar) > 1e-2:
        assert kl[0] > 0


def test_gradient_flows_to_all_four_and_pulls_to_the_prior():
    mean = jnp.array([[0.5, -2.0]])
    logvar = jnp.array([[0.5, -1.0]])

    def loss(*arguments):
        return gaussian_kl(*arguments).sum()

    gradients = jax.grad(loss, argnums=(0, 1))(mean, logvar)
    np.testing.assert_allclose(gradients[0], mean, rtol=1e-6)
    np.testing.assert_allclose(gradients[1], 0.5 * jnp.expm1(logvar), rtol=1e-6)
    other = jax.grad(loss, argnums=(2, 3))(mean, logvar, mean + 1, logvar + 1)
    assert all(np.all(gradient != 0) for gradient in other)
