"""Reference statistics come back as they went, and only to where they fit."""

import numpy as np
import pytest
from generated_features import features, uniform

from deepprism_jax.metrics.fid import FID
from deepprism_jax.metrics.gaussian import Gaussian
from deepprism_jax.metrics.reference import (
    Provenance,
    Reference,
    check_free,
    load_reference,
    save_reference,
)

KIND = {"network": "inception", "weights": "0123abcd", "resize": "bilinear to 299"}
PROVENANCE = Provenance("cifar10", "test", (32, 48), images=30, version="1.2.3", **KIND)


def reference(provenance=PROVENANCE):
    rows = features(0, 30, 5)
    statistics = Gaussian.from_batch(rows).statistics
    return Reference(statistics, rows, uniform(3, (30, 7)), provenance)


def test_comes_back_as_it_went(tmp_path):
    path, saved = tmp_path / "new" / "cifar10.npz", reference()
    save_reference(path, saved)
    loaded = load_reference(path, **KIND)
    for one, other in (
        (saved.statistics.mean, loaded.statistics.mean),
        (saved.statistics.covariance, loaded.statistics.covariance),
        (saved.features, loaded.features),
        (saved.logits, loaded.logits),
    ):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype
    assert (loaded.provenance, loaded.notes) == (PROVENANCE, ())
    assert loaded.statistics.count == 30
    generated = Gaussian.from_batch(features(9, 40, 5))
    own = FID(Gaussian.from_batch(saved.features), generated).compute()
    assert FID(loaded.statistics, generated).compute() == own
    assert [p.name for p in path.parent.iterdir()] == ["cifar10.npz"]


def test_is_read_as_pytorch_fid_reads(tmp_path):
    path, saved = tmp_path / "stats.npz", reference()
    save_reference(path, saved)
    with np.load(path) as file:
        mu, sigma = file["mu"][:], file["sigma"][:]
    np.testing.assert_array_equal(sigma, saved.statistics.covariance)
    assert mu.dtype == sigma.dtype == np.float64


def test_a_file_of_pytorch_fid_is_read_with_a_note(tmp_path):
    path = tmp_path / "stats.npz"
    mu = np.arange(3, dtype=np.float32)
    np.savez_compressed(path, mu=mu, sigma=np.eye(3))
    loaded = load_reference(path, **KIND)
    assert loaded.statistics.mean.dtype == np.float64
    assert loaded.statistics.count is loaded.features is loaded.provenance is None
    (note,) = loaded.notes
    assert "stats.npz does not say of which images" in note


@pytest.mark.parametrize("field", KIND)
def test_another_kind_of_features_is_refused(tmp_path, field):
    path = tmp_path / "stats.npz"
    save_reference(path, reference())
    message = f"made with {field} '{KIND[field]}', but here it is 'other'"
    with pytest.raises(ValueError, match=message) as caught:
        load_reference(path, **{**KIND, field: "other"})
    assert "\n" not in str(caught.value)


def test_nothing_is_overwritten_unasked(tmp_path):
    path = tmp_path / "stats.npz"
    check_free(path)
    path.write_text("precious")
    for refused in (check_free, lambda p: save_reference(p, reference())):
        with pytest.raises(FileExistsError, match=r"stats.npz exists; choose another"):
            refused(path)
        with pytest.raises(ValueError, match="must be named"):
            refused(tmp_path / "stats.pt")
    assert path.read_text() == "precious"
    save_reference(path, reference(), overwrite=True)
    assert load_reference(path, **KIND).provenance == PROVENANCE
    assert [p.name for p in tmp_path.iterdir()] == ["stats.npz"]


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "stats.npz"
    path.write_text("precious")

    def full(stream, **arrays):
        stream.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="no space"):
        save_reference(path, reference(), overwrite=True)
    assert path.read_text() == "precious"
    assert len(list(tmp_path.iterdir())) == 1


EYE = {"mu": np.zeros(3), "sigma": np.eye(3)}


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"mean": np.zeros(3)}, "no mu and sigma, but mean"),
        (
            {"mu": np.zeros(3), "sigma": np.eye(4)},
            r"\(3,\) and sigma \(4, 4\) disagree",
        ),
        ({**EYE, "mu": np.full(3, np.nan)}, "finite"),
        ({**EYE, "sigma": np.eye(3, dtype=int)}, "finite"),
        ({**EYE, "sigma": -np.eye(3)}, "no covariance"),
        ({**EYE, "sigma": np.tri(3)}, "no covariance"),
        ({**EYE, "sigma": 2 - np.eye(3)}, "negative eigenvalues"),
        ({**EYE, "features": np.zeros((9, 4), np.float32)}, "do not go with its mu"),
        ({**EYE, "logits": np.zeros(9, np.float32)}, r"logits \(9,\) are not rows"),
        ({**EYE, "provenance": np.array('{"data": "x"}')}, "provenance is not und"),
        ({**EYE, "provenance": np.array("{")}, "provenance is not understood"),
    ],
)
def test_what_holds_no_statistics_is_refused(tmp_path, arrays, problem):
    path = tmp_path / "stats.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=problem):
        load_reference(path, **KIND)


def test_missing_damaged_and_dangerous_files_are_refused(tmp_path):
    path = tmp_path / "stats.npz"
    with pytest.raises(FileNotFoundError, match=r"no reference .* --save-reference"):
        load_reference(path, **KIND)
    save_reference(path, reference())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cannot read reference"):
        load_reference(path, **KIND)
    changed = bytearray(whole)
    changed[400] ^= 1
    path.write_bytes(changed)
    with pytest.raises(ValueError, match=r"cannot read reference .* CRC"):
        load_reference(path, **KIND)
    np.savez(path, mu=np.array([{}], dtype=object), sigma=np.eye(1))
    with pytest.raises(ValueError, match="cannot read reference"):
        load_reference(path, **KIND)
