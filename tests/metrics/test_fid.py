"""Gaussians merge, and the Fréchet distance has its closed forms and laws."""

import numpy as np
import pytest
from generated_features import features
from hypothesis import given, settings
from hypothesis import strategies as st

from deepprism_jax.metrics.fid import FID, frechet_distance
from deepprism_jax.metrics.gaussian import Gaussian, Statistics

SIZE = 5


def statistics(seed, count, size=SIZE, shift=0.0):
    return Gaussian.from_batch(features(seed, count, size, shift)).statistics


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 6), min_size=3, max_size=3), st.floats(-1e4, 1e4))
def test_merge_is_associative_commutative_and_equals_the_whole(counts, offset):
    rows = features(0, sum(counts), SIZE).astype(np.float64) + offset
    a, b, c = map(Gaussian.from_batch, np.split(rows, np.cumsum(counts)[:2]))
    whole = Gaussian.from_batch(rows)
    for merged in (a.merge(b).merge(c), a.merge(b.merge(c)), c.merge(b).merge(a)):
        assert merged.count == whole.count
        np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(merged.scatter, whole.scatter, atol=1e-10)


def test_equals_numpy_and_drops_what_is_masked():
    rows = features(3, 50, SIZE)
    state = Gaussian.from_batch(
        np.append(rows, [[np.nan] * SIZE], axis=0), np.arange(51) < 50
    )
    np.testing.assert_allclose(state.mean, rows.mean(axis=0, dtype=np.float64))
    np.testing.assert_allclose(state.covariance, np.cov(rows, rowvar=False))


def test_many_rows_are_taken_in_by_blocks(monkeypatch):
    rows = features(3, 50, SIZE)
    whole = Gaussian.from_batch(rows)
    monkeypatch.setattr("deepprism_jax.metrics.gaussian.BLOCK_VALUES", 7 * SIZE)
    np.testing.assert_allclose(Gaussian.from_batch(rows).scatter, whole.scatter)


def test_closed_form_of_gaussians_that_commute():
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(SIZE, SIZE)))
    one, two = rng.uniform(0, 3, (2, SIZE))
    two[:2] = 0.0
    means = rng.normal(size=(2, SIZE))
    a = Statistics(means[0], basis * one @ basis.T, 10)
    b = Statistics(means[1], basis * two @ basis.T, 10)
    expected = np.sum((means[0] - means[1]) ** 2)
    expected += np.sum((np.sqrt(one) - np.sqrt(two)) ** 2)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("count", [4, 200])
def test_equal_sets_are_at_no_distance(count):
    same = statistics(3, count, size=20)
    assert frechet_distance(same, same) == pytest.approx(0.0, abs=1e-12)


def test_images_that_are_all_alike():
    still = Gaussian.from_batch(np.full((4, SIZE), 2.0, np.float32)).statistics
    other = statistics(3, 50)
    expected = np.sum((other.mean - 2.0) ** 2) + np.trace(other.covariance)
    assert frechet_distance(still, other) == pytest.approx(expected)
    assert frechet_distance(still, still) == 0.0


def test_singular_covariances_are_told():
    real, fake = features(3, 9, 8), features(5, 8, 8)
    enough = FID(Gaussian.from_batch(real), Gaussian.from_batch(real))
    assert enough.notes() == []
    (note,) = FID(Gaussian.from_batch(real), Gaussian.from_batch(fake)).notes()
    assert note.startswith("Fréchet distance from 8 generated images with 8 features")
    unknown = Statistics(np.zeros(8), np.eye(8), None)
    assert FID(unknown, Gaussian.from_batch(real)).notes() == []


def test_pairs_of_batches_and_fixed_statistics_merge():
    real, fake = features(3, 30, SIZE), features(5, 30, SIZE, 0.5)
    whole = FID.from_batch(real, fake)
    halves = [FID.from_batch(real[i], fake[i]) for i in (slice(11), slice(11, None))]
    score = halves[1].merge(halves[0]).compute()
    assert score.value == pytest.approx(whole.compute().value, rel=1e-10)
    assert (score.std, score.count, score.over) == (None, 30, "images")
    fixed = whole.real.statistics
    merged = FID(fixed, halves[0].generated).merge(FID(fixed, halves[1].generated))
    assert merged.compute().value == pytest.approx(score.value, rel=1e-10)
    with pytest.raises(ValueError, match="different real statistics"):
        merged.merge(FID(halves[0].real.statistics, whole.generated))


def test_what_is_no_distance_is_refused(without_type_checks):
    few, more = features(3, 30, SIZE), features(3, 30, SIZE + 1)
    with pytest.raises(ValueError, match="have 5 features and generated ones 6"):
        FID.from_batch(few, more).compute()
    with pytest.raises(ValueError, match="parts of a set have 5 and 6 features"):
        Gaussian.from_batch(few).merge(Gaussian.from_batch(more))
    with pytest.raises(ValueError, match="at least 2 images, got 1"):
        FID.from_batch(few[:1], few[:1]).compute()
    few[[7, 9], 2] = np.nan, -np.inf
    with pytest.raises(ValueError, match=r"2 of 30 images of a batch .* is row 7"):
        Gaussian.from_batch(few)
