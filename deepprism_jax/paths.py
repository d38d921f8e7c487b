"""Paths on this machine and in a bucket: `gs://bucket/run` beside `runs/run`.

`pathlib` turns `gs://bucket` into `gs:/bucket`, so whatever may lie in a bucket goes
through `as_path`. A bucket is no file system: an object appears whole or not at all,
nothing is appended to, and a folder is neither made nor renamed.
"""

import contextlib
import functools
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

from etils import epath

from deepprism_jax import files

AnyPath = Path | epath.Path
"""A local path, or one in a bucket: their methods are alike."""

PathLike = str | os.PathLike[str]


def is_remote(path: PathLike) -> bool:
    """Say whether a path names an object store."""
    return "://" in os.fspath(path)


def as_path(path: PathLike) -> AnyPath:
    """Return the path as what can read and write it.

    Raises:
        ValueError: it is remote and not in a bucket of Google Cloud Storage, or what
            reaches one is not installed.
    """
    text = os.fspath(path)
    if not is_remote(text):
        return Path(text)
    if not text.startswith("gs://"):
        scheme = text.partition("://")[0]
        raise ValueError(
            f"{text}: {scheme}:// is not supported; give gs://BUCKET/FOLDER, or mount "
            "the storage and give the folder"
        )
    _need_client(text)
    return epath.Path(text)


def absolute(path: PathLike) -> AnyPath:
    """Return the path from the root on; see `as_path`."""
    path = as_path(path)
    return path.absolute() if isinstance(path, Path) else path


def check_reachable(path: PathLike) -> None:
    """Ask a bucket for a path, which need not exist; a local path passes.

    Raises:
        ValueError: see `as_path`.
        OSError: the bucket does not answer, or not to this user.
    """
    if is_remote(path):
        with remote_errors(path):
            as_path(path).exists()


@contextlib.contextmanager
def remote_errors(path: PathLike) -> Iterator[None]:
    """Turn whatever a client of a bucket raises into OSError, in one line."""
    try:
        yield
    except (OSError, ValueError):
        raise
    except Exception as error:
        if not is_remote(path):
            raise
        first = (str(error).strip().splitlines() or [""])[0]
        raise OSError(
            f"{os.fspath(path)} cannot be reached: {type(error).__name__}: {first}; "
            "see that the bucket exists and that this machine may use it"
        ) from error


def write_whole(path: AnyPath, content: str | bytes) -> None:
    """Write a file whole or not at all, text in UTF-8.

    Raises:
        OSError: it cannot be written; what was there before is intact.
    """
    data = content.encode() if isinstance(content, str) else content
    if isinstance(path, Path):
        with files.replacing(path) as part:
            part.write_bytes(data)
    else:
        try:
            with remote_errors(path):
                path.write_bytes(data)
        except FileNotFoundError as error:  # whose text is the address of a server
            raise OSError(
                f"{path} cannot be written; see that the bucket exists and that this "
                "machine may write to it"
            ) from error


def remove_tree(path: AnyPath) -> None:
    """Delete a folder and all in it, as far as that is possible."""
    with contextlib.suppress(OSError), remote_errors(path):
        epath.Path(path).rmtree(missing_ok=True)


def files_below(directory: AnyPath) -> list[str]:
    """Return the files at any depth, sorted, by their names from the directory on."""
    found = []
    with remote_errors(directory):
        for folder, _, names in epath.Path(directory).walk():
            found += [os.path.join(folder, name) for name in names]
    # A bucket gives the names without "gs://", and may hold a folder's marker.
    inside = os.fspath(directory).partition("://")[2] or os.fspath(directory)
    names = (name.partition(inside.rstrip("/"))[2].strip("/") for name in found)
    return sorted(filter(None, names))


@functools.cache
def _need_client(path: str) -> None:
    for module in ("gcsfs", "tensorflow"):
        if importlib.util.find_spec(module) is not None:
            break
    else:
        raise ValueError(
            f"{path}: paths in a bucket need gcsfs; pip install 'deepprism-jax[gcs]', "
            "or mount the bucket and give the folder"
        )
    if module == "gcsfs":
        # What TensorStore writes goes past gcsfs, which must not remember listings.
        config = importlib.import_module("fsspec.config")
        for name in ("gcs", "gs"):
            config.conf.setdefault(name, {}).setdefault("use_listings_cache", False)
