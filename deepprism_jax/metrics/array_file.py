"""Arrays in an .npz file that is written whole or not at all, and read with care."""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from deepprism_jax.files import replacing

# What reading a truncated, damaged or mislabelled file raises.
_BROKEN = (ValueError, EOFError, TypeError, KeyError, zipfile.BadZipFile, zlib.error)


class DamagedError(Exception):
    """A file that is there and is not an .npz of plain arrays."""


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return all arrays of an .npz file; nothing in it is executed.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedError: it cannot be read, or holds Python objects.
    """
    try:
        # NumPy leaves a file that it opened itself open when the archive is broken.
        with path.open("rb") as stream, zipfile.ZipFile(stream):
            stream.seek(0)
            with np.load(stream, allow_pickle=False) as file:
                return {name: file[name] for name in file}
    except FileNotFoundError:
        raise
    except (*_BROKEN, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DamagedError(reason) from error


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an .npz file, in place of what is there, and make its folder.

    Raises:
        OSError: it cannot be written; what was there before is intact.
    """
    with replacing(path) as part, part.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)
