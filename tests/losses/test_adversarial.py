import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from deepprism_jax.losses import (
    adaptive_weight,
    adversarial_schedule,
    discriminator_loss,
    generator_loss,
)

REAL = jnp.array([[-2.0, 0.5], [1.5, 0.0]])
FAKE = jnp.array([[2.0, -0.5], [-1.5, 0.25]])


def test_hinge_by_hand():
    # relu(1 - D(u)): 3, 0.5, 0, 1; relu(1 + D(y)): 3, 0.5, 0, 1.25
    np.testing.assert_allclose(discriminator_loss(REAL, FAKE), 4.5 / 4 + 4.75 / 4)
    np.testing.assert_allclose(generator_loss(FAKE), -0.25 / 4)


def test_nonsaturating_equals_cross_entropy():
    def sigmoid(x):
        return 1 / (1 + np.exp(-np.asarray(x, np.float64)))

    discriminator = -np.log(sigmoid(REAL)).mean() - np.log(1 - sigmoid(FAKE)).mean()
    loss = discriminator_loss(REAL, FAKE, "nonsaturating")
    np.testing.assert_allclose(loss, discriminator, rtol=1e-6)
    generator = -np.log(sigmoid(FAKE)).mean()
    np.testing.assert_allclose(
        generator_loss(FAKE, "nonsaturating"), generator, rtol=1e-6
    )


@pytest.mark.parametrize("kind", ["hinge", "nonsaturating"])
def test_the_players_pull_against_each_other(kind):
    to_real, to_fake = jax.grad(discriminator_loss, argnums=(0, 1))(REAL, FAKE, kind)
    assert np.all(to_real <= 0)
    assert np.any(to_real < 0)
    assert np.all(to_fake >= 0)
    assert np.any(to_fake > 0)
    assert np.all(jax.grad(generator_loss)(FAKE, kind) < 0)


def test_hinge_leaves_logits_beyond_the_margin_alone():
    to_real, to_fake = jax.grad(discriminator_loss, argnums=(0, 1))(REAL, FAKE)
    np.testing.assert_array_equal(to_real != 0, np.asarray(REAL) < 1)
    np.testing.assert_array_equal(to_fake != 0, np.asarray(FAKE) > -1)


def gradients(seed):
    key = jax.random.key(seed)
    return {"kernel": jax.random.normal(key, (3, 3, 4, 2)), "bias": jnp.ones((2,))}


def scaled(tree, factor):
    return jax.tree.map(lambda leaf: factor * leaf, tree)


def test_adaptive_weight_is_the_ratio_of_norms():
    def norm(tree):
        return np.sqrt(sum(np.sum(np.square(x)) for x in jax.tree.leaves(tree)))

    weight = adaptive_weight(gradients(0), gradients(1))
    np.testing.assert_allclose(
        weight, norm(gradients(0)) / norm(gradients(1)), rtol=1e-6
    )


@hypothesis.settings(deadline=None, max_examples=30)
@hypothesis.given(
    st.floats(2**-10, 2**10, width=32),
    st.floats(2**-10, 2**10, width=32),
)
def test_adaptive_weight_scales_with_either_gradient(reconstruction, adversarial):
    base = adaptive_weight(gradients(0), gradients(1))
    weight = adaptive_weight(
        scaled(gradients(0), reconstruction),
        scaled(gradients(1), adversarial),
        max_weight=1e9,
    )
    np.testing.assert_allclose(weight, base * reconstruction / adversarial, rtol=1e-4)


def test_adaptive_weight_is_clamped_and_finite_where_a_gradient_vanishes():
    zero = scaled(gradients(1), 0.0)
    assert adaptive_weight(gradients(0), scaled(gradients(1), 1e-9)) == 1e4
    assert adaptive_weight(gradients(0), zero, max_weight=7.0) == 7.0
    assert adaptive_weight(zero, gradients(0)) == 0.0
    assert adaptive_weight(zero, zero) == 0.0


def test_adaptive_weight_stops_the_gradient():
    to_both = jax.grad(adaptive_weight, argnums=(0, 1))(gradients(0), gradients(1))
    assert not any(leaf.any() for leaf in jax.tree.leaves(to_both))


@pytest.mark.parametrize(
    ("step", "start", "ramp", "expected"),
    [
        (0, 10, 4, 0.0),
        (9, 10, 4, 0.0),
        (10, 10, 4, 0.25),
        (12, 10, 4, 0.75),
        (13, 10, 4, 1.0),
        (1000, 10, 4, 1.0),
        (9, 10, 0, 0.0),
        (10, 10, 0, 1.0),
        (0, 0, 0, 1.0),
    ],
)
def test_schedule(step, start, ramp, expected):
    schedule = jax.jit(adversarial_schedule)
    np.testing.assert_allclose(schedule(step, start, ramp), expected)


def test_schedule_counts_single_steps_late_in_training():
    steps = jnp.arange(5_000_000, 5_000_004)
    weights = jax.vmap(lambda step: adversarial_schedule(step, 5_000_001, 2))(steps)
    np.testing.assert_array_equal(weights, [0.0, 0.5, 1.0, 1.0])


def test_unknown_kind_names_the_choices(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    message = "kind='wasserstein'; choose 'hinge' or 'nonsaturating'"
    with pytest.raises(ValueError, match=message):
        generator_loss(FAKE, "wasserstein")
    with pytest.raises(ValueError, match=message):
        discriminator_loss(REAL, FAKE, "wasserstein")
