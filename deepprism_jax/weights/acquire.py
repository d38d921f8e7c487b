"""Brings pretrained weights into the store: download or file, check, convert."""

import contextlib
import importlib.metadata
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from deepprism_jax.files import replacing
from deepprism_jax.weights import store
from deepprism_jax.weights.download import DownloadError, Watch, download
from deepprism_jax.weights.folding import first_mismatch
from deepprism_jax.weights.registry import Entry, entry
from deepprism_jax.weights.state_dict import opened

try:
    import fcntl
except ImportError:  # Windows: two processes at once download twice
    fcntl = None

MIRROR = "DEEPPRISM_WEIGHTS_URL"
"""Variable that names a directory on a server with the files of the registry."""

_EXPORTS = (".npz", ".safetensors")
_ELSEWHERE = "free some room or name another directory in DEEPPRISM_WEIGHTS"
_LOG = logging.getLogger(__name__)


class AcquireError(Exception):
    """The weights could not be brought; one line with the remedy."""


def acquire(
    name: str,
    *,
    source: str | os.PathLike | None = None,
    address: str | None = None,
    watch: Callable[[int], Watch] | None = None,
) -> Path:
    """Put the weights of that name into the store and return their file.

    Nothing is done if they are there. Another process that wants the same waits, and a
    file takes its final name only when it is complete and has been checked.

    Args:
        name: a name of the registry.
        source: file to take instead of a download: that of the registry, by its
            SHA-256, or an export as `.npz` or `.safetensors`, by names and shapes.
        address: URL to download from instead of the registry's.
        watch: given the size of a download, returns what is told its progress.

    Raises:
        AcquireError: the file could not be had, or is another; says which to bring.
        ValueError: there is no such name.
    """
    wanted = entry(name)
    if source is not None and address is not None:
        raise AcquireError("give a file or an address, not both")
    try:
        with _alone(store.directory()):
            if found := store.find(name):
                return found
            if source is None and not (address or wanted.address):
                source = installed(wanted)
            if source is not None:
                return _take(wanted, Path(source), {"source": Path(source).name})
            return _download(wanted, address or _address(wanted), watch)
    except (DownloadError, OSError, ValueError) as error:
        raise AcquireError(f"cannot get {name}: {error}; {wanted.remedy}") from error


def installed(wanted: Entry) -> Path | None:
    """Return the file in an installed distribution, without importing any of it."""
    if not wanted.package:
        return None
    try:
        files = importlib.metadata.files(wanted.package.partition("==")[0]) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    found = (Path(str(file.locate())) for file in files if file.name == wanted.file)
    return next((path for path in found if path.is_file()), None)


def _address(wanted: Entry) -> str:
    mirror = os.environ.get(MIRROR)
    return f"{mirror.rstrip('/')}/{wanted.file}" if mirror else wanted.address


def _download(
    wanted: Entry, address: str, watch: Callable[[int], Watch] | None
) -> Path:
    if not address:
        raise ValueError("it cannot be downloaded")
    part = store.directory() / f"{wanted.name}-{wanted.sha256[:8]}.part"
    there = part.stat().st_size if part.exists() else 0
    _check_room(part.parent, wanted.size - there + wanted.kept_size)
    told = watch(wanted.size) if watch else None
    while True:
        goes_on = part.exists()
        download(address, part, wanted.size, watch=told)
        try:
            path = _take(wanted, part, {"source": address})
        except ValueError:
            part.unlink()  # it is complete and wrong: nothing to go on from
            if not goes_on:
                raise
            _LOG.warning("an earlier part of %s was wrong; beginning anew", wanted.file)
        else:
            part.unlink()
            return path


def _take(wanted: Entry, path: Path, facts: dict[str, str]) -> Path:
    """Check a file, convert it, and give it its final name."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    with opened(path) as content:
        digest = content.sha256()
        known = digest == wanted.sha256
        if not known and path.suffix not in _EXPORTS:
            raise ValueError(
                f"{facts['source']} is another file: its SHA-256 is {digest}"
            )
        state = wanted.keep(content.tensors(wanted.prefixes))
    if wrong := first_mismatch(wanted.shapes(), state):
        raise ValueError(f"{facts['source']} is not {wanted.name}: {wrong}")
    facts = facts | {
        "name": wanted.name,
        "sha256": digest,
        "checked": "sha256" if known else "names and shapes",
        "stored": " ".join(sorted({str(tensor.dtype) for tensor in state.values()})),
        "licence": wanted.licence,
        "citation": wanted.citation,
    }
    tensors = {name: np.array(t, np.float32, order="C") for name, t in state.items()}
    content = save(tensors, facts)
    final = store.place(wanted.name)
    try:
        with replacing(final) as scratch:
            scratch.write_bytes(content)
    except OSError as error:
        raise _cannot_write(final.parent, error) from error
    return final


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise AcquireError(
            f"{folder} has {free >> 20} MiB free, and {needed >> 20} MiB are needed; "
            f"{_ELSEWHERE}"
        )


def _cannot_write(folder: Path, error: OSError) -> AcquireError:
    reason = error.strerror or str(error)
    return AcquireError(f"cannot write to {folder}: {reason}; {_ELSEWHERE}")


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Make the directory, and let no other process get anything into it meanwhile."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("a")
    except OSError as error:
        raise _cannot_write(folder, error) from error
    with lock:
        if fcntl is not None:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _LOG.warning("waiting for another process that is getting weights")
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError:
                pass  # a file system without locks
        yield
