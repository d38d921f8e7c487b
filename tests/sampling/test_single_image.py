"""Images drawn from a small model do not depend on what they are drawn with."""

import jax
import numpy as np
import pytest
from flax import nnx

from deepprism_jax.diffusion import schedules
from deepprism_jax.diffusion.multiscale import multi_scale
from deepprism_jax.diffusion.pyramid import make_pyramid
from deepprism_jax.evaluation.setup import FailedError
from deepprism_jax.sampling import single_image
from deepprism_jax.sampling.options import Options
from deepprism_jax.sampling.plan import make_plan
from deepprism_jax.sampling.single_image import Model, draw, per_device, work_of
from deepprism_jax.training.sharding import make_mesh

SIZES = ((18, 20), (25, 28))


class Smooth(nnx.Module):
    """Takes for noise what differs from the neighbours; compiles at once."""

    def __init__(self):
        self.share = nnx.Param(jax.numpy.full((3,), 0.25))

    def __call__(self, x, t, scale):
        beside = sum(jax.numpy.roll(x, by, axis) for axis in (1, 2) for by in (-1, 1))
        return x - self.share[...] * beside


def make_model(network, sizes, times=8):
    """Of an image of noise."""
    shape = (*sizes[-1], 3)
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    pyramid = make_pyramid(image, sizes)
    process = multi_scale(pyramid, schedules.cosine(times), reading="rms")
    return Model("noise", 7, network, image, pyramid, process)


@pytest.fixture(scope="module")
def model():
    return make_model(Smooth(), SIZES)


def drawn(model, *, devices=1, batch=4, first=0, count=4, advance=lambda done: None):
    plan = make_plan(Options(), model.process.sizes, model.process.schedule.steps)
    mesh = make_mesh(jax.devices()[:devices])
    options = {"first": first, "count": count, "batch": batch, "advance": advance}
    return np.stack(list(draw(model, plan, mesh, **options)))


def test_an_image_depends_on_its_seed_alone(model):
    together = drawn(model)
    assert together.shape == (4, 25, 28, 3)
    assert np.abs(together[0].astype(int) - together[1]).mean() > 10
    # Sums of floats in another order may round to the next level.
    for other in (drawn(model, devices=4, batch=1), drawn(model, batch=3)):
        np.testing.assert_allclose(other, together.astype(int), atol=1)
    later = drawn(model, first=2, count=2)
    np.testing.assert_allclose(later, together[2:].astype(int), atol=1)


def test_all_work_is_told(model):
    plan = make_plan(Options(), model.process.sizes, 8)
    told = []
    drawn(model, batch=3, count=4, advance=told.append)
    assert sum(told) == pytest.approx(4 * sum(work_of(model.process, plan)))
    assert len(told) == 2 * 2


def test_what_is_no_number_is_no_image(model):
    broken = Smooth()
    broken.share[...] = np.full((3,), np.nan, np.float32)
    with pytest.raises(FailedError, match="noise at step 7 draws no numbers"):
        drawn(Model(model.name, 7, broken, model.image, model.pyramid, model.process))


def test_few_large_images_are_drawn_at_once():
    assert per_device(0, (186, 248), 100, 2) == 5
    assert per_device(0, (2000, 2000), 100, 2) == 1
    assert per_device(0, (18, 20), 5, 2) == 3
    assert per_device(7, (2000, 2000), 100, 2) == 7


def test_a_large_image_is_shown_to_the_network_in_tiles(monkeypatch):
    monkeypatch.setattr(single_image, "PIXELS_AT_ONCE", 2 * 64 * 64)
    seen = []

    class Seen(Smooth):
        def __call__(self, x, t, scale):
            seen.append(x.shape)
            return super().__call__(x, t, scale)

    large = make_model(Seen(), ((70, 90),), times=2)
    assert drawn(large, batch=2, count=2).shape == (2, 70, 90, 3)
    assert {shape[0] for shape in seen} == {2}
    assert max(max(shape[1:3]) for shape in seen) <= 64
