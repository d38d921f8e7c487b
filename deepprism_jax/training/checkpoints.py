"""The checkpoints of a run: the newest few, each all or nothing.

Each is a directory `STEP` of separate items: `state` (the training state), `ema` (all
that inference needs), `data` (position of the data) and `config`. Orbax's own
`v1.training.Checkpointer` also manages a sequence, but after a save that failed it
raises that failure again at the next one and forgets which old steps are on disk, so
the sequence is managed here, over the v1 functions that write and read one step.
"""

import contextlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from deepprism_jax.training.preflight import PreflightError
from deepprism_jax.weights.items import (
    DELETED,
    UnreadableError,
    half_written,
    load_items,
    save_items,
    steps,
)


class Checkpoints:
    """Saves and restores the items of a run; every process calls every method.

    Args:
        directory: holds the steps; made by the first save, on a file system that all
            processes share.
        keep: complete checkpoints to keep. One that cannot be read does not count,
            and is not deleted.
        say: told in one line what went wrong and what was done about it.
    """

    def __init__(self, directory: str | Path, *, keep: int, say: Callable[[str], None]):
        self._directory, self._keep, self.say = Path(directory), keep, say
        self._unreadable: set[int] = set()

    @property
    def latest(self) -> int | None:
        """Newest step that has a complete checkpoint, or None."""
        readable = [s for s in steps(self._directory) if s not in self._unreadable]
        return readable[-1] if readable else None

    def save(self, step: int, items: Mapping[str, Any]) -> bool:
        """Save the items of a step and return whether they are on disk.

        A save that fails is told of; what was saved before is intact. A step that is
        there is not written again, unless it could not be read.
        """
        there = step in steps(self._directory)
        if there and step not in self._unreadable:
            return True
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            save_items(self._directory / str(step), items)
        except OSError as error:
            kept = (
                "there is none yet" if self.latest is None else f"it is {self.latest}"
            )
            self.say(
                f"checkpoint {step} could not be saved: {error}; "
                f"the newest checkpoint stays as it was ({kept})"
            )
            return False
        self._unreadable.discard(step)
        if jax.process_index() == 0:
            self._clean()
        return True

    def restore(self, targets: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        """Return the step and the items of the newest checkpoint that can be read.

        Args:
            targets: see `items.load_items`; its shardings need not be those of the
                run that saved.

        Raises:
            PreflightError: there is none.
        """
        for path in half_written(self._directory):
            self.say(f"{path} is a half-written checkpoint; it is ignored")
        found = steps(self._directory)
        problem = "there is none"
        for step in reversed(found):
            try:
                items = load_items(self._directory / str(step), targets)
            except UnreadableError as error:
                problem = f"{step}: {error}"
                self._unreadable.add(step)
                self.say(
                    f"checkpoint {step} cannot be read: {error}; it is left as it is, "
                    "and the one before is tried"
                )
            else:
                return step, items
        raise PreflightError(
            f"no checkpoint in {self._directory} can be read ({problem}); "
            "choose another --workdir to start anew"
        )

    def _clean(self) -> None:
        """Delete the oldest beyond `keep`, and what saves that failed have left."""
        readable = [s for s in steps(self._directory) if s not in self._unreadable]
        rubbish = [*half_written(self._directory), *self._directory.glob(f"*{DELETED}")]
        for path in rubbish:
            shutil.rmtree(path, ignore_errors=True)
        for step in readable[: -self._keep]:
            # Renamed first: a checkpoint half deleted must not look like one.
            doomed = self._directory / f"{step}{DELETED}"
            with contextlib.suppress(OSError):
                (self._directory / str(step)).rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)
