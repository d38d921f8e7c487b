"""Keep the memory of a step for the next one, on CPUs under glibc."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


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
