"""Initial kernels keep the energy of white noise through 40 layers, of every kind."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from deepprism_jax.layers import make_conv
from deepprism_jax.layers.functional import Functional, values_of
from deepprism_jax.layers.initializers import (
    dense_kernel,
    expanding_kernel,
    group_kernel,
    prism_kernel,
    reducing_kernel,
)

LAYERS, CHANNELS = 40, 64


def seeded(seed):
    """A key of a generator that compiles in no time, which the usual one does not."""
    return jax.random.key(seed, impl="unsafe_rbg")


@pytest.fixture(autouse=True)
def _one_formulation(monkeypatch):
    # The numbers are the same, and the dense band compiles in no time.
    module = sys.modules["deepprism_jax.ops.bilinear"]
    monkeypatch.setattr(module, "_MOST_SHIFTED_PAIRS", 0)


def energies(kind, *, size=10, torus=True, seeds=3, **options):
    """Energy of white noise after 40 layers, for several draws of all kernels."""

    def make(key):
        return make_conv(kind, CHANNELS, CHANNELS, rngs=nnx.Rngs(key), **options)

    layer = Functional(nnx.eval_shape(lambda: make(seeded(0))))

    def apply(x, values):
        if torus:  # where no border takes any energy away
            x = jnp.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)], mode="wrap")
        y = layer.bind(values)(x)
        return (y[:, 1:-1, 1:-1] if torus else y), None

    @jax.jit
    def run(key):
        keys = jax.random.split(key, LAYERS + 1)
        kernels = jax.vmap(lambda key: values_of(make(key)))(keys[1:])
        x = jax.random.normal(keys[0], (1, size, size, CHANNELS))
        return jnp.mean(jax.lax.scan(apply, x, kernels)[0] ** 2)

    return [float(run(seeded(seed))) for seed in range(seeds)]


def assert_kept(kind, **options):
    for energy in energies(kind, **options):
        assert 0.5 < energy < 2.0


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("dense", {}),
        pytest.param("group", {}, marks=pytest.mark.slow),
        ("group", {"groups": 8}),
        pytest.param("depthwise_separable", {}, marks=pytest.mark.slow),
        pytest.param("low_rank", {}, marks=pytest.mark.slow),
        ("channel", {}),
        ("prism_separable", {}),
    ],
    ids=str,
)
def test_forty_layers_keep_the_energy(kind, options):
    assert_kept(kind, **options)


@pytest.mark.parametrize(
    ("fields", "padding"),
    [
        (1, "zero"),
        (1, "replicate"),
        (1, "circular"),
        (2, "circular"),
        (4, "replicate"),
        # Few positions: the border is near, and the noise strong.
        (16, "zero"),
        pytest.param(32, "circular", marks=pytest.mark.slow),
        pytest.param(64, "zero", marks=pytest.mark.slow),
    ],
)
def test_forty_deepprisms_keep_the_energy(fields, padding):
    assert_kept("deepprism", fields=fields, channel_padding=padding)


@pytest.mark.parametrize("kind", ["channel", "prism_separable", "deepprism"])
def test_zeros_around_the_image_take_little_from_one_field(kind):
    assert_kept(kind, size=16, torus=False, channel_padding="zero")


def test_the_noise_makes_layers_differ():
    first, second = (prism_kernel(seeded(seed), (3, 3, 3, 1, 1)) for seed in (0, 1))
    assert np.abs(first - second).max() > 0.01


def log_energies(window, kernels_of, draws=60):
    """Log-energies of 40 kernels of one field on a torus, from their responses."""
    torus = (6, 6, 16)
    rng = np.random.default_rng(0)
    logs = []
    for _ in range(draws):
        kernels = kernels_of(rng, (LAYERS, *window))
        responses = np.fft.fftn(kernels, torus, axes=(1, 2, 3))
        logs.append(np.log(np.mean(np.prod(np.abs(responses) ** 2, axis=0))))
    return np.asarray(logs)


def impulse_and_noise(rng, shape):
    weights = np.prod(shape[1:])
    delta = 0.0015 * weights**0.5
    kernels = rng.normal(size=shape) * np.sqrt(delta / weights)
    kernels[(slice(None), *(n // 2 for n in shape[1:]))] += np.sqrt(1 - delta)
    return kernels / np.sqrt(np.sum(kernels**2, axis=(1, 2, 3), keepdims=True))


def independent_weights(rng, shape):
    return rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))


@pytest.mark.parametrize("window", [(3, 3, 3), (3, 3, 1), (1, 1, 3)])
def test_spread_of_the_energy_is_as_derived(window):
    logs = log_energies(window, impulse_and_noise)
    # 2 L delta / sqrt(K) = 0.12, to first order, for every number of weights K.
    assert logs.std() == pytest.approx(2 * LAYERS * 0.0015, rel=0.35)
    assert abs(np.median(logs)) < 0.1


def test_independent_weights_would_not_do():
    logs = log_energies((3, 3, 3), independent_weights)
    # A typical frequency is left with exp(-0.577 * 40) of its energy; the mean over
    # all of them is what a few lucky ones have kept, anything from little to a lot.
    assert np.median(logs) < -3
    assert logs.std() > 2


@pytest.mark.parametrize("fields", [(1, 1), (4, 4), (2, 1), (1, 2)])
@pytest.mark.parametrize("window", [(3, 3, 3), (1, 1, 3)])
def test_every_output_has_norm_one(window, fields):
    kernel = prism_kernel(seeded(3), (*window, *fields))
    norm = np.sum(np.square(kernel), axis=(0, 1, 2, 3))
    np.testing.assert_allclose(norm, 1.0, rtol=1e-5)


@pytest.mark.parametrize("depth", [1, 2, 8])
def test_taps_beyond_a_zero_border_are_made_up_for(depth):
    kernel = prism_kernel(
        seeded(3), (1, 1, 5, 40, 40), channel_padding="zero", depth=depth
    )
    energy = np.sum(np.square(kernel), axis=(0, 1, 3))  # a tap and output
    read = [
        sum(energy[tap] for tap in range(5) if 0 <= position + tap - 2 < depth)
        for position in range(depth)
    ]
    np.testing.assert_allclose(np.mean(read, axis=0), 1.0, rtol=1e-5)


@pytest.mark.parametrize(
    ("window", "fields"), [((3, 3, 3), 1), ((1, 1, 3), 1), ((3, 3, 1), 8)]
)
def test_share_of_noise_beside_the_impulse(window, fields):
    draw = jax.jit(jax.vmap(lambda key: prism_kernel(key, (*window, fields, fields))))
    kernels = np.asarray(draw(jax.random.split(seeded(4), 300)))
    weights = np.prod(window)
    outside = np.square(kernels).mean(axis=0)
    outside[tuple(n // 2 for n in window)] = 0
    share = outside.sum() / fields
    expected = 0.0015 * fields * weights**0.5 * (1 - 1 / weights)
    assert share == pytest.approx(expected, rel=0.1)


def test_fields_are_mixed_orthogonally():
    kernel = np.asarray(prism_kernel(seeded(5), (1, 1, 1, 8, 8)))[0, 0, 0]
    np.testing.assert_allclose(kernel.T @ kernel, np.eye(8), atol=0.3)
    assert np.abs(kernel - np.diag(np.diag(kernel))).max() > 0.3


def test_groups_are_drawn_apart():
    kernel = np.asarray(group_kernel(seeded(6), (3, 3, 2, 12), 6))
    assert kernel.shape == (3, 3, 2, 12)
    centre = kernel[1, 1].reshape(2, 6, 2)  # in, group, out
    for group in range(6):
        mixing = centre[:, group]
        np.testing.assert_allclose(mixing.T @ mixing, np.eye(2), atol=0.1)
    assert np.ptp(centre, axis=1).min() > 0.1


@pytest.mark.parametrize(("channels", "rank"), [(12, 4), (11, 4)])
def test_low_rank_halves_find_each_other(channels, rank):
    first = np.asarray(reducing_kernel(seeded(7), (3, 3, channels, rank)))
    second = np.asarray(expanding_kernel(seeded(8), (1, 1, rank, channels)))
    reduce, expand = (np.abs(first[1, 1]) > 0.5, np.abs(second[0, 0]) > 0.5)
    # What one layer expands the next one reduces to the same.
    np.testing.assert_array_equal(expand @ reduce, np.eye(rank, dtype=bool))
    np.testing.assert_array_equal(expand.sum(0), 1)
    np.testing.assert_allclose(np.square(first).sum((0, 1, 2)), 1.0, rtol=1e-5)
    np.testing.assert_allclose(np.square(second).sum((0, 1, 2)), 1.0, rtol=1e-5)


def test_dense_kernel_has_variance_one_over_fan_in():
    kernel = dense_kernel(seeded(9), (3, 3, 16, 64))
    assert np.var(kernel) == pytest.approx(1 / 144, rel=0.05)
    assert np.abs(np.mean(kernel)) < 0.003
