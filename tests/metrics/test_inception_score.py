"""The inception score of parts is that of the whole; its extremes and refusals."""

import numpy as np
import pytest
from generated_features import uniform

from deepprism_jax.metrics.inception_score import InceptionScore, split_of_images


def test_order_of_parts_does_not_matter():
    logits = 4 * uniform(0, (40, 6))
    empty = InceptionScore.empty(images=40, splits=4)
    whole = empty.from_batch(logits, np.arange(40)).compute()
    batches = np.split(np.random.default_rng(0).permutation(40), [3, 3, 20])
    a, b, c, d = (empty.from_batch(logits[i], i) for i in batches)
    for merged in (
        empty.merge(a).merge(b).merge(c).merge(d),
        d.merge(c.merge(b.merge(a))),
    ):
        np.testing.assert_allclose(merged.compute()[:2], whole[:2], rtol=1e-12)
        assert merged.compute()[2:] == (4, "splits", 40)


def test_extremes():
    # As sure and as varied as can be: the number of classes. All alike: 1.
    sure = 2e4 * np.eye(5, dtype=np.float32)[np.arange(50) % 5]
    empty = InceptionScore.empty(images=50, splits=1)
    score = empty.from_batch(sure, np.arange(50)).compute()
    assert (score.value, score.std) == (pytest.approx(5.0, rel=1e-12), 0.0)
    alike = np.repeat(sure[:1], 50, axis=0)
    assert empty.from_batch(alike, np.arange(50)).compute().value == 1.0


def test_splits_differ_by_at_most_one_image():
    counts = np.bincount(split_of_images(37, 5))
    assert counts.sum() == 37
    assert set(counts) == {7, 8}


def test_few_images_are_told():
    logits = uniform(0, (20, 6))
    few = InceptionScore.empty(20).from_batch(logits, np.arange(20))
    (note,) = few.notes()
    assert note.startswith("score of 6 classes over splits of 2 images")
    assert InceptionScore.empty(20, 2).from_batch(logits, np.arange(20)).notes() == []


def test_what_is_no_score_is_refused():
    logits = uniform(0, (20, 6))
    with pytest.raises(ValueError, match="9 images do not make 10 splits"):
        InceptionScore.empty(9)
    empty = InceptionScore.empty(20)
    part = empty.from_batch(logits[:19], np.arange(19))
    with pytest.raises(ValueError, match="20 images, but 19 were taken in"):
        part.compute()
    with pytest.raises(ValueError, match="20 images, but 20 were taken in"):
        part.merge(empty.from_batch(logits[:1], np.arange(1))).compute()
    with pytest.raises(ValueError, match="index 20 is not of a set of 20 images"):
        empty.from_batch(logits[:2], np.array([19, 20]))
    with pytest.raises(ValueError, match="20 images in 10 splits and 20 in 4"):
        part.merge(InceptionScore.empty(20, 4))
    with pytest.raises(ValueError, match="parts have 6 and 5 classes"):
        part.merge(empty.from_batch(logits[19:, :5], np.array([19])))
    logits[3] = np.inf
    with pytest.raises(ValueError, match=r"1 of 5 images .* the first is image 14"):
        empty.from_batch(logits[:5], np.arange(11, 16))
