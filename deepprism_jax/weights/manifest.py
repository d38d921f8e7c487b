"""The last file of a checkpoint: with it the checkpoint is complete, else it is none.

It lists the arrays' shapes and the files' sizes and checksums: Orbax finds a cut file
only halfway through a restore, and a changed byte not at all. It appears whole or not
at all, on a file system by renaming and in a bucket by itself, so nothing else of the
protocol needs a directory that can be renamed.

Files are read once for their CRC-32, four at a time, which costs 0.4 s of a core for a
gigabyte. At a restore the processes share the files among them. A bucket keeps
checksums of its own; there only the sizes are noted, and nothing is read back.
"""

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from deepprism_jax.paths import AnyPath, files_below, remote_errors, write_whole
from deepprism_jax.weights.together import first_problem

MANIFEST = "manifest.json"

JSON_ITEMS = ("config", "data")
"""Items that are JSON values; all others are pytrees of arrays."""

Entry = list[int]
"""Size of a file and, where it is kept, its CRC-32."""

Result = TypeVar("Result")


class UnreadableError(Exception):
    """A checkpoint that is half-written, damaged, or of another structure."""


def is_complete(directory: AnyPath) -> bool:
    """Say whether a directory is a checkpoint that was written to its end."""
    with remote_errors(directory):
        return (directory / MANIFEST).exists()


def write_manifest(
    directory: AnyPath, shapes: Mapping[str, Any], score: float | None
) -> None:
    """Complete a directory; one process calls, once all files are there.

    Args:
        directory: holds the files of the items.
        shapes: item to `shapes_of` it.
        score: how good the checkpoint is, if that is known.

    Raises:
        OSError: a file cannot be read, or the manifest not be written.
    """
    names = [name for name in files_below(directory) if name != MANIFEST]
    entries = _of_each(lambda name: _entry(directory / name), names)
    record = {
        "items": dict(shapes),
        "files": dict(zip(names, entries, strict=True)),
        "score": score,
    }
    write_whole(directory / MANIFEST, json.dumps(record))


def read_manifest(directory: AnyPath) -> dict[str, Any]:
    """Return what `write_manifest` wrote: `items`, `files` and `score`, maybe None.

    Raises:
        UnreadableError: it is missing or damaged.
    """
    try:
        with remote_errors(directory):
            record = json.loads((directory / MANIFEST).read_text())
        return {
            "items": dict(record["items"]),
            "files": dict(record["files"]),
            "score": record.get("score"),
        }
    except (OSError, ValueError, KeyError, TypeError):
        raise UnreadableError(f"{MANIFEST} is missing or damaged") from None


def shapes_of(name: str, item: Any) -> dict[str, Any]:
    """Return path in the tree to shape and type, for all arrays of an item."""
    if name in JSON_ITEMS:
        return {}
    leaves, _ = jax.tree_util.tree_flatten_with_path(item)
    return {
        jax.tree_util.keystr(path): [list(x.shape), jnp.dtype(x.dtype).name]
        for path, x in leaves
    }


def verify(directory: AnyPath, targets: Mapping[str, Any]) -> None:
    """Compare targets and files with the manifest; every process must call.

    Each process reads a part of the files, and all of them find what one of them finds.

    Raises:
        UnreadableError: they differ.
    """
    try:
        _compare(directory, targets)
        problem = None
    except (UnreadableError, OSError) as error:
        problem = str(error)
    if problem := first_problem(problem):
        raise UnreadableError(problem)


def _compare(directory: AnyPath, targets: Mapping[str, Any]) -> None:
    manifest = read_manifest(directory)
    shapes, files = manifest["items"], manifest["files"]
    for name, target in targets.items():
        if name not in shapes:
            raise UnreadableError(f"it has no item {name!r}")
        found, expected = shapes[name], shapes_of(name, target)
        for leaf in sorted(found.keys() | expected.keys()):
            there, here = found.get(leaf, "nothing"), expected.get(leaf, "nothing")
            if there != here:
                raise UnreadableError(f"{name}{leaf} is {there} there and {here} here")

    def wanted(file: str) -> bool:
        return "/" not in file or file.split("/")[0] in targets

    listed = set(filter(wanted, files))
    found = set(filter(wanted, files_below(directory)))
    for file in sorted(listed ^ (found - {MANIFEST})):
        state = "missing" if file in listed else f"not in {MANIFEST}"
        raise UnreadableError(f"{file} is {state}")
    mine = sorted(listed)[jax.process_index() :: jax.process_count()]
    entries = _of_each(
        lambda name: _entry(directory / name, checksum=len(files[name]) > 1), mine
    )
    for file, actual in zip(mine, entries, strict=True):
        if actual[0] != files[file][0]:
            raise UnreadableError(f"{file} has {actual[0]} bytes, not {files[file][0]}")
        if actual[1:] != files[file][1 : len(actual)]:
            raise UnreadableError(f"{file} has changed since it was written")


def _entry(path: AnyPath, *, checksum: bool = True) -> Entry:
    """Return the size of a file and, on a file system, its CRC-32, read in pieces."""
    if not isinstance(path, Path):
        with remote_errors(path):
            return [int(path.stat().length)]
    if not checksum:
        return [path.stat().st_size]
    size, crc = 0, 0
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            size, crc = size + len(piece), zlib.crc32(piece, crc)
    return [size, crc]


def _of_each(function: Callable[[str], Result], names: Sequence[str]) -> list[Result]:
    """Return the results for all names, four at a time: zlib lets others run."""
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(function, names))
