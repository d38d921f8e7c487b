"""The malloc of a program, and that it keeps the memory of a step for the next."""

import contextlib
import ctypes
import os
import sys
from pathlib import Path

OPT_OUT = "DEEPPRISM_TCMALLOC"
"""An environment variable: `0` leaves malloc as it is."""
HINT = "TCMalloc (Debian: apt install libtcmalloc-minimal4) makes small steps faster"

_PRELOAD = "LD_PRELOAD"
_TCMALLOC = ("libtcmalloc_minimal.so.4", "libtcmalloc.so.4")
_OTHERS = {"tcmalloc": "TCMalloc", "jemalloc": "jemalloc", "mimalloc": "mimalloc"}
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def start_with_tcmalloc() -> None:
    """Start this program anew, once, with TCMalloc in the place of glibc's malloc.

    A call of a compiled program takes and frees small blocks for every array of a
    training state, beside the large temporaries of the step. In glibc's one heap they
    get into each other's way: it looks for blocks in a heap in pieces, and grows where
    the pieces are too small. A malloc can only be replaced when a program starts, and
    this one starts again as it was: the same process, arguments and streams. Call it
    first, from a script alone. Nothing happens where TCMalloc is not installed or not
    for this platform, another malloc is preloaded, or `DEEPPRISM_TCMALLOC=0`; nor where
    the process is not the script's own: in a notebook, a debugger or a tracer.
    """
    preloaded = os.environ.get(_PRELOAD, "")
    replaced = any(name in preloaded for name in _OTHERS)
    if sys.platform != "linux" or replaced or os.environ.get(OPT_OUT) == "0":
        return
    if not _owns_process():
        return
    for library in filter(_loads, _TCMALLOC):
        environment = {
            "TCMALLOC_LARGE_ALLOC_REPORT_THRESHOLD": str(2**62),  # no word of each
            **os.environ,
            _PRELOAD: f"{preloaded} {library}".strip(),
        }
        command = [sys.executable, *sys.orig_argv[1:]]
        with contextlib.suppress(OSError):  # not to be had: slower, and no less right
            os.execve(sys.executable, command, environment)


def allocator() -> str | None:
    """Name the malloc in use: TCMalloc, jemalloc, mimalloc, glibc; None if unknown."""
    try:
        mapped = Path("/proc/self/maps").read_text()
        glibc = os.confstr("CS_GNU_LIBC_VERSION")
    except (OSError, AttributeError, ValueError):  # not Linux, or another C library
        return None
    preloaded = os.environ.get(_PRELOAD, "")
    for name, title in _OTHERS.items():
        if name in preloaded and name in mapped:  # else the loader did not find it
            return title
    return "glibc" if glibc else None


def keep_memory() -> bool:
    """Tell glibc's malloc not to return large blocks to the system; False elsewhere.

    XLA asks for the temporaries of a step anew each time. By default glibc maps them
    afresh and the step spends up to half its time on page faults. The price is that the
    process keeps what it once needed. Call it before the first computation.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library, such as musl
        return False
    return all(
        mallopt(option, value)
        for option, value in (
            (_M_MMAP_MAX, 0),
            (_M_TRIM_THRESHOLD, 2**31 - 1),
            (_M_ARENA_MAX, 1),
        )
    )


def _owns_process() -> bool:
    """Whether starting the process again starts the script again, and nothing else."""
    begun_as_it = sys.orig_argv[-len(sys.argv) :] == sys.argv
    traced = sys.gettrace() is not None or "pydevd" in sys.modules
    return begun_as_it and sys.argv[0] not in ("", "-") and not traced


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
