"""Comparisons with the images evaluated on, and with files of statistics."""

import corner
import numpy as np
import pytest

from deepprism_jax.evaluation.feature_sets import FeatureSet, Settings
from deepprism_jax.evaluation.networks import LITE0_METRICS, Suite
from deepprism_jax.evaluation.real_side import Images, RealSide
from deepprism_jax.image_features import ImageFeatures

COUNT = 60
SETTINGS = Settings(kid_subset=20, splits=4)
IMAGES = Images("cifar10", "test", (32, 32), COUNT)


@pytest.fixture(autouse=True)
def cache_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def features(seed, count=COUNT):
    images = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3))
    images = images // (1 + seed)
    pool, logits = corner.Corner().apply(corner.PARAMS, images.astype(np.float32))
    found = FeatureSet()
    rows = ImageFeatures(np.asarray(pool, np.float32), np.asarray(logits, np.float32))
    found.add(rows, np.arange(count), np.ones(count, bool))
    return {"inception": found}


def suite(*more):
    return Suite(distributions=[corner.distribution(), *more])


def lite0():
    return corner.distribution("efficientnet_lite0", LITE0_METRICS)


def test_sets_are_compared_by_every_metric():
    side = RealSide(suite(), IMAGES, SETTINGS)
    real, other = features(0), features(1)
    scores, _ = side.compare(real, other)
    assert set(scores) == {"is", "fid", "kid", "precision", "recall"}
    assert (scores["is"].count, scores["is"].over) == (4, "splits")
    assert (scores["kid"].count, scores["kid"].over) == (100, "subsets")
    same, _ = side.compare(real, real)
    assert same["fid"].value < 1e-9 < scores["fid"].value
    assert (same["precision"].value, same["recall"].value) == (1.0, 1.0)
    assert same["kid"].value < scores["kid"].value
    assert same["is"] == side.scores_of_images(real)["is"] != scores["is"]


def test_metrics_that_need_more_images_are_left_out_or_refused():
    few = Images("cifar10", "test", (32, 32), 19)
    chosen = suite()
    RealSide(chosen, few, SETTINGS)
    assert chosen.skipped == ["kid: needs at least 20 images, and there are 19"]
    assert "kernel" not in chosen.distributions[0].metrics
    with pytest.raises(ValueError, match="19; evaluate more images, or choose smaller"):
        RealSide(suite(), few, SETTINGS, asked=("kid",))
    chosen = suite()
    RealSide(chosen, Images("cifar10", "test", (32, 32), 3), SETTINGS)
    assert chosen.distributions[0].metrics == {"frechet": "fid"}
    RealSide(one := suite(), Images("cifar10", "test", (32, 32), 1), SETTINGS)
    assert one.distributions == []


def test_a_reference_gives_what_its_images_give(tmp_path):
    file = tmp_path / "reference.npz"
    writer = RealSide(suite(), IMAGES, SETTINGS, save=file)
    assert writer.needed == {"inception"}
    assert writer.write(features(0)) == [str(file)]
    reader = RealSide(suite(), IMAGES, SETTINGS, reference=file)
    assert reader.needed == frozenset()
    scores, _ = reader.compare({}, features(1))
    expected, _ = writer.compare(features(0), features(1))
    assert scores == expected
    assert reader.scores_of_images({}) == {}
    assert reader.facts()["reference"].startswith("60 images of 32x32, cifar10,")


def test_a_reference_of_few_images_is_noticed_before_any_work(tmp_path):
    file = tmp_path / "reference.npz"
    few = Images("cifar10", "test", (32, 32), 19)
    RealSide(suite(), few, SETTINGS, save=file).write(features(0, 19))
    chosen = suite()
    RealSide(chosen, IMAGES, SETTINGS, reference=file)
    assert chosen.skipped == ["kid: needs at least 20 images, and there are 19"]


def test_a_reference_of_statistics_alone_serves_the_frechet_distance(tmp_path):
    gaussian = features(0)["inception"].gaussian
    file = tmp_path / "other.npz"
    np.savez(file, mu=gaussian.mean, sigma=gaussian.statistics.covariance)
    side = RealSide(suite(), IMAGES, SETTINGS, reference=file)
    scores, notes = side.compare({}, features(1))
    assert set(scores) == {"is", "fid"}
    expected, _ = RealSide(suite(), IMAGES, SETTINGS).compare(features(0), features(1))
    assert scores["fid"].value == pytest.approx(expected["fid"].value, rel=1e-9)
    assert any(n.startswith("kid, precision, recall left out") for n in notes)
    assert "does not say of which images" in side.notes()[0]


def test_a_reference_serves_the_network_that_it_is_of(tmp_path):
    file = tmp_path / "reference.npz"
    RealSide(suite(), IMAGES, SETTINGS, save=file).write(features(0))
    both = suite(lite0())
    RealSide(both, IMAGES, SETTINGS, reference=file)
    assert [d.key for d in both.distributions] == ["inception"]
    assert both.skipped[0].startswith("efficientnet_lite0_score, ")
    assert both.skipped[0].endswith("is of another network")
    other = Suite(distributions=[corner.distribution(fingerprint="1" * 16)])
    with pytest.raises(ValueError, match="weights '0000000000000000', but here"):
        RealSide(other, IMAGES, SETTINGS, reference=file)
    with pytest.raises(ValueError, match="serves no metric that can be measured"):
        RealSide(Suite(), IMAGES, SETTINGS, reference=file)


def test_a_reference_is_neither_overwritten_nor_of_two_networks(tmp_path):
    file = tmp_path / "reference.npz"
    file.write_text("mine")
    with pytest.raises(FileExistsError, match="exists; choose another name"):
        RealSide(suite(), IMAGES, SETTINGS, save=file)
    assert file.read_text() == "mine"
    with pytest.raises(ValueError, match="inception, efficientnet_lite0: choose"):
        RealSide(suite(lite0()), IMAGES, SETTINGS, save=tmp_path / "new.npz")


def test_features_are_kept_from_an_interrupted_pass():
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)
    rows = ImageFeatures(np.ones((3, 12), np.float32), np.ones((3, 6), np.float32))
    side = RealSide(suite(), IMAGES, SETTINGS)

    def interrupted():
        with side.caching():
            side.caches["inception"].add(images, rows)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    again = RealSide(suite(), IMAGES, SETTINGS).caches["inception"]
    assert again.lookup(images[1:]) is not None
    assert RealSide(suite(), IMAGES, SETTINGS, cache=False).caches == {}
