"""Tensors of torch's `.pth` files, without torch and without running what is in them.

Both formats hold a pickle, in which tensors refer to storages, and the storages' raw
bytes: the one since torch 1.6 (2020) as members of a zip archive, the one before it
behind the pickle in the same stream.
"""

import io
import math
import mmap
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from deepprism_jax.weights.torch_pickle import Storage, Tensor, load, natural

StateDict = dict[str, np.ndarray]
"""Tensors by name, in torch's layout (kernels OIHW)."""

MAGIC = 0x1950A86A20F9469CFC6C
"""What the format before torch 1.6 begins with, as a pickle of its own."""


def read_archive(archive: zipfile.ZipFile, prefixes: tuple[str, ...]) -> StateDict:
    """Read the tensors whose names begin so from the format since torch 1.6."""
    (program,) = (name for name in archive.namelist() if is_program(name))
    root = program.removesuffix("data.pkl")
    order = f"{root}byteorder"
    if order in archive.namelist() and archive.read(order) != b"little":
        raise ValueError("it was written by a big-endian machine")

    def read(storage: Storage) -> bytes:
        info = archive.getinfo(f"{root}data/{storage.key}")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != storage.nbytes:
            raise ValueError(
                f"{info.filename} holds {info.file_size} bytes, not {storage.nbytes}"
            )
        return archive.read(info)

    wanted = _select(load(io.BytesIO(archive.read(program))), prefixes)
    parts = [_place(tensors, read(storage)) for storage, tensors in _shared(wanted)]
    return _in_order(wanted, parts)


def is_program(name: str) -> bool:
    """Whether a member of an archive is the pickle of torch's format."""
    return name.rpartition("/")[2] == "data.pkl"


def read_stream(
    stream: mmap.mmap | io.BytesIO, size: int, prefixes: tuple[str, ...]
) -> StateDict:
    """Read the tensors whose names begin so from the format before torch 1.6.

    Args:
        stream: the file, so that reading beyond its end allocates nothing.
        size: its length in bytes.
        prefixes: beginnings of names; none reads all.
    """
    if load(stream) != MAGIC:
        raise ValueError("it does not begin as a file of torch does")
    load(stream)  # the format's version, 1001 ever since there is one
    if not load(stream)["little_endian"]:
        raise ValueError("it was written by a big-endian machine")
    everything = load(stream)
    keys = load(stream)
    if not all(isinstance(key, str) for key in keys):
        raise ValueError("a storage in it has no name")
    wanted = _select(everything, prefixes)
    shared = {storage.key: (storage, ts) for storage, ts in _shared(wanted)}
    sizes = {t.storage.key: t.storage for t in _select(everything, ()).values()}
    parts = []
    for key in keys:
        (count,) = struct.unpack("<q", stream.read(8))
        if key not in sizes:
            raise ValueError(f"storage {key} belongs to no tensor")
        nbytes = sizes[key].nbytes
        if count != sizes[key].count or stream.tell() + nbytes > size:
            raise ValueError(f"storage {key} is cut off or of another size")
        if key in shared:
            parts.append(_place(shared[key][1], stream.read(nbytes)))
        else:
            stream.seek(nbytes, io.SEEK_CUR)
    return _in_order(wanted, parts)


def _select(everything: Any, prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    if not isinstance(everything, Mapping):
        raise ValueError(f"it holds a {type(everything).__name__}, not tensors by name")
    tensors = {
        name: _checked(name, value)
        for name, value in everything.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    if not tensors:
        raise ValueError("it holds no tensors by name")
    return {n: t for n, t in tensors.items() if not prefixes or n.startswith(prefixes)}


def _checked(name: str, tensor: Tensor) -> Tensor:
    """Return the tensor with its numbers checked, its offset that in the file."""
    storage, offset, shape, strides = tensor
    if not isinstance(storage, Storage):
        raise ValueError(f"{name} has no storage")
    (offset,), shape, strides = map(natural, ((offset,), shape, strides))
    if len(shape) != len(strides):
        raise ValueError(f"{name} has {len(shape)} axes and {len(strides)} strides")
    return Tensor(storage, storage.start + offset, shape, strides)


def _shared(
    tensors: Mapping[str, Tensor],
) -> list[tuple[Storage, dict[str, Tensor]]]:
    """Return every storage with the tensors that lie in it."""
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        groups.setdefault(tensor.storage.key, {})[name] = tensor
    return [(next(iter(group.values())).storage, group) for group in groups.values()]


def _place(tensors: Mapping[str, Tensor], content: bytes) -> StateDict:
    """Return the tensors of one storage as arrays of their own."""
    arrays = {}
    for name, (storage, offset, shape, strides) in tensors.items():
        flat = _numbers(content, storage.dtype)
        count = math.prod(shape)
        if count == 0:
            arrays[name] = np.zeros(shape, flat.dtype)
            continue
        last = sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
        # A stride of 0 would make any number of numbers from one.
        if offset + last >= flat.size or count > flat.size:
            raise ValueError(f"{name} of shape {shape} reaches beyond its storage")
        steps = [stride * flat.itemsize for stride in strides]
        view = np.lib.stride_tricks.as_strided(flat[offset:], shape, steps)
        arrays[name] = view.copy()
    return arrays


def _numbers(content: bytes, dtype: str) -> np.ndarray:
    if dtype != "bfloat16":
        return np.frombuffer(content, dtype)
    # NumPy has no such type: it is the upper half of float32.
    halves = np.frombuffer(content, "<u2").astype(np.uint32)
    return (halves << 16).view(np.float32)


def _in_order(names: Mapping[str, Any], parts: list[StateDict]) -> StateDict:
    arrays = {name: array for part in parts for name, array in part.items()}
    if missing := [name for name in names if name not in arrays]:
        raise ValueError(f"the numbers of {missing[0]} are missing")
    return {name: arrays[name] for name in names}
