"""The cache gives an image's own features or none, whatever became of its file."""

import numpy as np
import pytest
from generated_features import uniform

from deepprism_jax.image_features import ImageFeatures
from deepprism_jax.metrics.feature_cache import FeatureCache, cache_path
from deepprism_jax.metrics.feature_source import FeatureSource

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 4, 6, 3)).astype(np.uint8)
FEATURES = ImageFeatures(uniform(0, (12, 5)), uniform(1, (12, 3)))


def part(which):
    return IMAGES[which], ImageFeatures(*(x[which] for x in FEATURES))


def assert_found(cache, which):
    found = cache.lookup(IMAGES[which])
    for own, expected in zip(found, FEATURES, strict=True):
        np.testing.assert_array_equal(own, expected[which])
        assert own.dtype == np.float32


@pytest.fixture
def saved(tmp_path):
    cache = FeatureCache(tmp_path / "room" / "cache.npz")
    cache.add(*part(slice(0, 5)))
    cache.add(*part(slice(5, 12)))
    cache.save()
    assert cache.notes == []
    return cache.path


def test_other_batches_and_another_order_find_the_same(saved):
    cache = FeatureCache(saved)
    assert len(cache) == 12
    for which in (slice(3, 9), [11, 0, 4], [2, 2]):
        assert_found(cache, which)
    assert [p.name for p in saved.parent.iterdir()] == ["cache.npz"]


def test_an_image_that_differs_in_anything_is_not_found(saved):
    cache = FeatureCache(saved)
    changed = IMAGES[:3].copy()
    changed[1, 2, 3, 0] ^= 1
    assert cache.lookup(changed) is None
    assert_found(cache, [0, 2])
    # The same bytes in another shape.
    assert cache.lookup(IMAGES[:2].reshape(2, 6, 4, 3)) is None
    assert cache.lookup(IMAGES[:0]) is None
    assert FeatureCache(saved.with_name("none.npz")).lookup(IMAGES[:1]) is None


def test_what_another_process_wrote_meanwhile_is_kept(tmp_path):
    one, two = (
        FeatureCache(tmp_path / "cache.npz"),
        FeatureCache(tmp_path / "cache.npz"),
    )
    one.add(*part([3, 1, 2]))
    two.add(*part([2, 7, 7, 8]))
    one.save()
    two.save()
    cache = FeatureCache(one.path)
    assert len(cache) == 5
    assert_found(cache, [1, 2, 3, 7, 8])


def test_nothing_new_writes_nothing(saved):
    before = saved.stat().st_mtime_ns
    cache = FeatureCache(saved)
    cache.add(*part(slice(4, 6)))
    cache.save()
    assert saved.stat().st_mtime_ns == before


def damage(path, kind):
    whole = path.read_bytes()
    if kind == "cut":
        path.write_bytes(whole[:-20])
    elif kind == "changed":
        path.write_bytes(whole[:300] + bytes([whole[300] ^ 4]) + whole[301:])
    elif kind == "text":
        path.write_text("no archive")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "keys":
        np.savez(path, pool=FEATURES.pool)
    elif kind == "rows":
        keys = np.zeros((12, 16), np.uint8)
        np.savez(path, digests=keys, pool=FEATURES.pool[:4], logits=FEATURES.logits)
    elif kind == "object":
        np.savez(path, digests=np.array([{}]), pool=FEATURES.pool)


KINDS = ["cut", "changed", "text", "empty", "keys", "rows", "object"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_told_and_made_anew(saved, kind):
    damage(saved, kind)
    cache = FeatureCache(saved)
    assert len(cache) == 0
    (note,) = cache.notes
    assert "is damaged and is made anew" in note
    assert "\n" not in note
    cache.add(*part([0, 1]))
    cache.save()
    again = FeatureCache(saved)
    assert again.notes == []
    assert_found(again, [1, 0])


def test_memory_is_bounded(saved):
    row = 4 * (5 + 3)
    cache = FeatureCache(saved, most_bytes=4 * row)
    assert len(cache) == 4
    assert_found(cache, slice(0, 4))
    cache.add(*part(slice(4, 9)))
    cache.save()
    assert len(cache) == 4
    assert "keeps 4 images and no more" in cache.notes[0]
    assert len(FeatureCache(saved)) == 12


def test_a_file_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "room").write_text("not a folder")
    cache = FeatureCache(tmp_path / "room" / "cache.npz")
    cache.add(*part([0, 1]))
    cache.save()
    assert "was not written: " in cache.notes[-1]
    assert_found(cache, [0, 1])


def test_features_that_do_not_fit_are_refused(saved, without_type_checks):
    cache = FeatureCache(saved)
    with pytest.raises(
        ValueError, match="features of 12 and 12 images were given for 2"
    ):
        cache.add(IMAGES[:2], FEATURES)
    wide = ImageFeatures(uniform(0, (12, 6)), FEATURES.logits)
    with pytest.raises(ValueError, match=r"sizes \(5, 3\), not \(6, 3\)"):
        cache.add(IMAGES, wide)
    with pytest.raises(ValueError, match="NaN or infinite"):
        cache.add(IMAGES, ImageFeatures(FEATURES.pool, FEATURES.logits + np.inf))


def test_every_source_has_its_own_file(tmp_path, monkeypatch):
    source = {
        "data": "folder /home/me/My Images",
        "split": ".[:90%]",
        "image_size": (32, 32),
        "resize": "bilinear",
        "network": "inception",
        "weights": "0123",
    }
    paths = {cache_path(FeatureSource(**source))}
    for name in source:
        other = (32, 48) if name == "image_size" else "other"
        paths.add(cache_path(FeatureSource(**{**source, name: other})))
    assert len(paths) == 7
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = cache_path(FeatureSource(**source))
    assert path.parent == tmp_path / "deepprism_jax" / "features"
    assert path.name.startswith("folder_home_me_My_Images-90-32x32-inception-")
    assert cache_path(FeatureSource(**source), tmp_path).parent == tmp_path
