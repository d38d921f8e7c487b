"""One pass equals measuring all images at once, on any number of devices."""

from functools import partial

import corner
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepprism_jax.evaluation.feature_sets import make_extract
from deepprism_jax.evaluation.pairs import make_measure
from deepprism_jax.evaluation.reconstruction import Reconstruction, by_function
from deepprism_jax.evaluation.scoring import Contestant, Pass, warnings
from deepprism_jax.metrics.feature_cache import FeatureCache
from deepprism_jax.metrics.psnr import psnr
from deepprism_jax.metrics.ssim import ssim
from deepprism_jax.training.sharding import make_mesh, place_batch

SHAPE = (12, 16, 3)


def images(count):
    return np.random.default_rng(0).integers(0, 256, (count, *SHAPE), dtype=np.uint8)


def batches(data, size):
    for start in range(0, len(data), size):
        part = data[start : start + size]
        padded = np.full((size, *SHAPE), 7, np.uint8)
        padded[: len(part)] = part
        rows = np.arange(size)
        yield {"image": padded, "mask": rows < len(part), "index": start + rows}


def darker(batch):
    return jnp.asarray(batch) // 2


def run(contestants, data, size, devices=1, caches=None, watch=()):
    mesh = make_mesh(jax.devices()[:devices])
    passed = Pass(
        make_measure(["psnr", "ssim"], {}, mesh),
        {"corner": make_extract(corner.distribution(), mesh)},
        partial(place_batch, mesh),
        caches=caches or {},
    )
    passed.run(contestants, batches(data, size), watch)
    return passed


@pytest.mark.parametrize(("size", "devices"), [(4, 1), (8, 4), (4, 2)])
def test_equals_all_images_at_once(size, devices):
    data = images(11)
    contestant = Contestant(by_function(darker))
    passed = run({"half": contestant}, data, size, devices)
    scores = contestant.scores()
    for name, function in (("psnr", psnr), ("ssim", ssim)):
        values = np.asarray(function(data, data // 2))
        assert scores[name].count == 11
        assert scores[name].value == pytest.approx(values.mean(), rel=1e-5)
        assert scores[name].std == pytest.approx(values.std(), rel=1e-4)
    for found, pixels in (
        (passed.real["corner"], data),
        (contestant.sets["corner"], data // 2),
    ):
        expected = corner.Corner().apply(corner.PARAMS, pixels)
        np.testing.assert_array_equal(found.pool.array(), expected.pool)
        np.testing.assert_allclose(found.logits.array(), expected.logits, atol=1e-5)
        np.testing.assert_allclose(
            found.gaussian.mean, np.mean(expected.pool, 0), rtol=1e-6
        )


def test_every_batch_is_shown_without_what_fills_it_up():
    seen = []
    data = images(5)
    run(
        {"half": Contestant(by_function(darker))},
        data,
        4,
        watch=[lambda name, batch: seen.append((name, batch))],
    )
    assert [name for name, _ in seen] == ["half", "half"]
    indices = np.concatenate([batch.indices for _, batch in seen])
    np.testing.assert_array_equal(indices, np.arange(5))
    shown = np.concatenate([batch.reconstructions for _, batch in seen])
    np.testing.assert_array_equal(shown, data // 2)
    values = np.concatenate([batch.values["psnr"] for _, batch in seen])
    np.testing.assert_allclose(values, psnr(data, data // 2), rtol=1e-6)


def broken_where(bright):
    """A method whose numbers are not finite where the first pixel is so bright."""

    def reconstruct(batch):
        batch = jnp.asarray(batch)
        return Reconstruction(batch // 2, batch[:, 0, 0, 0] < bright)

    return reconstruct


def test_reconstructions_that_are_no_numbers_are_counted_and_named():
    data = images(20)
    bad = np.flatnonzero(data[:, 0, 0, 0] >= 128)
    assert 5 < len(bad) < 15
    contestant = Contestant(broken_where(128))
    seen = []
    passed = run(
        {"half": contestant},
        data,
        8,
        watch=[lambda name, batch: seen.append(batch.values["psnr"])],
    )
    assert contestant.broken == bad.tolist()
    good = np.setdiff1d(np.arange(20), bad)
    scores = contestant.scores()
    assert scores["psnr"].count == len(good)
    expected = np.asarray(psnr(data[good], data[good] // 2)).mean()
    assert scores["psnr"].value == pytest.approx(expected, rel=1e-5)
    assert contestant.sets["corner"].count == len(good)
    assert passed.real["corner"].count == 20
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(np.concatenate(seen))), bad)
    (line,) = warnings("half", contestant, passed)
    assert line.startswith(f"{len(bad)} of 20 reconstructions by half have NaN")
    assert line.endswith(
        f"images {', '.join(map(str, bad[:5]))} and {len(bad) - 5} more"
    )


def test_a_model_without_any_finite_image_is_an_error():
    with pytest.raises(ValueError, match=r"every reconstruction by half has NaN"):
        run({"half": Contestant(broken_where(0))}, images(3), 4)


def test_no_image_is_an_error():
    with pytest.raises(ValueError, match="no image was measured"):
        run({}, images(0), 4)


def test_images_made_for_another_range_are_noticed():
    data = images(4)
    light = Contestant(by_function(lambda batch: jnp.asarray(batch) // 2 + 128))
    same = Contestant(by_function(jnp.asarray))
    passed = run({"light": light, "same": same}, data, 4)
    (line,) = warnings("light", light, passed)
    assert "almost no pixel of the reconstructions by light is darker than mid" in line
    assert warnings("same", same, passed) == []


def test_features_are_left_out_where_they_are_not_wanted():
    contestant = Contestant(by_function(darker), features=False)
    passed = run({"half": contestant}, images(3), 4)
    assert contestant.sets == {}
    assert passed.real["corner"].count == 3


def test_features_that_are_kept_are_not_computed_again(tmp_path):
    data = images(10)
    cache = FeatureCache(tmp_path / "features.npz")
    first = run({}, data, 4, caches={"corner": cache})
    calls = []

    def extract(batch):
        calls.append(batch)
        return corner.Corner().apply(corner.PARAMS, batch)

    again = Pass(
        lambda images, others: {},
        {"corner": extract},
        jnp.asarray,
        caches={"corner": cache},
    )
    # Another size of batches, and two images more.
    again.run({}, batches(images(12), 6))
    assert len(calls) == 1
    found = again.real["corner"].pool.array()
    np.testing.assert_array_equal(found[:10], first.real["corner"].pool.array())
    assert found.shape == (12, corner.FEATURES)
