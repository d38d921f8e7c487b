"""A checkpoint on disk: a directory of separate items, written and read by Orbax.

Arrays are Orbax pytrees; the items named in `JSON_ITEMS` are JSON. Every item can be
read without the others, so inference never touches the optimizer's state. A manifest
of the arrays' shapes and the files' sizes and checksums lies beside them: Orbax finds a
cut file only halfway through a restore, and a changed byte not at all.
"""

import contextlib
import json
import logging
import shutil
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from orbax.checkpoint import v1 as ocp

JSON_ITEMS = ("config", "data")
"""Items that are JSON values; all others are pytrees of arrays."""

MANIFEST = "manifest.json"

_SAVING = ".saving"
DELETED = ".deleted"


class UnreadableError(Exception):
    """A checkpoint that is half-written, damaged, or of another structure."""


def save_items(path: str | Path, items: Mapping[str, Any]) -> None:
    """Write the items under another name and rename: all of them or nothing.

    A directory that is there is replaced, once the new one is complete. Every process
    must call, with the same path on a file system that they share.

    Args:
        path: directory to make; its parent must exist.
        items: name to pytree of arrays, or to a JSON value for `JSON_ITEMS`.

    Raises:
        OSError: the items could not be written; what was there before is intact.
    """
    path = Path(path).absolute()
    saving = path.with_name(path.name + _SAVING)
    try:
        with _orbax():
            ocp.save_checkpointables(str(saving), dict(items), overwrite=True)
        if jax.process_index() == 0:
            manifest = {
                "items": {name: _shapes(name, item) for name, item in items.items()},
                "files": {file: _fingerprint(saving / file) for file in _files(saving)},
            }
            (saving / MANIFEST).write_text(json.dumps(manifest))
            replace_directory(path, saving)
    except (OSError, ValueError, RuntimeError) as error:
        # TensorStore reports a full disk as ValueError("RESOURCE_EXHAUSTED: ...").
        # What it wrote goes, for the room it takes may be what is missing.
        for part in half_written(path.parent, path.name):
            shutil.rmtree(part, ignore_errors=True)
        raise OSError(root_cause(error)) from error


def load_items(path: str | Path, targets: Mapping[str, Any]) -> dict[str, Any]:
    """Read some of the items of a directory; every process must call.

    Args:
        path: directory written by `save_items`.
        targets: name to a pytree of `jax.ShapeDtypeStruct` with shardings, which need
            not be those it was saved with; None for `JSON_ITEMS`.

    Raises:
        UnreadableError: an item is missing, damaged, or does not fit its target.
    """
    path = Path(path).absolute()
    _verify(path, targets)
    try:
        with _orbax():
            return ocp.load_checkpointables(str(path), dict(targets))
    except Exception as error:
        raise UnreadableError(root_cause(error)) from None


def replace_directory(path: Path, new: Path) -> None:
    """Rename the directory `new` to `path` and delete what was there.

    What was there is renamed to `path` + ".deleted" first, and back if the second
    renaming fails: whenever the process is killed, one of the two is complete.

    Raises:
        OSError: `path` could not be replaced; it is as it was.
    """
    old = path.with_name(path.name + DELETED)
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
        path.rename(old)
    try:
        new.rename(path)
    except OSError:
        with contextlib.suppress(OSError):
            old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def steps(directory: str | Path) -> list[int]:
    """Return the steps that have a complete checkpoint, oldest first."""
    directory = Path(directory)
    if not directory.is_dir():
        return []
    return sorted(int(p.name) for p in directory.iterdir() if p.name.isdecimal())


def half_written(directory: str | Path, name: str = "*") -> list[Path]:
    """Return what saves that did not finish have left."""
    return sorted(Path(directory).glob(f"{name}{_SAVING}*"))


def flatten_names(tree: Mapping[Any, Any]) -> dict[str, Any]:
    """Return nested dictionaries as one, with dotted names: `encoder.conv_in.bias`."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{name}": x for name, x in flatten_names(value).items()}
        else:
            flat[str(key)] = value
    return flat


def root_cause(error: BaseException) -> str:
    """Return the first line of the error that started the chain."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else type(error).__name__
    # TensorStore nests its messages: what went wrong comes last, where at first.
    return text if len(text) <= 250 else f"{text[:80]} ... {text[-160:]}"


def _files(directory: Path) -> list[str]:
    files = (p for p in directory.rglob("*") if p.is_file())
    return sorted(p.relative_to(directory).as_posix() for p in files)


def _fingerprint(path: Path) -> list[int]:
    """Return size and CRC-32 of a file, read in pieces."""
    size, checksum = 0, 0
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            size, checksum = size + len(piece), zlib.crc32(piece, checksum)
    return [size, checksum]


def _shapes(name: str, item: Any) -> dict[str, Any]:
    """Return path in the tree to shape and type, for all arrays of an item."""
    if name in JSON_ITEMS:
        return {}
    leaves, _ = jax.tree_util.tree_flatten_with_path(item)
    return {
        jax.tree_util.keystr(path): [list(x.shape), jnp.dtype(x.dtype).name]
        for path, x in leaves
    }


def _verify(path: Path, targets: Mapping[str, Any]) -> None:
    """Compare targets and files with the manifest, before Orbax reads an array."""
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        shapes, files = manifest["items"], manifest["files"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UnreadableError(f"{MANIFEST} is missing or damaged") from None
    for name, target in targets.items():
        if name not in shapes:
            raise UnreadableError(f"it has no item {name!r}")
        found, expected = shapes[name], _shapes(name, target)
        for leaf in sorted(found.keys() | expected.keys()):
            there, here = found.get(leaf, "nothing"), expected.get(leaf, "nothing")
            if there != here:
                raise UnreadableError(f"{name}{leaf} is {there} there and {here} here")

    def wanted(file: str) -> bool:
        return "/" not in file or file.split("/")[0] in targets

    listed, found = set(filter(wanted, files)), set(filter(wanted, _files(path)))
    for file in sorted(listed ^ (found - {MANIFEST})):
        state = "missing" if file in listed else f"not in {MANIFEST}"
        raise UnreadableError(f"{file} is {state}")
    for file in sorted(listed):
        (size, checksum), actual = files[file], _fingerprint(path / file)
        if actual[0] != size:
            raise UnreadableError(f"{file} has {actual[0]} bytes, not {size}")
        if actual[1] != checksum:
            raise UnreadableError(f"{file} has changed since it was written")


@contextlib.contextmanager
def _orbax() -> Iterator[None]:
    """Name the JSON items to Orbax, and keep its tracebacks out of the log."""
    registry = ocp.handlers.local_registry()
    for name in JSON_ITEMS:
        registry.add(ocp.handlers.JsonHandler, checkpointable_name=name)
    context = ocp.Context()
    context.checkpointables.registry = registry
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with context:
            yield
    finally:
        log.setLevel(level)
