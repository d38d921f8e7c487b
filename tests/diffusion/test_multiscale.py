"""Single-image diffusion: the official program's numbers, and images that are known."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepprism_jax.diffusion import multiscale
from deepprism_jax.diffusion.multiscale import (
    MultiScale,
    multi_scale,
    noised,
    output_sizes,
    sample,
    sample_scale,
    sample_scales,
    sizes_ending_in,
)
from deepprism_jax.diffusion.prediction import target_of
from deepprism_jax.diffusion.pyramid import make_pyramid, pyramid_sizes
from deepprism_jax.diffusion.rescale import rescale_losses
from deepprism_jax.diffusion.reverse import (
    Guide,
    first_noise,
    fresh_noise,
    noise_of,
    rows_of,
    step_back,
)
from deepprism_jax.diffusion.schedules import add_noise, cosine

GOLDEN = np.load(Path(__file__).parent / "golden" / "sinddm.npz")
STEPS = [name.split()[1:] for name in GOLDEN if name.startswith("mean")]


def of(image, steps=100, **options):
    pyramid = make_pyramid(image, pyramid_sizes(*image.shape[:2], **options))
    return pyramid, multi_scale(pyramid, cosine(steps), reading="program")


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


def test_readings_of_the_distance_differ_by_their_units(without_type_checks):
    paper, rms = (rescale_losses(OFFICIAL, name) for name in ("paper", "rms"))
    roots = np.sqrt([x.size for x in OFFICIAL.images])
    np.testing.assert_allclose(paper * roots, rms * 127.5, rtol=1e-6)
    assert rms[1] > 0
    area = rescale_losses(OFFICIAL, "area")
    np.testing.assert_allclose(area[1:] * roots[1:], 1.1 * roots[1])
    with pytest.raises(ValueError, match="reading='mean' is unknown; choose one of"):
        rescale_losses(OFFICIAL, "mean")


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


@pytest.mark.parametrize("target", ["eps", "x0", "v"])
def test_noise_is_had_of_every_target(target):
    rng = np.random.default_rng(0)
    x0, eps = jnp.asarray(rng.standard_normal((2, 2, 4, 5, 3)), jnp.float32)
    t = jnp.array([3, 9])
    x = add_noise(x0, eps, t, COSINE)
    wanted = target_of(target, x0, eps, *COSINE.at(t, 4))
    denoise = noise_of(lambda x, t, scale: wanted, target, COSINE)
    np.testing.assert_allclose(denoise(x, t, t), eps, atol=1e-5)
    leaves, _ = jax.tree.flatten(noise_of(network, target, COSINE))
    assert len(leaves) == (0 if target == "eps" else 2)


def test_omega_is_a_share_of_the_variance_above_the_coarsest_scale(walks):
    start = np.zeros((1, 8, 6, 3), np.float32)
    for scale in (0, 1):
        sample_scale(network, FEW, scale, start, jax.random.key(0), eta=0.0, omega=0.3)
    (_, coarsest, *_, still), (_, rows, *_, stochastic) = walks
    assert not coarsest.fresh.any()
    assert (still, stochastic) == (False, True)
    variance = COSINE.sigma[: FEW.starts[1] - 1][::-1] ** 2
    np.testing.assert_allclose(rows.fresh[:-1] ** 2, 0.3 * variance, rtol=1e-5)
    kept = (rows.along * rows.sigma)[:-1]
    np.testing.assert_allclose(kept**2, 0.7 * variance, rtol=1e-5)


def test_an_image_has_the_noise_of_its_number():
    key, shape = jax.random.key(5), (3, 4, 5, 2)
    drawn = first_noise(key, shape)
    np.testing.assert_array_equal(drawn[2:], first_noise(key, (1, 4, 5, 2), first=2))
    assert np.abs(drawn[0] - drawn[1]).min() > 0
    fresh = jax.jit(fresh_noise)
    from_2 = fresh(key, jnp.zeros(shape), jnp.int32(2))
    np.testing.assert_array_equal(
        fresh(key, jnp.zeros(shape), jnp.int32(0))[2], from_2[0]
    )
    assert jnp.abs(from_2[0] - from_2[1]).min() > 0


def test_a_gaussian_is_drawn_with_its_variance():
    """Whose noise is known: fresh noise must be new at every time."""
    alone = MultiScale(
        ((64, 64),), cosine(100), np.zeros((1, 100), "f"), np.int32([100])
    )

    def denoise(x, t, scale):
        alpha, sigma = alone.schedule.at(t, 4)
        return sigma * x / (0.04 * alpha**2 + sigma**2)

    drawn = sample(denoise, alone, 1, 1, jax.random.key(0))
    assert 0.033 < drawn.var() < 0.043


@pytest.fixture
def walks(monkeypatch):
    """Return what would be drawn, instead of drawing it."""
    seen = []

    def note(denoise, rows, scale, start, noise, key, first, guide, *, stochastic):
        seen.append((scale, rows, start, noise, key, first, guide, stochastic))
        return jnp.asarray(start)

    monkeypatch.setattr(multiscale, "walk", note)
    return seen


def test_scales_follow_each_other_from_noise(walks):
    def guide(scale, size):
        return Guide(np.full((*size, 1), scale, "f"), np.zeros((*size, 3), "f"))

    options = {"multiples": (2.0, 0.5), "first": 4, "guide": guide}
    sample(network, FEW, 2, 3, jax.random.key(0), **options)
    scales, rows, starts, noise, keys, first, guides, stochastic = zip(
        *walks, strict=True
    )
    sizes = output_sizes(FEW.sizes, (2.0, 0.5))
    assert scales == (0, 1, 2)
    assert [x.shape[1:3] for x in starts] == list(sizes)
    assert sizes[-1] == (32, 6)
    assert [len(r.t) for r in rows] == FEW.starts.tolist()
    assert noise[0] is None
    np.testing.assert_array_equal(noise[1], first_noise(keys[1], (2, *sizes[1], 3), 4))
    assert len({str(jax.random.key_data(key)) for key in keys}) == 3
    assert first == (4, 4, 4)
    assert [(g.keep[0, 0, 0], g.add.shape[:2]) for g in guides] == [
        *zip(scales, sizes, strict=True)
    ]
    assert stochastic == (True, False, False)
    assert max(r.blur.max() for r in rows) == np.float32(0.55)


def test_scales_follow_each_other_from_an_image(walks):
    sizes = sizes_ending_in(FEW.sizes, (20, 30))
    options = {"sizes": sizes, "first_scale": 1, "begin": 2, "blurred": False}
    start = np.full((20, 30, 3), 0.5, np.float32)
    sample(network, FEW, 2, 3, jax.random.key(0), start=start, **options)
    scales, rows, starts, noise, *_ = zip(*walks, strict=True)
    assert scales == (1, 2)
    assert [x.shape for x in starts] == [(2, *size, 3) for size in sizes[1:]]
    assert sizes[-1] == (20, 30)
    np.testing.assert_allclose(starts[0], 0.5, rtol=1e-6)
    assert rows[0].t.tolist() == [1, 0]
    assert not rows[0].blur.any()
    assert len(rows[1].t) == FEW.starts[2]
    assert rows[1].blur.any()
    assert noise[0] is not None
    alone = sample_scale(network, FEW, 0, starts[0], jax.random.key(0), begin=0)
    np.testing.assert_array_equal(alone, starts[0])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"first_scale": 3}, r"first_scale=3 must lie in \[0, 2\]"),
        ({"first_scale": 1}, "start is missing: only the coarsest"),
        ({"multiples": (0.0, 1.0)}, "multiples=.* must be above 0"),
        ({"sizes": ((4, 4),)}, "sizes has 1 entries; there are 3 scales"),
        ({"start": SMALL.images[0], "begin": 13}, r"begin=13 must lie in \[0, 12\]"),
        ({"eta": 2.0}, r"eta=2.0 must lie in \[0, 1\]"),
        ({"omega": -0.1}, r"omega=-0.1 must lie in \[0, 1\]"),
        ({"most_blur": 1.0}, r"most_blur=1.0 must lie in \[0, 1\)"),
        ({"count": 0}, "count=0 must be at least 1"),
    ],
)
def test_what_cannot_be_drawn_is_refused(options, told):
    options = {"count": 1, "channels": 3, "key": jax.random.key(0)} | options
    with pytest.raises(ValueError, match=told):
        sample_scales(network, FEW, **options)


def test_a_distance_is_multiplied():
    twice = multi_scale(SMALL, COSINE, reading="program", factor=2.0)
    low = FEW.blur[1] < 0.5
    np.testing.assert_allclose(2 * twice.blur[1][low], FEW.blur[1][low], rtol=1e-6)
    with pytest.raises(ValueError, match=r"factor=0.0 must be above 0"):
        multi_scale(SMALL, COSINE, factor=0.0)


def test_a_flat_image_has_one_time_above_the_coarsest_scale():
    _, process = of(np.full((16, 12, 3), 90, np.uint8), 12, coarsest=6)
    assert process.starts.tolist() == [12, 1, 1]

    assert np.all(process.blur[1:] == 1)
