"""Moments of parts merge to the moments of the whole."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from deepprism_jax.metrics.state import Moments, check_pair

VALUES = arrays(np.float32, st.integers(0, 8), elements=st.floats(-100, 100, width=32))


def moments(values: np.ndarray) -> Moments:
    return Moments.from_values(jnp.asarray(values, jnp.float32))


def assert_same(one: Moments, other: Moments) -> None:
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-3)


@settings(deadline=None, max_examples=30)
@given(VALUES, VALUES, VALUES)
def test_merge_is_associative_commutative_and_equals_the_whole(a, b, c):
    parts = [moments(part) for part in (a, b, c)]
    left = parts[0].merge(parts[1]).merge(parts[2])
    assert_same(left, parts[0].merge(parts[1].merge(parts[2])))
    assert_same(left, parts[2].merge(parts[1]).merge(parts[0]))
    assert_same(left, moments(np.concatenate([a, b, c])))


def test_compute_gives_mean_and_population_standard_deviation():
    values = np.array([20.0, 25.0, 31.5], np.float32)
    score = moments(values).compute()
    assert score.value == pytest.approx(values.mean())
    assert score.std == pytest.approx(values.std())
    assert (score.count, score.over) == (3, "images")


def test_spread_survives_a_large_mean():
    # Sums of squares in float32 give 0 or a negative variance here.
    values = 30_000.0 + np.random.default_rng(0).normal(0, 0.5, (50, 64))
    values = values.astype(np.float32)
    total = moments(values[0])
    for part in values[1:]:
        total = total.merge(moments(part))
    score = total.compute()
    assert score.std == pytest.approx(values.astype(np.float64).std(), rel=1e-3)
    assert score.value == pytest.approx(values.astype(np.float64).mean(), rel=1e-6)


def test_an_empty_part_changes_nothing():
    some, none = moments(np.array([1.0, 2.0])), moments(np.zeros(0))
    for merged in (some.merge(none), none.merge(some)):
        assert merged.compute() == some.compute()


def test_masked_values_do_not_count_even_if_they_are_nan():
    values = jnp.array([3.0, jnp.nan, 5.0, jnp.inf])
    masked = Moments.from_values(values, np.array([True, False, True, False]))
    assert masked.compute() == moments(np.array([3.0, 5.0])).compute()


def test_no_value_at_all_is_an_error():
    empty = Moments.from_values(jnp.ones(3), np.zeros(3, bool))
    with pytest.raises(ValueError, match="no image was measured"):
        empty.compute()


SHARDED = """
import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P

from deepprism_jax.metrics.psnr import PSNR
from deepprism_jax.metrics.ssim import SSIM
from deepprism_jax.training.evaluation import evaluate

rng = np.random.default_rng(0)
x = rng.integers(0, 256, (16, 16, 16, 3)).astype(np.uint8)
y = np.clip(x + rng.normal(0, 20, x.shape), 0, 255).astype(np.uint8)
data = NamedSharding(jax.make_mesh((4,), ("data",)), P("data"))

for metric in (PSNR, SSIM):
    state = jax.jit(metric.from_batch)(*jax.device_put((x, y), data))
    assert state.mean.sharding.is_fully_replicated
    alone = metric.from_batch(x, y).compute()
    np.testing.assert_allclose(state.compute()[:2], alone[:2], rtol=1e-5)

noisy = lambda images: images ^ np.uint8(3)
batches = [{"image": x[i : i + 8], "mask": np.arange(8) < 5} for i in (0, 8)]
one = evaluate(noisy, batches)
four = evaluate(noisy, batches, place=lambda batch: jax.device_put(batch, data))
for name in ("psnr", "ssim"):
    assert one[name].count == four[name].count == 10
    np.testing.assert_allclose(one[name][:2], four[name][:2], rtol=1e-5)
print(len(jax.devices()), "devices")
"""


def test_sums_over_a_sharded_batch_are_global():
    flags = "--xla_force_host_platform_device_count=4"
    done = subprocess.run(
        [sys.executable, "-c", SHARDED],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "4 devices\n", done.stderr


def test_merge_and_compute_move_nothing_implicitly():
    state = moments(np.array([1.0, 2.0]))
    state.merge(state)
    with jax.transfer_guard("disallow"):
        assert state.merge(state).compute().count == 4


def test_pairs_must_be_8_bit_and_of_one_shape():
    images = np.zeros((2, 4, 4, 3), np.uint8)
    with pytest.raises(TypeError, match="reconstructions are float32, not uint8"):
        check_pair(images, images.astype(np.float32))
    with pytest.raises(ValueError, match="differ in shape"):
        check_pair(images, images[:, :3])
