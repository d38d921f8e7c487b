"""The learning rate over a run, and the optimizers that a configuration names."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from deepprism_jax.training.config import OptimizerConfig
from deepprism_jax.training.optimizer import (
    make_optimizer,
    make_schedule,
    peak_learning_rate,
)

PARAMS = {"network": {"a": jnp.array([1.0, -2.0]), "b": jnp.array([[0.5]])}}
GRADS = {"network": {"a": jnp.array([0.3, -0.4]), "b": jnp.array([[0.0]])}}


def schedule_of(**options):
    config = OptimizerConfig(learning_rate=1e-3, **options)
    return make_schedule(config, batch_size=64, steps=100)


def test_the_papers_rule_scales_the_base_rate_by_the_batch():
    config = OptimizerConfig(learning_rate=1e-7, scale_by_batch=True)
    assert peak_learning_rate(config, 2048) == pytest.approx(2.048e-4)
    plain = OptimizerConfig(learning_rate=1e-7)
    assert peak_learning_rate(plain, 2048) == pytest.approx(1e-7)


def test_constant_without_warmup():
    schedule = schedule_of()
    assert [float(schedule(s)) for s in (0, 50, 99)] == pytest.approx([1e-3] * 3)


def test_warmup_rises_from_its_first_share_to_the_peak():
    schedule = schedule_of(warmup_steps=4)
    rates = [float(schedule(step)) for step in range(6)]
    expected = [0.25e-3, 0.5e-3, 0.75e-3, 1e-3, 1e-3, 1e-3]
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize("warmup", [0, 1, 10])
def test_cosine_ends_at_its_final_ratio(warmup):
    schedule = schedule_of(warmup_steps=warmup, schedule="cosine", final_ratio=0.1)
    assert float(schedule(warmup)) == pytest.approx(1e-3)
    assert float(schedule(100)) == pytest.approx(1e-4)
    rates = [float(schedule(step)) for step in range(warmup, 101)]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("name", ["adam", "adamw", "lion", "sgd"])
def test_every_optimizer_goes_downhill(name):
    config = OptimizerConfig(name=name, learning_rate=0.1, clip_norm=0.0)
    schedule = make_schedule(config, batch_size=1, steps=10)
    optimizer = make_optimizer(config, schedule, PARAMS)
    updates, _ = optimizer.update(GRADS, optimizer.init(PARAMS), PARAMS)
    moved = updates["network"]["a"]
    np.testing.assert_array_equal(np.sign(moved), [-1, 1])
    assert updates["network"]["b"] == 0


def test_working_on_one_vector_changes_no_number():
    config = OptimizerConfig(learning_rate=0.1, clip_norm=0.25)
    schedule = make_schedule(config, batch_size=1, steps=10)
    flat = make_optimizer(config, schedule, PARAMS)
    plain = optax.chain(optax.clip_by_global_norm(0.25), optax.adam(schedule))
    flat_state, plain_state = flat.init(PARAMS), plain.init(PARAMS)
    for _ in range(3):
        flat_updates, flat_state = flat.update(GRADS, flat_state, PARAMS)
        updates, plain_state = plain.update(GRADS, plain_state, PARAMS)
        for name in "ab":
            np.testing.assert_allclose(
                flat_updates["network"][name], updates["network"][name], rtol=1e-5
            )


def test_clipping_bounds_the_gradient_of_all_networks_together():
    config = OptimizerConfig(name="sgd", b1=0.0, learning_rate=1.0, clip_norm=0.1)
    schedule = make_schedule(config, batch_size=1, steps=10)
    optimizer = make_optimizer(config, schedule, PARAMS)
    updates, _ = optimizer.update(GRADS, optimizer.init(PARAMS), PARAMS)
    assert float(optax.tree.norm(updates)) == pytest.approx(0.1, rel=1e-5)
