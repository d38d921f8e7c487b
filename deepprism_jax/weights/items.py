"""A checkpoint on disk: a directory of separate items, written and read by Orbax.

Arrays are Orbax pytrees; the items named in `JSON_ITEMS` are JSON, those of process 0.
Every item can be read without the others, so inference never touches the optimizer's
state. A directory is a checkpoint once its manifest is there, which is written last.
"""

import contextlib
import functools
import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from deepprism_jax.paths import (
    AnyPath,
    PathLike,
    absolute,
    as_path,
    is_remote,
    remote_errors,
    remove_tree,
)
from deepprism_jax.weights.manifest import (
    JSON_ITEMS,
    MANIFEST,
    UnreadableError,
    is_complete,
    shapes_of,
    verify,
    write_manifest,
)
from deepprism_jax.weights.together import first_problem

_REMAINS = (".orbax-checkpoint-tmp", ".saving", ".deleted")
"""In names of what a save that did not finish has left, of earlier versions too."""


class Saving:
    """A save that goes on in the background: written, completed, then `after`."""

    def __init__(self, finish: Callable[[], None], log: contextlib.ExitStack):
        self._problem: str | None = None
        self._thread = threading.Thread(
            # A process that must end does not wait: what is cut off is no checkpoint.
            target=self._run,
            args=(finish, log),
            name="checkpoint",
            daemon=True,
        )
        self._thread.start()

    def join(self, seconds: float | None = None) -> None:
        """Wait for what this process does, at most some seconds."""
        self._thread.join(seconds)

    def result(self) -> None:
        """Wait for the end; every process must call.

        Raises:
            OSError: some process could not write its part, so there is no checkpoint.
        """
        self.join()
        if problem := first_problem(self._problem):
            raise OSError(problem)

    def _run(self, finish: Callable[[], None], log: contextlib.ExitStack) -> None:
        with log:
            try:
                finish()
            # In a thread nobody would see it; TensorStore reports a full disk as
            # ValueError("RESOURCE_EXHAUSTED: ...").
            except Exception as error:
                self._problem = root_cause(error)


def save_items(path: PathLike, items: Mapping[str, Any]) -> None:
    """Write the items and wait for them; see `save_items_async`."""
    save_items_async(path, items).result()


def save_items_async(
    path: PathLike,
    items: Mapping[str, Any],
    *,
    score: float | None = None,
    after: Callable[[], None] | None = None,
) -> Saving:
    """Copy the items to the host and write them in the background, all or nothing.

    The arrays may be donated or changed as soon as this returns. A directory that is
    there is deleted first. Every process must call, with the same path on storage that
    they share.

    Args:
        path: directory to make.
        items: name to pytree of arrays, or to a JSON value for `JSON_ITEMS`.
        score: noted in the manifest.
        after: called in the background by process 0 once the directory is complete.

    Raises:
        OSError: the items could not be written; nothing of them is left.
    """
    path = absolute(path)
    shapes = {name: shapes_of(name, item) for name, item in items.items()}
    # What is written later must not change with what the caller goes on with.
    items = {
        name: json.loads(json.dumps(item)) if name in JSON_ITEMS else item
        for name, item in items.items()
    }
    with contextlib.ExitStack() as stack:
        stack.enter_context(quiet())
        all_or_none(functools.partial(_make_room, path))
        with _orbax():
            start = functools.partial(ocp.save_checkpointables_async, str(path), items)
            writing = all_or_none(start, functools.partial(discard, path))
        finish = functools.partial(_finish, path, writing, shapes, score, after)
        return Saving(finish, stack.pop_all())


def _make_room(path: AnyPath) -> None:
    """Delete what is there, and make the directory that it is to be in."""
    if jax.process_index() == 0:
        discard(path)
        if not is_remote(path):
            path.parent.mkdir(parents=True, exist_ok=True)


def all_or_none(
    function: Callable[[], Any], undo: Callable[[], None] | None = None
) -> Any:
    """Return the result of a function that no process failed at.

    Raises:
        OSError: one has failed, so all of them do; process 0 has called `undo`.
    """
    result, problem = None, None
    try:
        result = function()
    except Exception as error:
        problem = root_cause(error)
    if problem := first_problem(problem):
        if undo is not None and jax.process_index() == 0:
            undo()
        raise OSError(problem)
    return result


def _finish(
    path: AnyPath,
    writing: Any,
    shapes: dict[str, Any],
    score: float | None,
    after: Callable[[], None] | None,
) -> None:
    """Complete a checkpoint once all processes have written their parts of it."""
    first = jax.process_index() == 0
    try:
        # Orbax lets the processes wait for each other before this returns.
        writing.result()
        if first:
            write_manifest(path, shapes, score)
    except Exception:
        # What was written goes, for the room it takes may be what is missing.
        if first:
            discard(path)
        raise
    if first and after is not None:
        after()


def load_items(path: PathLike, targets: Mapping[str, Any]) -> dict[str, Any]:
    """Read some of the items of a directory; every process must call.

    Args:
        path: directory written by `save_items`.
        targets: name to a pytree of `jax.ShapeDtypeStruct` with shardings, which need
            not be those it was saved with; None for `JSON_ITEMS`.

    Raises:
        UnreadableError: an item is missing, damaged, or does not fit its target.
    """
    path = absolute(path)
    verify(path, targets)
    load = functools.partial(ocp.load_checkpointables, str(path), dict(targets))
    try:
        with quiet(), _orbax():
            return all_or_none(load)
    except OSError as error:
        raise UnreadableError(str(error)) from None


def discard(path: AnyPath) -> None:
    """Delete a checkpoint and what a save to that name has left.

    The manifest goes first: whenever the process is killed, it is complete or none.
    """
    with contextlib.suppress(OSError), remote_errors(path):
        (path / MANIFEST).unlink(missing_ok=True)
    remove_tree(path)
    for part in leftovers(path.parent):
        if part.name.partition(".")[0] == path.name:
            remove_tree(part)


def steps(directory: PathLike) -> list[int]:
    """Return the steps that have a complete checkpoint, oldest first."""
    found = (p for p in _entries(as_path(directory)) if p.name.isdecimal())
    return sorted(int(path.name) for path in found if is_complete(path))


def leftovers(directory: PathLike) -> list[AnyPath]:
    """Return what saves that did not finish have left."""
    return sorted(
        path
        for path in _entries(as_path(directory))
        if any(part in path.name for part in _REMAINS)
        or (path.name.isdecimal() and not is_complete(path))
    )


def _entries(directory: AnyPath) -> list[AnyPath]:
    """Return what is in a directory, nothing where there is none."""
    with remote_errors(directory):
        return list(directory.iterdir()) if directory.is_dir() else []


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


@contextlib.contextmanager
def _orbax() -> Iterator[None]:
    """Name the JSON items to Orbax."""
    registry = ocp.handlers.local_registry()
    for name in JSON_ITEMS:
        registry.add(ocp.handlers.JsonHandler, checkpointable_name=name)
    context = ocp.Context()
    context.checkpointables.registry = registry
    # Below that it costs more to cut an array than to let one device write it all.
    context.array_options.saving.min_slice_bytes_for_replica_parallel = 1 << 20
    with context:
        yield


_quieting = threading.Lock()
_loud: list[int] = []


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Orbax's tracebacks out of the log; blocks of several threads may overlap."""
    log = logging.getLogger("absl")
    with _quieting:
        _loud.append(log.level if not _loud else _loud[0])
        log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        with _quieting:
            level = _loud.pop()
            if not _loud:
                log.setLevel(level)
