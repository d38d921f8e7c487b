"""KID, precision and recall: definitions written out, laws, blocks and refusals."""

import numpy as np
import pytest
from generated_features import features

from deepprism_jax.metrics import precision_recall as prc
from deepprism_jax.metrics.feature_rows import FeatureRows
from deepprism_jax.metrics.kid import KID, kernel_distance, kernel_distances
from deepprism_jax.metrics.precision_recall import PrecisionRecall, precision_recall


def test_kernel_distance_is_its_definition():
    x, y = features(0, 6, 4), features(2, 6, 4, 0.5)

    def k(a, b):
        return (np.dot(a.astype(np.float64), b) / 4 + 1) ** 3

    pairs = [(i, j) for i in range(6) for j in range(6)]
    within = np.mean([k(z[i], z[j]) for z in (x, y) for i, j in pairs if i != j])
    between = np.mean([k(x[i], y[j]) for i, j in pairs])
    assert kernel_distance(x, y) == pytest.approx(2 * (within - between), rel=1e-12)


def test_kid_of_one_distribution_is_around_0_and_grows_with_distance():
    real = features(0, 300, 8)
    none, some, more = (
        np.mean(
            kernel_distances(real, features(5, 300, 8, shift), subsets=20, size=100)
        )
        for shift in (0.0, 0.25, 0.5)
    )
    assert abs(none) < 0.2 * some < 0.2 * more


def test_states_of_pairs_merge_in_any_order():
    real, fake = features(0, 40, 6), features(2, 40, 6, 0.25)
    options = {"subsets": 3, "size": 20}
    batches = np.split(np.random.default_rng(0).permutation(40), [7, 25])
    a, b, c = (KID.from_batch(real[i], fake[i], i, **options) for i in batches)
    whole = KID.from_batch(real, fake, np.arange(40), **options).compute()
    assert a.merge(b).merge(c).compute() == c.merge(b.merge(a)).compute() == whole
    a, b, c = (PrecisionRecall.from_batch(real[i], fake[i], i) for i in batches)
    whole = PrecisionRecall.from_batch(real, fake, np.arange(40)).compute()
    assert a.merge(b).merge(c).compute() == c.merge(b.merge(a)).compute() == whole


def test_precision_and_recall_are_their_definition(monkeypatch):
    real, fake = features(0, 50, 5), features(2, 35, 5, 0.25)
    # A few rows at a time, and a set far from the origin.
    monkeypatch.setattr(prc, "BLOCK_DISTANCES", 130)

    def among(points, rows):
        def ball(row):
            return np.sort(np.linalg.norm(rows - row, axis=1))[3]

        inside = [np.linalg.norm(points - row, axis=1) <= ball(row) for row in rows]
        return np.mean(np.any(inside, axis=0))

    expected = among(fake, real), among(real, fake)
    assert 0.3 < min(expected) < max(expected) < 1.0
    assert precision_recall(real + 100, fake + 100) == pytest.approx(expected)


def test_equal_sets_and_images_that_are_all_alike_are_found():
    rows = features(0, 20, 600)
    assert precision_recall(rows, rows[::-1].copy()) == (1.0, 1.0)
    alike = np.repeat(rows[:1], 9, axis=0)
    assert precision_recall(alike, alike[:5]) == (1.0, 1.0)
    assert precision_recall(alike, rows[1:])[0] == 0.0


def test_one_good_image_again_and_again_has_precision_without_recall():
    real = features(0, 60, 4)
    same = np.repeat(real[5:6], 60, axis=0)
    precision, recall = precision_recall(real, same)
    assert precision == 1.0
    assert recall < 0.1


def test_rows_are_kept_by_reference():
    rows = features(0, 5, 4)
    assert FeatureRows.from_array(rows).array() is rows
    shuffled = FeatureRows.from_batch(rows[[3, 1]], np.array([3, 1]))
    np.testing.assert_array_equal(shuffled.array(), rows[[1, 3]])
    assert shuffled.count == 2


def test_notes_tell_what_limits_the_figures():
    def rows(count):
        return FeatureRows.from_array(features(0, count, 4))

    assert KID(rows(40), rows(40), size=20).notes() == []
    (note,) = KID(rows(40), rows(39), size=20).notes()
    assert note.startswith("kernel distance over subsets of 20 of 39 images")
    assert PrecisionRecall(rows(40), rows(40)).notes() == []
    (note,) = PrecisionRecall(rows(40), rows(30)).notes()
    assert "30 generated and 40 real images" in note


def test_what_is_no_distance_is_refused(without_type_checks):
    rows = FeatureRows.from_array(features(0, 30, 4))
    wide = FeatureRows.from_array(features(0, 30, 5))
    for metric in (KID(rows, wide, size=10), PrecisionRecall(rows, wide)):
        with pytest.raises(ValueError, match="have 4 features and generated ones 5"):
            metric.compute()
    with pytest.raises(ValueError, match=r"1,000 images, but .* most 30$"):
        KID(rows, rows).compute()
    with pytest.raises(ValueError, match="1 subsets of 1 images is not defined"):
        KID(rows, rows, subsets=1, size=1).compute()
    few = FeatureRows.from_array(features(0, 3, 4))
    with pytest.raises(ValueError, match="at least 4 images a side, got 30 real and 3"):
        PrecisionRecall(rows, few).compute()
    with pytest.raises(ValueError, match="features of image 0 came twice"):
        rows.merge(few).array()
    with pytest.raises(ValueError, match="parts of a set have 4 and 5 features"):
        rows.merge(wide).array()
    with pytest.raises(ValueError, match="no features of images"):
        FeatureRows().array()
    with pytest.raises(ValueError, match=r"1 of 2 images .* the first is image 8"):
        FeatureRows.from_batch(np.array([[1.0], [np.nan]]), np.array([4, 8]))
