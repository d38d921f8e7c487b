"""Guidance by labels, inpainting and beginning with an image, with every sampler."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepprism_jax.diffusion import schedules
from deepprism_jax.diffusion.guidance import (
    begun,
    covered,
    guided,
    keeping,
    repeated,
)
from deepprism_jax.diffusion.prediction import denoised
from deepprism_jax.diffusion.samplers import (
    make_stepper,
    normal,
    path_of,
    sample,
    spaced,
)

SAMPLERS = ["ddpm", "heun", "dpmpp_2m"]  # ddim is ddpm with less noise
SCHEDULE = schedules.linear(1000)
MEANS, STD = np.array([0.5, -0.25, 0.0], np.float32), 0.5
NULL = 2


def at(t):
    return (jnp.asarray(table)[t] for table in SCHEDULE)


def of_class(x, t, labels):
    """Exact for N(MEANS[label], STD^2); without a label the mean is 0."""
    alpha, sigma = at(t)
    mean = jnp.asarray(MEANS)[labels][:, None]
    gain = alpha * STD**2 / (alpha**2 * STD**2 + sigma**2)
    return denoised("x0", mean + gain * (x - alpha * mean), x, alpha, sigma)


def keys_of(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def test_guidance_pushes_from_no_label_to_the_label():
    x, t = jnp.linspace(-1, 1, 6).reshape(3, 2), jnp.int32(500)
    labels = jnp.array([0, 1, 0])
    sizes = []

    def predict(x, t, labels):
        sizes.append(len(x))
        return of_class(x, t, labels)

    @jax.jit
    def found(x, t):
        plain, pushed = (guided(predict, labels, NULL, s)(x, t) for s in (1.0, 3.0))
        without = of_class(x, t, jnp.full(3, NULL))
        return plain, of_class(x, t, labels), without, pushed

    plain, labelled, without, pushed = found(x, t)
    assert sizes == [3, 6]
    for p, a, b, c in zip(plain, labelled, without, pushed, strict=True):
        np.testing.assert_array_equal(p, a)
        assert not np.allclose(a, b)
        np.testing.assert_allclose(c, b + 3 * (a - b), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_gaussian_of_each_label_is_met(name):
    """Of classes of one variance, guidance moves the mean, and nothing else."""
    count, steps = 2000, 40
    labels = jnp.arange(count) % 2
    noise = normal(keys_of(count), jnp.zeros((count, 1)))
    path = path_of(SCHEDULE, spaced(1000, steps))

    @jax.jit
    def drawn(scale):
        denoise = guided(of_class, labels, NULL, scale)
        return sample(make_stepper(name), denoise, path, noise, keys_of(count, 1))

    for scale in (1.0, 2.5):
        x = np.asarray(drawn(scale))
        for label in (0, 1):
            mine = x[label::2]
            # Four standard errors, and the discretisation.
            limit = 4 * STD / np.sqrt(count / 2) + 0.02
            assert abs(mine.mean() - scale * MEANS[label]) < limit
            assert abs(mine.std() - STD) < limit + 0.03


RELATED = 0.8


def of_pair(x, t):
    """Exact for two numbers of variance 1 that are related: so are sum, difference."""
    alpha, sigma = at(t)
    both, apart = (x[:, :1] + sign * x[:, 1:] for sign in (1, -1))
    both *= alpha * (1 + RELATED) / (alpha**2 * (1 + RELATED) + sigma**2)
    apart *= alpha * (1 - RELATED) / (alpha**2 * (1 - RELATED) + sigma**2)
    x0 = jnp.concatenate([both + apart, both - apart], 1) / 2
    return denoised("x0", x0, x, alpha, sigma)


def inpainted(name, times, count=1000, steps=25):
    noise = normal(keys_of(count), jnp.zeros((count, 2)))
    known, free = jnp.array([1.5, 100.0]), jnp.array([False, True])
    denoise = keeping(of_pair, SCHEDULE, known, noise, free)
    path = path_of(SCHEDULE, spaced(1000, steps))
    stepper = repeated(make_stepper(name), times)
    run = jax.jit(lambda x, keys: sample(stepper, denoise, path, x, keys))
    return np.asarray(run(noise, keys_of(count, 1)))


def test_what_is_known_consists_of_itself_and_its_noise():
    noise, x, t = jnp.array([[0.5, -1.0]]), jnp.ones((1, 2)), jnp.int32(300)
    known, free = jnp.array([1.5, 100.0]), jnp.array([False, True])
    found = jax.jit(keeping(of_pair, SCHEDULE, known, noise, free))(x, t)
    assert (found.x0[0, 0], found.eps[0, 0]) == (1.5, 0.5)
    alpha, sigma = (table[300] for table in SCHEDULE)
    there = alpha * found.x0[0, 1] + sigma * found.eps[0, 1]
    np.testing.assert_allclose(there, 1.0, rtol=1e-5)


@pytest.mark.parametrize("name", SAMPLERS)
def test_what_is_known_is_kept_and_what_is_free_follows_it(name):
    drawn = inpainted(name, 8)
    assert (drawn[:, 0] == np.float32(1.5)).all()
    # Single steps are wrong by 0.5 and more.
    assert abs(drawn[:, 1].mean() - RELATED * 1.5) < 0.15
    assert 0.4 < drawn[:, 1].std() < 0.7  # 0.6 in truth


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_image_is_begun_with(name):
    image = jnp.array([[0.4, -0.2]])
    noise = normal(keys_of(3), jnp.zeros((3, 2)))
    path = path_of(SCHEDULE, spaced(1000, 10))

    @jax.jit
    def untouched(noise):
        rest, x = begun(path, image, noise, 0.0)
        return sample(make_stepper(name), of_pair, rest, x, keys_of(3, 1))

    np.testing.assert_array_equal(untouched(noise), jnp.broadcast_to(image, (3, 2)))
    rest, x = begun(path, image, noise, 1.0)
    assert x is noise
    for column, whole in zip(rest, path, strict=True):
        np.testing.assert_array_equal(column, whole)
    rest, x = begun(path, image, noise, 0.3)
    alpha, sigma = (table[299] for table in SCHEDULE)
    assert (rest.t[0], rest.steps) == (299, 3)
    np.testing.assert_allclose(x, alpha * image + sigma * noise, rtol=1e-6)


def test_a_place_of_a_latent_is_known_where_all_its_pixels_are():
    free = np.zeros((4, 6), bool)
    free[1, 2] = True
    np.testing.assert_array_equal(covered(free, 2), [[0, 1, 0], [0, 0, 0]])
    np.testing.assert_array_equal(covered(free, 1), free)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: repeated(make_stepper("ddim"), 0), "times=0 must be at least 1"),
        (lambda: covered(np.zeros((4, 5), bool), 2), "4 x 5 must be a multiple of 2"),
        (
            lambda: begun(
                path_of(SCHEDULE, spaced(1000, 2)), jnp.zeros(2), jnp.zeros((1, 2)), 1.5
            ),
            r"strength=1.5 must lie in \[0, 1\]",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()
