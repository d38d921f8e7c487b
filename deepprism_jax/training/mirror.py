"""Files that grow, of a run whose work directory is in a bucket.

An object cannot be appended to, so what is written line by line is written to a folder
on this machine and copied from there, whole: at most every half minute, after a save
and at the end. A machine that is taken away loses at most what came since; a run that
goes on fetches the files first, and writes anew what came after its checkpoint.
"""

import logging
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from deepprism_jax.paths import AnyPath, files_below, remote_errors
from deepprism_jax.weights.items import root_cause

log = logging.getLogger(__name__)

EVERY = 30.0
"""Seconds between two copies, unless asked for."""


class Mirror:
    """A folder on this machine, and its copy in a bucket; a writer among others.

    Copying goes on in the background; `close` waits for a last copy and deletes the
    folder. It comes last among the writers: it copies what the others have written.

    Args:
        remote: where the files belong.
        names: files and folders to fetch first; none for a run that begins.
        say: told in one line that copying fails, and that it works again.
    """

    def __init__(
        self, remote: AnyPath, names: Sequence[str], *, say: Callable[[str], None]
    ):
        self.local = Path(tempfile.mkdtemp(prefix="deepprism-run-"))
        self._remote, self._say = remote, say
        self._copied: dict[str, tuple[int, int]] = {}
        self._next = time.monotonic() + EVERY
        self._thread: threading.Thread | None = None
        self._problem: str | None = None
        self._said: str | None = None
        self._fetch(names)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Copy, if it is time."""
        self.push()

    def images(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """Copy, if it is time."""
        self.push()

    def text(self, step: int, message: str) -> None:
        """Leave messages to others: one that is told may say that copying fails."""

    def push(self, *, now: bool = False) -> None:
        """Copy what has changed, in the background, if it is time or asked for."""
        if self._thread is not None and self._thread.is_alive():
            return
        self._report()
        if now or time.monotonic() >= self._next:
            self._next = time.monotonic() + EVERY
            self._thread = threading.Thread(target=self._copy, daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Copy what is left, and delete the folder unless that fails."""
        if self._thread is not None:
            self._thread.join()
        self._copy()
        if self._problem is None:
            shutil.rmtree(self.local, ignore_errors=True)
        else:
            # Those who could be told are closed.
            log.warning(
                "log files are left in %s and not copied to %s: %s",
                self.local,
                self._remote,
                self._problem,
            )

    def _report(self) -> None:
        """Say a problem once, and that it is over."""
        if self._problem == self._said:
            return
        self._said = self._problem
        if self._problem is None:
            self._say(f"log files are copied to {self._remote} again")
        else:
            self._say(f"log files are not copied: {self._problem}")

    def _fetch(self, names: Sequence[str]) -> None:
        for name in names:
            there = self._remote / name
            with remote_errors(there):
                if not there.exists():
                    continue
                files = files_below(there) if there.is_dir() else [""]
                for file in files:
                    here = self.local / name / file
                    here.parent.mkdir(parents=True, exist_ok=True)
                    here.write_bytes((there / file if file else there).read_bytes())
                    self._copied[here.relative_to(self.local).as_posix()] = _of(here)

    def _copy(self) -> None:
        try:
            for path in sorted(self.local.rglob("*")):
                name = path.relative_to(self.local).as_posix()
                if not path.is_file() or self._copied.get(name) == (now := _of(path)):
                    continue
                with remote_errors(self._remote):
                    target = self._remote / name
                    # A bucket has no folders, and takes a new one for a name.
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(path.read_bytes())
                self._copied[name] = now
            self._problem = None
        except (OSError, ValueError) as error:
            self._problem = root_cause(error)


def _of(path: Path) -> tuple[int, int]:
    """Return what changes with a file: its size and the time of its last change."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns
