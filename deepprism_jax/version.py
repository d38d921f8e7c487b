"""Which code made a figure."""

import functools
import hashlib
import inspect
import subprocess
from pathlib import Path
from typing import Any

import deepprism_jax


@functools.cache
def code_version() -> str:
    """Return the version, and in a clone of the repository its commit besides.

    `0.1.0+g1a2b3c4`, with `.changed` behind it where files differ from the commit.
    """
    version, folder = deepprism_jax.__version__, Path(__file__).parent
    if not (folder.parent / ".git").exists():
        return version
    commit = _git(folder, "rev-parse", "--short=7", "HEAD")
    if not commit:
        return version
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no", ".")
    return f"{version}+g{commit}{'.changed' if changed else ''}"


def code_of(thing: Any) -> str:
    """Return a digest of the source file that defines the class of an object.

    It tells what was computed before a change of the code from what was computed after.
    """
    try:
        source = inspect.getsource(inspect.getmodule(type(thing)) or type(thing))
    except (OSError, TypeError):
        return "unknown"
    return hashlib.blake2b(source.encode(), digest_size=4).hexdigest()


def _git(folder: Path, *arguments: str) -> str:
    try:
        found = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.strip()
