"""Latents are drawn by their seeds, over any devices, in any batch and in any calls."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact_denoiser import SCHEDULE, STD, Blobs
from flax import nnx

from deepprism_jax.diffusion.samplers import make_stepper, path_of, sample, spaced
from deepprism_jax.layers.functional import Functional, values_of
from deepprism_jax.training.ldm.drawing import (
    Decoder,
    Drawer,
    Given,
    make_denoise,
    noise_of,
)
from deepprism_jax.training.sharding import make_mesh

TIMES = spaced(100, 5)
SIZE = (2, 3)

MODEL = Blobs()
OPTIONS = {"target": "v", "stepper": make_stepper("ddpm"), "times": TIMES}


def drawer(devices=1, **options):
    mesh = make_mesh(jax.devices()[:devices])
    return Drawer(MODEL, SCHEDULE, mesh, **{**OPTIONS, **options})


def drawn(devices, seeds, labels, **options):
    seeds, labels = np.asarray(seeds), np.asarray(labels)
    return np.asarray(
        drawer(devices).draw(values_of(MODEL), seeds, labels, SIZE, **options)
    )


@pytest.fixture(scope="module")
def at_once():
    """Of seeds 0 ... 7, all steps by one scan."""

    def draw(values, seeds):
        model = Functional(MODEL).bind(values)
        keys, noise = noise_of(seeds, model, SIZE)
        denoise = make_denoise(model, SCHEDULE, OPTIONS["target"], seeds % 2)
        path = path_of(SCHEDULE, TIMES)
        return model.denormalize(sample(OPTIONS["stepper"], denoise, path, noise, keys))

    return np.asarray(jax.jit(draw)(values_of(MODEL), jnp.arange(8)))


def test_a_latent_depends_on_its_seed_alone(at_once):
    told = []
    seeds = np.array([5, 2, 3, 0])
    found = drawn(4, seeds, seeds % 2, advanced=told.append)
    np.testing.assert_allclose(found, at_once[seeds], atol=1e-5)
    assert found.shape == (4, *SIZE, 1)
    assert len(np.unique(found)) == found.size
    assert told == [1] * 5


def test_latents_are_those_of_the_autoencoder_and_of_their_class(at_once):
    for label, mean in ((0, 1.0), (1, 5.0)):
        of_class = at_once[label::2]
        assert abs(of_class.mean() - mean) < 4 * 2 * STD / np.sqrt(of_class.size)
        assert 0.3 < of_class.std() / (2 * STD) < 1.5  # steps are few


def test_what_is_known_stays_and_nothing_changes_without_strength():
    free = np.zeros((*SIZE, 1), bool)
    free[0, 0] = True
    given = Given(np.full((*SIZE, 1), 7.0, np.float32), free)
    told, asked = [], (values_of(MODEL), np.arange(2), np.zeros(2, int), SIZE)
    inpaint = drawer(2, times=spaced(100, 52)).draw(
        *asked, given=given, advanced=told.append
    )
    inpaint = np.asarray(inpaint)
    np.testing.assert_allclose(inpaint[:, ~free[..., 0]], 7.0, atol=1e-6)
    assert (np.abs(inpaint[:, 0, 0] - 1.0) < 6 * 2 * STD).all()
    assert told == [3] * 17 + [1]
    still = drawer(2, strength=0.0)
    assert still.steps == 0
    same = still.draw(*asked, given=Given(given.latent))
    np.testing.assert_allclose(np.asarray(same), 7.0, atol=1e-6)


def test_guidance_needs_labels():
    with pytest.raises(ValueError, match=r"guidance=2.0 needs labels"):
        drawer(guidance=2.0).draw(values_of(MODEL), np.arange(1), None, SIZE)


def test_leaving_steps_out_needs_something_to_begin_with():
    with pytest.raises(ValueError, match=r"strength=0.5 needs something given"):
        drawer(strength=0.5).draw(values_of(MODEL), np.arange(1), None, SIZE)


def test_latents_are_decoded_a_few_at_a_time():
    seen = []

    class Double(nnx.Module):
        def decode(self, z):
            seen.append(z.shape)
            return jnp.repeat(jnp.repeat(z, 2, 1), 2, 2)

    decoder = Decoder(Double(), make_mesh(jax.devices()[:2]))
    latents = np.linspace(-1, 1, 5, dtype=np.float32).reshape(5, 1, 1, 1)
    latents[2] = np.nan
    pixels, finite = decoder.decode(latents, 2)
    assert set(seen) == {(2, 1, 1, 1)}
    assert pixels.shape == (5, 2, 2, 1)
    assert pixels[:, 1, 0, 0].tolist()[::4] == [0, 255]
    assert finite.tolist() == [True, True, False, True, True]
    itself = Decoder(None, make_mesh(jax.devices()[:1]))
    pixels, _ = itself.decode(np.full((1, 2, 2, 3), 0.2, np.float32), 1)
    assert (pixels == 153).all()
