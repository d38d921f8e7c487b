"""Files of every kind are read alike, and none of them is trusted."""

import io
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from deepprism_jax.weights.state_dict import opened, read_state_dict
from deepprism_jax.weights.torch_files import MAGIC

GOLDEN = Path(__file__).parent / "golden"
FORMATS = ["tensors_zip.pth", "tensors_stream.pth"]


def golden():
    with np.load(GOLDEN / "tensors.npz") as file:
        return dict(file)


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)


@pytest.mark.parametrize("name", FORMATS)
def test_what_torch_wrote_is_read(name):
    assert_same(read_state_dict(GOLDEN / name), golden())


def test_what_torch_wrote_in_2017_is_read():
    expected = {name: golden()[name] for name in ("float32", "net.transposed")}
    assert_same(read_state_dict(GOLDEN / "tensors_2017.pth"), expected)


@pytest.mark.parametrize("name", [*FORMATS, "tensors.npz"])
def test_only_what_is_asked_for(name):
    found = read_state_dict(GOLDEN / name, ("net.", "int64"))
    assert list(found) == [n for n in golden() if n.startswith(("net.", "int64"))]
    assert read_state_dict(GOLDEN / name, ("no such",)) == {}


def test_tensors_that_are_not_asked_for_are_not_loaded(tmp_path):
    """Their bytes may be anything: of a stream nothing but the place is needed."""
    content = bytearray((GOLDEN / "tensors_stream.pth").read_bytes())
    expected = golden()
    start = content.index(expected["net.parameter"].tobytes())
    content[start : start + 96] = bytes(96)
    path = tmp_path / "tensors.pth"
    path.write_bytes(content)
    found = read_state_dict(path, ("net.transposed",))
    np.testing.assert_array_equal(found["net.transposed"], expected["net.transposed"])


@pytest.mark.parametrize("name", [*FORMATS, "tensors_2017.pth"])
def test_the_one_file_of_torch_in_an_archive_is_read(tmp_path, name):
    content = (GOLDEN / name).read_bytes()
    wheel = tmp_path / "package.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("package/__init__.py", "raise SystemExit")
        archive.writestr("package/net.pth", content)
    assert_same(read_state_dict(wheel), read_state_dict(GOLDEN / name))
    assert sha256(wheel) == sha256(GOLDEN / name)


def test_safetensors(tmp_path):
    tensors = {n: t for n, t in golden().items() if n.startswith("float")}
    save_file(tensors, tmp_path / "net.safetensors")
    found = read_state_dict(tmp_path / "net.safetensors", ("float",))
    assert_same(dict(sorted(found.items())), dict(sorted(tensors.items())))


def test_bfloat16_of_safetensors_is_widened(tmp_path):
    import jax.numpy as jnp

    tensor = jnp.asarray(golden()["float32"], jnp.bfloat16)
    save_file({"x": np.asarray(tensor)}, tmp_path / "net.safetensors")
    expected = {"x": golden()["bfloat16"]}
    assert_same(read_state_dict(tmp_path / "net.safetensors"), expected)


def sha256(path):
    with opened(path) as content:
        return content.sha256()


def refused(path):
    with pytest.raises(ValueError, match="cannot read weights file") as error:
        read_state_dict(path)
    text = str(error.value)
    assert str(path) in text
    assert "\n" not in text
    return text


def torch_zip(path, program, storages=()):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", program)
        for key, content in dict(storages).items():
            archive.writestr(f"net/data/{key}", content)
    return path


def torch_stream(path, program, keys=(), storages=b""):
    info = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    parts = [pickle.dumps(part, 2) for part in (MAGIC, 1001, info)]
    content = b"".join([*parts, program, pickle.dumps(list(keys), 2), storages])
    path.write_bytes(content)
    return path


def tensor_program(*, count=4, offset=0, shape=(4,), strides=(1,), dtype="Float"):
    """A pickle by hand of {"x": tensor in storage "0"}."""

    def constant(value):
        return pickle.dumps(value, 2)[2:-1]

    storage = b"(" + constant("storage") + b"ctorch\n%bStorage\n" % dtype.encode()
    storage += constant("0") + constant("cpu") + constant(count) + b"NtQ"
    arguments = storage + constant(offset) + constant(shape) + constant(strides)
    arguments += b"\x89)"  # requires no gradient, has no hooks
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"
    return b"\x80\x02}" + constant("x") + rebuild + b"s."


NUMBERS = np.arange(4, dtype="<f4")
STORED = struct.pack("<q", 4) + NUMBERS.tobytes()


def test_the_pickle_by_hand_is_one_that_is_read(tmp_path):
    path = torch_zip(tmp_path / "a.pth", tensor_program(), {"0": NUMBERS.tobytes()})
    assert_same(read_state_dict(path), {"x": NUMBERS})
    path = torch_stream(tmp_path / "b.pth", tensor_program(), ["0"], STORED)
    assert_same(read_state_dict(path), {"x": NUMBERS})


class Malicious:
    """Makes a directory where it is unpickled by anything but us."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("write", [torch_zip, torch_stream])
def test_a_malicious_pickle_is_refused_by_name_and_does_nothing(tmp_path, write):
    victim = tmp_path / "victim"
    program = pickle.dumps({"x": Malicious(victim)}, 2)
    pickle.loads(program)
    assert victim.exists()
    victim.rmdir()
    text = refused(write(tmp_path / "net.pth", program))
    assert f"its pickle asks for {os.mkdir.__module__}.mkdir" in text
    assert "refused without running it" in text
    assert not victim.exists()


@pytest.mark.parametrize(
    "name",
    [
        "os system",
        "builtins eval",
        "builtins getattr",
        "numpy load",
        "torch load",
        "torch._utils _rebuild_sparse_tensor",
        "collections namedtuple",
    ],
)
def test_every_other_global_is_refused(tmp_path, name):
    module, attribute = name.split()
    program = b"\x80\x02c%b\n%b\n." % (module.encode(), attribute.encode())
    assert f"asks for {module}.{attribute}," in refused(
        torch_zip(tmp_path / "net.pth", program)
    )


@pytest.mark.parametrize(
    "change",
    [
        {"count": 1 << 60},
        {"count": 5},
        {"count": -4},
        {"offset": 1},
        {"offset": -1},
        {"shape": (5,)},
        {"shape": (1 << 40,), "strides": (0,)},
        {"shape": (1 << 61,)},
        {"shape": (2, 2), "strides": (1, 3)},
        {"shape": (2, 2), "strides": (1,)},
        {"shape": (2,), "strides": (-1,)},
        {"shape": (1.5,)},
        {"dtype": "Double"},
        {"dtype": "Quantum"},
    ],
)
def test_sizes_that_the_file_does_not_bear_out_are_refused(tmp_path, change):
    program = tensor_program(**change)
    refused(torch_zip(tmp_path / "a.pth", program, {"0": NUMBERS.tobytes()}))
    refused(torch_stream(tmp_path / "b.pth", program, ["0"], STORED))


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x02}r\xff\xff\xff\x7f.",  # the memo's entry number two billion
        b"\x80\x02\x8e" + struct.pack("<Q", 1 << 62) + b"x.",  # bytes without end
        b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"N.",  # a frame without end
        b"\x80\x02]" * 3,  # no end at all
        b"\x80\x02K\x01.",  # a number
        b"\x80\x02}.",  # nothing
        b"\x80\x02\x82\x01.",  # a registered extension
        b"\x80\x02P1\n.",  # a persistent id in text
        b"",
    ],
)
def test_pickles_of_other_things_are_refused(tmp_path, program):
    refused(torch_zip(tmp_path / "a.pth", program))
    refused(torch_stream(tmp_path / "b.pth", program))


@pytest.mark.parametrize("name", [*FORMATS, "tensors.npz"])
def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path, name):
    content = (GOLDEN / name).read_bytes()
    path = tmp_path / name
    for size in np.linspace(0, len(content) - 1, 40).astype(int):
        path.write_bytes(content[:size])
        refused(path)


@pytest.mark.parametrize("name", [*FORMATS, "tensors_2017.pth", "tensors.npz"])
def test_a_damaged_file_is_read_or_refused_in_one_line(tmp_path, name):
    content = (GOLDEN / name).read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / name
    for place in rng.integers(len(content), size=60):
        damaged = bytearray(content)
        damaged[place] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            read_state_dict(path)
        except ValueError as error:
            assert "\n" not in str(error)  # noqa: PT017


def test_compressed_storages_are_refused(tmp_path):
    """A few bytes would become any number of them."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/data.pkl", tensor_program(count=1 << 20))
        archive.writestr("net/data/0", bytes(4 << 20))
    (tmp_path / "net.pth").write_bytes(content.getvalue())
    refused(tmp_path / "net.pth")


@pytest.mark.parametrize("name", ["net.npz", "net.whl", "net.pth"])
def test_archives_that_unpack_to_too_much_are_refused(tmp_path, name):
    """A thousand bytes may claim to be a million; these claim three billion."""
    members = {"net.npz": "x.npy", "net.whl": "net.pth", "net.pth": "net/data.pkl"}
    path = tmp_path / name
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(members[name], bytes(1000))
        archive.getinfo(members[name]).file_size = 3_000_000_000
    assert "would unpack to 3000000000 bytes" in refused(path)


def test_pickles_in_npz_are_refused(tmp_path):
    np.savez(tmp_path / "net.npz", x=np.array([{}], dtype=object))
    refused(tmp_path / "net.npz")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no weights file '.*net\.pth'"):
        read_state_dict(tmp_path / "net.pth")
