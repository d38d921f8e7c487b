"""Where pretrained weights lie on this machine, and which they are.

In `$DEEPPRISM_WEIGHTS`, or `deepprism_jax/weights` in the user's cache directory, as
`NAME.safetensors` with torch's names and layouts; `acquire` writes them.
"""

import functools
import hashlib
import os
from pathlib import Path

import numpy as np
import safetensors

from deepprism_jax.files import cache_directory
from deepprism_jax.weights import registry
from deepprism_jax.weights.folding import first_misfit
from deepprism_jax.weights.state_dict import read_state_dict


def directory() -> Path:
    """Return the directory of the store, which need not exist."""
    if chosen := os.environ.get("DEEPPRISM_WEIGHTS"):
        return Path(chosen)
    return cache_directory() / "weights"


def place(name: str) -> Path:
    """Return where the weights of that name belong, there or not.

    Raises:
        ValueError: there are none of that name.
    """
    return directory() / f"{registry.entry(name).name}.safetensors"


def find(name: str) -> Path | None:
    """Return the file of that name if it is in the store, whole, and not another's.

    Raises:
        ValueError: there are none of that name.
    """
    path = place(name)
    return path if path.is_file() and fault(name) is None else None


def need(name: str) -> Path:
    """Return the file of that name.

    Raises:
        FileNotFoundError: it is not in the store, or is not what it is called; says how
            to get it.
        ValueError: there are none of that name.
    """
    path = find(name)
    if path is None:
        wrong = fault(name)
        problem = (
            f"{place(name)} is not {name}: {wrong}"
            if wrong
            else f"no weights {name} in {directory()}"
        )
        raise FileNotFoundError(f"{problem}; run {registry.COMMAND} get {name}")
    return path


def fault(name: str) -> str | None:
    """Say what is wrong with the file of that name, None if it is right or not there.

    Its header alone is read: whether the file is whole, and names and shapes of its
    tensors.

    Raises:
        ValueError: there are none of that name.
    """
    path = place(name)
    if not path.exists():
        return None
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            tensors = file.keys()
            found = {t: tuple(file.get_slice(t).get_shape()) for t in tensors}
    except (OSError, safetensors.SafetensorError):
        return "it is damaged or cut off"
    return first_misfit(registry.entry(name).shapes(), found)


def facts(path: str | os.PathLike) -> dict[str, str]:
    """Return what a file of the store says of itself: its source and the checks."""
    with safetensors.safe_open(path, framework="numpy") as file:
        return dict(file.metadata() or {})


def fingerprint(path: str | os.PathLike) -> str:
    """Return 16 hex digits that tell the weights in a file, of any kind, from others.

    They are the beginning of the SHA-256 over names, shapes and numbers in the order of
    the names, floating-point numbers as float32 and others left out: a file and its
    conversion have the same, if the conversion keeps all tensors.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights file {str(path)!r}")
    status = path.stat()
    return _fingerprint(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=32)
def _fingerprint(path: Path, changed: int, size: int) -> str:
    del changed, size  # they tell a file from what it was before
    digest = hashlib.sha256()
    for name, tensor in sorted(read_state_dict(path).items()):
        if np.issubdtype(tensor.dtype, np.floating):
            digest.update(f"{name} {tensor.shape}\n".encode())
            digest.update(np.ascontiguousarray(tensor, "<f4").tobytes())
    return digest.hexdigest()[:16]
