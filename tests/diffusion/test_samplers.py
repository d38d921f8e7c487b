"""Samplers against diffusers' schedulers, and on a Gaussian whose score is known."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepprism_jax.diffusion import schedules
from deepprism_jax.diffusion.prediction import denoised
from deepprism_jax.diffusion.samplers import (
    ddim,
    make_stepper,
    path_of,
    sample,
    spaced,
)

GOLDEN = json.loads((Path(__file__).parent / "golden" / "samplers.json").read_text())


def network(x, t):
    """As golden/make_samplers.py."""
    return 0.8 * jnp.tanh(x) + 0.1 * jnp.sin(t / 300.0)


LDM = schedules.scaled_linear()


@pytest.mark.parametrize(
    ("golden", "schedule", "stepper", "target"),
    [
        ("ddpm", schedules.linear(), make_stepper("ddpm"), "eps"),
        ("ddim 0.0 eps", LDM, make_stepper("ddim"), "eps"),
        ("ddim 0.5 eps", LDM, make_stepper("ddim", eta=0.5), "eps"),
        ("ddim 0.0 v", LDM, ddim(), "v"),
        ("ddim 0.5 v", LDM, ddim(0.5), "v"),
        ("dpmpp_2m linear", schedules.linear(), make_stepper("dpmpp_2m"), "eps"),
        (
            "dpmpp_2m squaredcos_cap_v2",
            schedules.cosine(),
            make_stepper("dpmpp_2m"),
            "eps",
        ),
    ],
)
def test_a_path_is_that_of_diffusers(golden, schedule, stepper, target):
    times, expected = GOLDEN[golden]

    def denoise(x, t):
        alpha, sigma = (jnp.asarray(table)[t] for table in schedule)
        return denoised(target, network(x, t), x, alpha, sigma)

    x = jnp.float32(np.random.default_rng(0).standard_normal((2, 3)))
    path = path_of(schedule, np.asarray(times, np.int32))
    found = sample(stepper, denoise, path, x, jax.random.key(7))
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found / scale, np.asarray(expected) / scale, atol=1e-5)


@pytest.mark.parametrize(
    ("spacing", "times"),
    [
        ("leading", [750, 500, 250, 0]),
        ("trailing", [999, 749, 499, 249]),
        ("linspace", [999, 666, 333, 0]),
    ],
)
def test_times_are_spaced(spacing, times):
    assert spaced(1000, 4, spacing).tolist() == times
    everything = spaced(7, 7, spacing)
    assert everything.tolist() == [6, 5, 4, 3, 2, 1, 0]


MEAN, STD = 0.3, 0.5


FINE = schedules.linear(20_000, 5e-6, 1e-3)


def on_a_gaussian(name, steps, schedule=FINE, spacing="linspace"):
    """Error of mean and standard deviation that a sampler reaches for N(MEAN, STD).

    The network is exact. A deterministic sampler is then an affine map, known by what
    it does to two numbers.
    """

    def denoise(x, t):
        alpha, sigma = (jnp.asarray(table)[t] for table in schedule)
        gain = alpha * STD**2 / (alpha**2 * STD**2 + sigma**2)
        x0 = MEAN + gain * (x - alpha * MEAN)
        return denoised("x0", x0, x, alpha, sigma)

    path = path_of(schedule, spaced(schedule.steps, steps, spacing))
    first = float(path.alpha[0])
    mean = first * MEAN
    std = np.sqrt((first * STD) ** 2 + float(path.sigma[0]) ** 2)
    start = jnp.array([mean, mean + std], jnp.float32)
    end = sample(make_stepper(name), denoise, path, start, jax.random.key(0))
    return np.abs([end[0] - MEAN, end[1] - end[0] - STD]).max()


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("heun", 2), ("dpmpp_2m", 2)])
def test_the_error_on_a_gaussian_falls_with_the_order(name, order):
    few, many = on_a_gaussian(name, 40), on_a_gaussian(name, 320)
    assert many < few
    measured = np.log(few / many) / np.log(8)
    assert order - 0.25 < measured < order + 0.25
    assert many < {1: 1e-2, 2: 2e-3}[order]


@pytest.mark.parametrize("name", ["linear", "scaled_linear", "cosine"])
@pytest.mark.parametrize("sampler", ["heun", "dpmpp_2m"])
def test_the_second_order_pays_at_few_steps_of_any_schedule(sampler, name):
    schedule = schedules.make_schedule(name, 1000)
    error, first = (
        on_a_gaussian(s, 25, schedule, "trailing") for s in (sampler, "ddim")
    )
    assert error < 0.75 * first < 0.06


def test_ancestral_sampling_reaches_mean_and_variance():
    schedule = schedules.linear(1000)

    def denoise(x, t):
        alpha, sigma = (jnp.asarray(table)[t] for table in schedule)
        gain = alpha * STD**2 / (alpha**2 * STD**2 + sigma**2)
        return denoised("x0", MEAN + gain * (x - alpha * MEAN), x, alpha, sigma)

    count = 20_000
    start = jax.random.normal(jax.random.key(1), (count,))
    path = path_of(schedule, spaced(1000, 250, "linspace"))
    end = np.asarray(
        sample(make_stepper("ddpm"), denoise, path, start, jax.random.key(2))
    )
    # Four standard errors of the sample, and the discretisation of 250 steps.
    assert abs(end.mean() - MEAN) < 4 * STD / np.sqrt(count) + 2e-3
    assert abs(end.std() - STD) < 4 * STD / np.sqrt(2 * count) + 1e-2


def test_noise_follows_the_key():
    path = path_of(schedules.linear(100), spaced(100, 5))

    def drawn(seed):
        def denoise(x, t):
            return denoised("x0", 0.5 * x, x, 0.6, 0.8)

        return sample(ddim(1.0), denoise, path, jnp.ones(3), jax.random.key(seed))

    assert np.abs(drawn(0) - drawn(1)).max() > 1e-3
    np.testing.assert_array_equal(drawn(0), drawn(0))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: spaced(100, 0), r"steps=0 must lie in \[1, 100\]"),
        (lambda: spaced(100, 101), r"steps=101 must lie in \[1, 100\]"),
        (lambda: make_stepper("ddim", 1.5), r"eta=1.5 must lie in \[0, 1\]"),
    ],
)
def test_what_cannot_be_sampled_is_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()
