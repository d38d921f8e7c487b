"""Tensors by name from any file that weights come in: one function for all of them.

It reads `.npz`, `.safetensors`, torch's `.pth` in both of its formats, and an archive
(`.whl`, `.zip`) with exactly one `.pth` in it. The content says what a file is. Nothing
in a file is ever run, and torch is not needed.
"""

import hashlib
import io
import mmap
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import safetensors

from deepprism_jax.weights.torch_files import (
    StateDict,
    is_program,
    read_archive,
    read_stream,
)

_PIECE = 1 << 20

_LARGEST = 2 << 30
"""Bytes that an archive may unpack to: a small one may claim any number of them."""


def read_state_dict(
    path: str | os.PathLike, prefixes: tuple[str, ...] = ()
) -> StateDict:
    """Read the tensors of a file whose names begin so; without prefixes, all.

    Names, shapes and types are those of the file, but for bfloat16, which becomes
    float32. Tensors that are not asked for are not loaded.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is of another kind, damaged, cut off, or a pickle in it asks for
            more than tensors; one line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights file {str(path)!r}")
    # What a damaged archive, header or pickle raises can be almost anything.
    try:
        with path.open("rb") as stream:
            return _read(path, stream, prefixes)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"cannot read weights file {path}: {reason}") from error


def sha256(path: str | os.PathLike) -> str:
    """Return the SHA-256 of a file, or of the one `.pth` inside of an archive."""
    digest = hashlib.sha256()
    with _unpacked(Path(path)) as stream:
        while piece := stream.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _read(
    path: Path, stream: io.BufferedIOBase, prefixes: tuple[str, ...]
) -> StateDict:
    head = stream.read(9)
    stream.seek(0)
    if head.startswith(b"PK"):
        return _read_zip(stream, prefixes)
    if head[8:] == b"{":
        return _read_safetensors(path, prefixes)
    with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return read_stream(content, len(content), prefixes)


def _read_zip(stream: io.BufferedIOBase, prefixes: tuple[str, ...]) -> StateDict:
    with zipfile.ZipFile(stream) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > _LARGEST:
            raise ValueError(f"it would unpack to {unpacked} bytes")
        if any(is_program(name) for name in archive.namelist()):
            return read_archive(archive, prefixes)
        if inner := _inner(archive):
            content = archive.read(inner)
            if content.startswith(b"PK"):
                return _read_zip(io.BytesIO(content), prefixes)
            return read_stream(io.BytesIO(content), len(content), prefixes)
    stream.seek(0)
    with np.load(stream) as file:
        return {name: file[name] for name in file if _wanted(name, prefixes)}


def _read_safetensors(path: Path, prefixes: tuple[str, ...]) -> StateDict:
    with safetensors.safe_open(path, framework="numpy") as file:
        names = [name for name in file.keys() if _wanted(name, prefixes)]  # noqa: SIM118
        tensors = {name: file.get_tensor(name) for name in names}
    return {
        name: tensor.astype(np.float32) if tensor.dtype.name == "bfloat16" else tensor
        for name, tensor in tensors.items()
    }


def _wanted(name: str, prefixes: tuple[str, ...]) -> bool:
    return not prefixes or name.startswith(prefixes)


def _inner(archive: zipfile.ZipFile) -> str | None:
    """Return the name of the one `.pth` that an archive is the wrapping of."""
    inner = [name for name in archive.namelist() if name.endswith(".pth")]
    return inner[0] if len(inner) == 1 else None


@contextmanager
def _unpacked(path: Path) -> Iterator[io.BufferedIOBase | IO[bytes]]:
    """Open a file, or the one `.pth` inside of it."""
    with path.open("rb") as stream:
        if zipfile.is_zipfile(stream):
            with zipfile.ZipFile(stream) as archive:
                if inner := _inner(archive):
                    with archive.open(inner) as member:
                        yield member
                    return
        stream.seek(0)
        yield stream
