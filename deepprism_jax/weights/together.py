"""What several processes must know alike: asked of the first, or of all of them.

Every process must call, in the same order, in its main thread; with one process nothing
is sent.
"""

import json
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils


def from_first(value: Any) -> Any:
    """Return the JSON value that process 0 gave."""
    if jax.process_count() == 1:
        return value
    data = np.frombuffer(json.dumps(value).encode(), np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int32(data.size)))
    padded = np.zeros(length, np.uint8)
    padded[: min(length, data.size)] = data[:length]
    return json.loads(bytes(multihost_utils.broadcast_one_to_all(padded)))


def first_problem(problem: str | None) -> str | None:
    """Return the problem of the lowest process that has one, or None on all."""
    if jax.process_count() == 1:
        return problem
    data = (problem or "").encode()[:_ROOM]
    padded = np.zeros(_ROOM, np.uint8)
    padded[: len(data)] = np.frombuffer(data, np.uint8)
    for row in np.asarray(multihost_utils.process_allgather(padded)):
        if row.any():
            return bytes(row).rstrip(b"\0").decode(errors="replace")
    return None


_ROOM = 1024
"""Bytes of a message that are sent."""
