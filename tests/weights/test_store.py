"""Weights are found again, and told apart."""

import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from deepprism_jax.weights import store
from deepprism_jax.weights.registry import REGISTRY

STATE = {
    "conv.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "conv.bias": np.arange(2, dtype=np.float32),
}


def test_it_lies_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("DEEPPRISM_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert store.directory() == tmp_path / "deepprism_jax" / "weights"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert store.directory() == Path.home() / ".cache" / "deepprism_jax" / "weights"


def test_what_is_absent_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv("DEEPPRISM_WEIGHTS", str(tmp_path))
    assert store.find("vgg16") is None
    with pytest.raises(FileNotFoundError) as error:
        store.need("vgg16")
    assert str(error.value) == (
        f"no weights vgg16 in {tmp_path}; run python -m deepprism_jax.weights get vgg16"
    )
    write("vgg16", tmp_path / "vgg16.safetensors")
    assert store.need("vgg16") == tmp_path / "vgg16.safetensors"
    assert store.fault("vgg16") is None


def write(name, path, **changes):
    """Write what has the names and shapes of some weights."""
    shapes = REGISTRY[name].shapes() | changes
    save_file({n: np.zeros(shape, np.float32) for n, shape in shapes.items()}, path)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (None, "it has no lin0.model.1.weight"),
        ({"lin4.model.1.weight": (1, 9, 1, 1)}, r"lin4.* \(1, 9, 1, 1\), not \(1, 25"),
    ],
)
def test_what_is_not_what_it_is_called_is_not_found(
    monkeypatch, tmp_path, changes, says
):
    monkeypatch.setenv("DEEPPRISM_WEIGHTS", str(tmp_path))
    path = store.place("lpips_alex")
    write("lpips_alex", path, **changes) if changes else save_file(STATE, path)
    assert store.find("lpips_alex") is None
    with pytest.raises(FileNotFoundError, match=f"{path} is not lpips_alex: {says}"):
        store.need("lpips_alex")
    path.write_bytes(path.read_bytes()[:-1])
    assert store.fault("lpips_alex") == "it is damaged or cut off"


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match=r"unknown weights 'vgg'; .*meant vgg16"):
        store.find("vgg")
    with pytest.raises(ValueError, match="choose one of inception, squeezenet1_1"):
        store.find("")


def test_the_fingerprint_is_that_of_the_numbers(tmp_path):
    np.savez(tmp_path / "a.npz", **STATE, **{"counter": np.int64(5)})
    backwards = dict(reversed(STATE.items()))
    save_file(backwards, tmp_path / "b.safetensors", metadata={"source": "elsewhere"})
    half = {name: tensor.astype(np.float16) for name, tensor in STATE.items()}
    np.savez(tmp_path / "c.npz", **half)
    (one,) = {store.fingerprint(tmp_path / f) for f in ("a.npz", "b.safetensors")}
    assert one == store.fingerprint(tmp_path / "c.npz")
    assert len(one) == 16
    assert set(one) <= set("0123456789abcdef")


@pytest.mark.parametrize(
    "change",
    [
        {"conv.bias": np.float32([0, 1.0000001])},
        {"conv.weight": STATE["conv.weight"].reshape(3, 2)},
        {"conv.scale": np.ones(1, np.float32)},
    ],
)
def test_other_weights_have_another_fingerprint(tmp_path, change):
    path = tmp_path / "net.safetensors"
    save_file(STATE, path)
    before = store.fingerprint(path)
    save_file(STATE | change, path)
    os.utime(path, ns=(0, 0))
    assert store.fingerprint(path) != before


def test_the_fingerprint_of_nothing(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights file"):
        store.fingerprint(tmp_path / "none.npz")
    (tmp_path / "broken.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"cannot read weights file .*broken\.npz"):
        store.fingerprint(tmp_path / "broken.npz")
