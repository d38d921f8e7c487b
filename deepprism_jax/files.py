"""Files that are written whole or not at all, and where those of the user lie."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary name to write to; rename it to `path` at the end.

    What `path` held before is there until the new file is complete, and stays if the
    block raises, which leaves no other file behind. The folder is made where there is
    none.

    Raises:
        OSError: the folder cannot be made, or the file not renamed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The process is in the name: two evaluations do not write into each other's file.
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file whole or not at all, in UTF-8.

    Raises:
        OSError: it cannot be written; what was there before is intact.
    """
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


def replace_directory(path: Path, new: Path) -> None:
    """Rename the directory `new` to `path` and delete what was there.

    What was there is renamed to `path` + ".deleted" first, and back if the second
    renaming fails: whenever the process is killed, one of the two is complete.

    Raises:
        OSError: `path` could not be replaced; it is as it was.
    """
    old = path.with_name(f"{path.name}.deleted")
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


def cache_directory() -> Path:
    """Return the package's directory in the user's cache, which need not exist.

    That is `deepprism_jax` in `$XDG_CACHE_HOME` or `~/.cache`.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "deepprism_jax"
