"""Single-image diffusion: the official program's numbers, and images that are known."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepprism_jax.diffusion import multiscale
from deepprism_jax.diffusion.multiscale import (
    multi_scale,
    noised,
    sample_scale,
    sample_scales,
)
from deepprism_jax.diffusion.pyramid import make_pyramid, pyramid_sizes
from deepprism_jax.diffusion.rescale import rescale_losses
from deepprism_jax.diffusion.reverse import rows_of, step_back
from deepprism_jax.diffusion.schedules import cosine

GOLDEN = np.load(Path(__file__).parent / "golden" / "sinddm.npz")
STEPS = [name.split()[1:] for name in GOLDEN if name.startswith("mean")]


def of(image, steps=100, **options):
    pyramid = make_pyramid(image, pyramid_sizes(*image.shape[:2], **options))
    return pyramid, multi_scale(pyramid, cosine(steps))


OFFICIAL, PROCESS = of(GOLDEN["image"])
COSINE = cosine(12)
SMALL, FEW = of(GOLDEN["image"][20:36, 30:42], 12, coarsest=6)


def network(x, t, scale):
    """As golden/make_sinddm.py."""
    shift = 0.1 * jnp.sin(t / 30.0) + 0.05 * scale
    return 0.9 * jnp.tanh(1.5 * x) + shift[:, None, None, None]


def knowing(pyramid, process):
    """Return the denoiser that knows the image, of every scale."""
    by_size = {x.shape: pair for x, *pair in zip(pyramid.images, *pyramid, strict=True)}

    def denoise(x, t, scale):
        image, enlarged = by_size[x.shape[1:]]
        alpha, sigma = process.schedule.at(t, 4)
        blur = jnp.minimum(jnp.asarray(process.blur)[scale, t], 0.55).reshape(
            -1, 1, 1, 1
        )
        return (x - alpha * (blur * enlarged + (1 - blur) * image)) / sigma

    return denoise


def test_times_and_blur_are_those_of_the_official_program():
    losses = rescale_losses(OFFICIAL, "program")
    np.testing.assert_allclose(losses[1:], GOLDEN["losses"], rtol=1e-6)
    np.testing.assert_array_equal(PROCESS.starts, GOLDEN["starts"])
    np.testing.assert_allclose(PROCESS.blur[1:], GOLDEN["blur"], rtol=1e-5)
    assert not PROCESS.blur[0].any()


def test_readings_of_the_distance_differ_by_their_units():
    paper, rms = (rescale_losses(OFFICIAL, name) for name in ("paper", "rms"))
    roots = np.sqrt([x.size for x in OFFICIAL.images])
    np.testing.assert_allclose(paper * roots, rms * 127.5, rtol=1e-6)
    assert rms[1] > 0


@pytest.mark.parametrize(("scale", "t"), STEPS)
def test_a_step_is_that_of_the_official_program(scale, t):
    s, at = int(scale), int(t)
    blur = np.minimum(PROCESS.blur[s], 0.55)
    rows = rows_of(PROCESS.schedule, blur, at + 1, eta=float(s == 0))
    row = jax.tree.map(lambda column: column[0], rows)
    x, enlarged = GOLDEN["x"], GOLDEN["enlarged"]
    eps = network(x, jnp.full(2, at), jnp.full(2, s))
    found = step_back(x, eps, row, enlarged)
    expected = GOLDEN[f"mean {scale} {t}"]
    scale_of_it = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(found, expected, atol=2e-5 * scale_of_it)
    np.testing.assert_allclose(row.fresh, GOLDEN[f"spread {scale} {t}"], atol=1e-6)


def test_the_mean_of_a_noised_image_goes_over_to_the_enlarged_one():
    image, enlarged = SMALL.images[2][None], SMALL.enlarged[2][None]
    t = np.array([0, FEW.starts[2] - 1, 11])
    x = noised(image, enlarged, np.full((3, *image.shape[1:]), 2.0, "f"), t, FEW, 2)
    gamma, alpha, sigma = (
        np.asarray(table)[t].reshape(-1, 1, 1, 1) for table in (FEW.blur[2], *COSINE)
    )
    expected = alpha * (gamma * enlarged + (1 - gamma) * image) + 2 * sigma
    np.testing.assert_allclose(x, expected, atol=1e-6)
    assert FEW.blur[2][0] < FEW.blur[2][FEW.starts[2]] == 1


def test_a_scale_ends_as_in_the_official_program(monkeypatch):
    """Which begins with the noise of one time more: given here as it is there."""
    scale = 2

    def as_is(key, shape, first):
        del key, shape, first
        alpha, sigma = (table[PROCESS.starts[scale] - 1] for table in PROCESS.schedule)
        return (GOLDEN["x"] - alpha * GOLDEN["enlarged"]) / sigma

    monkeypatch.setattr(multiscale, "first_noise", as_is)
    start = GOLDEN["enlarged"]
    found = sample_scale(network, PROCESS, scale, start, jax.random.key(0))
    np.testing.assert_allclose(found, GOLDEN[f"end {scale}"], atol=1e-5)


def test_one_who_knows_the_image_draws_it():
    drawn = sample_scales(knowing(SMALL, FEW), FEW, 2, 3, jax.random.key(0))
    for image, expected in zip(drawn, SMALL.images, strict=True):
        assert image.shape == (2, *expected.shape)
        np.testing.assert_allclose(image, np.stack([expected] * 2), atol=1e-5)
