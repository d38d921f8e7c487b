"""Ctrl-C and SIGTERM as a request to stop after the current step."""

import signal
import threading
from types import FrameType, TracebackType

import jax
import numpy as np
from jax.experimental import multihost_utils


class StopSignals:
    """While entered, SIGINT and SIGTERM set `received` instead of ending the process.

    A second Ctrl-C ends it at once, as KeyboardInterrupt, for a step that never ends.
    Outside the main thread Python has no signals to handle, and nothing is changed.
    """

    def __init__(self):
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]
        self._before.clear()

    @property
    def exit_code(self) -> int:
        """128 + number of the signal, as shells say it: the run is not finished."""
        return 128 + int(self.received or 0)

    def agreed(self, *, together: bool = True) -> bool:
        """Say whether the run is to stop.

        Several processes must stop at the same step, so there a signal counts only when
        all of them call with `together`, and then for all.
        """
        if jax.process_count() == 1:
            return self.received is not None
        if not together:
            return False
        number = np.int32(self.received or 0)
        highest = int(np.max(multihost_utils.process_allgather(number)))
        self.received = signal.Signals(highest) if highest else None
        return self.received is not None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)
