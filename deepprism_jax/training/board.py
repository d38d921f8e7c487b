"""Notes that the processes of a run leave for one another, beside the devices.

They lie in the key-value store of JAX's coordination service, which every run of
several processes has. Reading one waits for nobody, so that a run can agree on
something, or learn that a process is gone, while collectives are under way or stuck.
"""

import json
import math
import socket
import time
from typing import Any

_PREFIX = "deepprism_jax"

PERIOD = 0.25
"""Seconds between two looks at the board."""


class Board:
    """What each process has written, by topic; the newest note of each counts.

    Args:
        store: client of the key-value store.
        index: this process.
        count: all processes.
    """

    def __init__(self, store: Any, index: int, count: int):
        self._store, self.index, self.count = store, index, count
        self._hosts: dict[int, str] = {}
        self.post("host", socket.gethostname())

    def post(self, topic: str, note: Any) -> None:
        """Write a JSON value under a topic, in place of this process's last one."""
        key = f"{_PREFIX}/{topic}/{self.index}"
        self._store.key_value_set(key, json.dumps(note), allow_overwrite=True)

    def read(self, topic: str) -> dict[int, Any]:
        """Return the notes of a topic that are there, by process."""
        entries = self._store.key_value_dir_get(f"{_PREFIX}/{topic}/")
        return {int(key.rpartition("/")[2]): json.loads(note) for key, note in entries}

    def gather(self, topic: str, note: Any, *, patience: float = math.inf) -> list[Any]:
        """Write a note and wait for that of every process; a topic serves only once.

        Where one is lost meanwhile, the watchdog ends this process.

        Raises:
            TimeoutError: they are not all there after `patience` seconds.
        """
        self.post(topic, note)
        deadline = time.monotonic() + patience
        while len(notes := self.read(topic)) < self.count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"no note from all processes on {topic}")
            time.sleep(PERIOD / 5)
        return [notes[index] for index in range(self.count)]

    def name(self, index: int | None = None) -> str:
        """Return what a process is called where people read: `process 1 (host)`."""
        index = self.index if index is None else index
        if index not in self._hosts:
            self._hosts |= self.read("host")
        return f"process {index} ({self._hosts.get(index, 'no host yet')})"


def open_board() -> Board | None:
    """Return the board of this run, or None where this process is its only one."""
    # JAX has no public name for the client; Orbax takes it from the same place.
    from jax._src import distributed

    state = distributed.global_state
    if state.client is None or state.num_processes == 1:
        return None
    return Board(state.client, state.process_id, state.num_processes)
