"""Images drawn from a small model do not depend on what they are drawn with."""

import jax
import numpy as np
import pytest
from made_up_model import Smooth, make_model

from deepprism_jax.evaluation.setup import FailedError
from deepprism_jax.evaluation.single_image import drawing
from deepprism_jax.sampling.options import Options
from deepprism_jax.sampling.plan import make_plan
from deepprism_jax.sampling.single_image import draw, per_device, work_of
from deepprism_jax.training.sharding import make_mesh

SIZES = ((18, 20), (25, 28))


@pytest.fixture(scope="module")
def model():
    return make_model(Smooth(), SIZES)


def drawn(model, *, devices=1, batch=4, first=0, count=4, advance=lambda done: None):
    plan = make_plan(Options(), model.process.sizes, model.process.schedule.steps)
    mesh = make_mesh(jax.devices()[:devices])
    options = {"first": first, "count": count, "batch": batch, "advance": advance}
    return np.stack(list(draw(model, plan, mesh, **options)))


def test_an_image_depends_on_its_seed_alone_and_all_work_is_told(model):
    """Evaluation draws it too, in a batch of all."""
    told = []
    drawer = drawing.Drawer(
        model.network, "eps", model.process, make_mesh(jax.devices()[:1])
    )
    (batch,) = drawer.draw(model.network, model.process, 3, first=0, count=4, batch=4)
    together = batch.pixels
    assert together.shape == (4, 25, 28, 3)
    assert np.abs(together[0].astype(int) - together[1]).mean() > 10
    # Sums of floats in another order may round to the next level.
    later = drawn(model, devices=2, batch=1, first=1, count=3, advance=told.append)
    np.testing.assert_allclose(later, together[1:].astype(int), atol=1)
    plan = make_plan(Options(), model.process.sizes, 8)
    assert len(told) == 2 * 2
    assert sum(told) == 3 * sum(work_of(model.process, plan))


def test_what_is_no_number_is_no_image():
    broken = make_model(Smooth(), SIZES[:1], times=1)
    broken.network.share[...] = np.full((3,), np.nan, np.float32)
    with pytest.raises(FailedError, match="blobs at step 7 draws no numbers"):
        drawn(broken, batch=1, count=1)


def test_few_large_images_are_drawn_at_once():
    assert per_device(0, (186, 248), 100, 2) == 5
    assert per_device(0, (2000, 2000), 100, 2) == 1
    assert per_device(0, (18, 20), 5, 2) == 3
    assert per_device(7, (2000, 2000), 100, 2) == 7


def test_a_large_image_is_shown_to_the_network_in_tiles(monkeypatch):
    monkeypatch.setattr(drawing, "PIXELS_AT_ONCE", 2 * 64 * 64)
    seen = []

    class Seen(Smooth):
        def __call__(self, x, t, scale):
            seen.append(x.shape)
            return super().__call__(x, t, scale)

    large = make_model(Seen(), ((70, 90),), times=2)
    assert drawn(large, batch=2, count=2).shape == (2, 70, 90, 3)
    assert {shape[0] for shape in seen} == {2}
    assert max(max(shape[1:3]) for shape in seen) <= 64
