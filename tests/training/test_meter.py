import math

import jax
import jax.numpy as jnp
import pytest

from deepprism_jax.training.meter import Meter, NonFiniteError, check_finite


def test_means_are_over_the_steps_since_the_last_flush():
    meter = Meter()
    for step, loss in enumerate([1.0, 2.0, 6.0], start=1):
        meter.update(step, {"loss": jnp.float32(loss), "rate": jnp.bfloat16(0.5)})
    assert meter.steps == 3
    assert meter.flush() == {"loss": 3.0, "rate": 0.5}
    assert meter.steps == 0
    meter.update(4, {"loss": jnp.float32(10.0)})
    assert meter.flush() == {"loss": 10.0}
    assert meter.flush() == {}


def test_a_metric_may_come_later_than_others():
    meter = Meter()
    meter.update(1, {"loss": jnp.float32(1.0)})
    meter.update(2, {"loss": jnp.float32(3.0), "adversarial": jnp.float32(5.0)})
    assert meter.flush() == {"loss": 2.0, "adversarial": 5.0}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_bad_value_is_named_with_its_first_step_and_the_window(bad):
    meter = Meter()
    for step in range(11, 16):
        value = bad if step >= 13 else 1.0
        total = bad if step >= 14 else 1.0
        metrics = {"loss/kl": value, "loss": total, "psnr": 20.0}
        meter.update(step, jax.tree.map(jnp.float32, metrics))
    for look in (meter.check, meter.flush):
        with pytest.raises(NonFiniteError) as caught:
            look()
        assert str(caught.value) == (
            "loss/kl is not finite, first at step 13 (checked were the steps [11, 15])"
        )


def test_a_check_starts_nothing_anew():
    meter = Meter()
    meter.check()
    meter.update(1, {"loss": jnp.float32(1.0)})
    meter.check()
    meter.update(2, {"loss": jnp.float32(2.0)})
    assert meter.flush() == {"loss": 1.5}


def test_a_state_is_checked_array_by_array():
    state = {
        "params": {"w": jnp.ones(3), "b": jnp.zeros(2, jnp.bfloat16)},
        "step": jnp.int32(3),
        "key": jnp.array([0, 2**32 - 1], jnp.uint32),
    }
    check_finite(state, 3)
    state["params"]["w"] = state["params"]["w"].at[1].set(jnp.nan)
    with pytest.raises(NonFiniteError, match=r"^params\.w is not finite after step 3$"):
        check_finite(state, 3)
    state["params"]["b"] = state["params"]["b"].at[0].set(jnp.inf)
    with pytest.raises(NonFiniteError, match=r"^params\.b and 1 more arrays are not"):
        check_finite(state, 3)
