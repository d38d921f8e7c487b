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
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors

from deepprism_jax.weights.torch_files import (
    StateDict,
    is_program,
    read_archive,
    read_stream,
)

_ZIP = b"PK"

_LARGEST = 2 << 30
"""Bytes that an archive may unpack to: a small one may claim any number of them."""


_LONGEST = 300
"""Characters of a reason: a name in an untrusted file may have any number of them."""


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
    with opened(path) as content:
        return content.tensors(prefixes)


@dataclass(frozen=True)
class Content:
    """The bytes that tensors are in: of a file, or of the one `.pth` that it wraps.

    A checksum says something of tensors only if both come from the same bytes.
    """

    path: Path
    stream: io.BufferedIOBase

    def sha256(self) -> str:
        """Return the SHA-256 of all bytes."""
        self.stream.seek(0)
        return hashlib.file_digest(self.stream, "sha256").hexdigest()

    def tensors(self, prefixes: tuple[str, ...] = ()) -> StateDict:
        """Return the tensors, and raise, as `read_state_dict` does."""
        with _named(self.path):
            self.stream.seek(0)
            head = self.stream.read(9)
            if head.startswith(_ZIP):
                return _read_zip(self.stream, prefixes)
            if isinstance(self.stream, io.BytesIO):
                self.stream.seek(0)
                size = self.stream.getbuffer().nbytes
                return read_stream(self.stream, size, prefixes)
            if head[8:] == b"{":
                return _read_safetensors(self.path, prefixes)
            number = self.stream.fileno()
            with mmap.mmap(number, 0, access=mmap.ACCESS_READ) as stream:
                return read_stream(stream, len(stream), prefixes)


@contextmanager
def opened(path: str | os.PathLike) -> Iterator[Content]:
    """Open a file; this alone decides what is inside of what.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is an archive that cannot be unpacked; one line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights file {str(path)!r}")
    with path.open("rb") as stream:
        with _named(path):
            inner = _inner(stream)
        yield Content(path, inner or stream)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turn what a damaged archive, header or pickle raises, almost anything."""
    try:
        yield
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        reason = reason if len(reason) <= _LONGEST else f"{reason[:_LONGEST]}..."
        raise ValueError(f"cannot read weights file {path}: {reason}") from error


def _inner(stream: io.BufferedIOBase) -> io.BytesIO | None:
    """Return the one `.pth` in an archive that is not itself a file of torch."""
    if stream.read(len(_ZIP)) != _ZIP or not zipfile.is_zipfile(stream):
        return None
    with _archive(stream) as archive:
        names = archive.namelist()
        inner = [name for name in names if name.endswith(".pth")]
        if len(inner) != 1 or any(map(is_program, names)):
            return None
        return io.BytesIO(archive.read(inner[0]))


def _read_zip(stream: io.BufferedIOBase, prefixes: tuple[str, ...]) -> StateDict:
    with _archive(stream) as archive:
        if any(map(is_program, archive.namelist())):
            return read_archive(archive, prefixes)
    stream.seek(0)
    with np.load(stream) as file:
        return {name: file[name] for name in file if _wanted(name, prefixes)}


def _archive(stream: io.BufferedIOBase) -> zipfile.ZipFile:
    archive = zipfile.ZipFile(stream)
    unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > _LARGEST:
        raise ValueError(f"it would unpack to {unpacked} bytes")
    return archive


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
