"""Ctrl-C and SIGTERM as a request to stop after the current step, of all processes."""

import contextlib
import signal
import socket
import threading
import time
from types import FrameType, TracebackType

from deepprism_jax.training.board import Board
from deepprism_jax.training.ending import INTERRUPTED, end

_ASKED, _CALLS = "stop", "calls before the stop"

_AT_ONCE = 3.0
"""Seconds after a second Ctrl-C in which Python must have heard of it by itself."""


class StopSignals:
    """While entered, SIGINT and SIGTERM set `received` instead of ending the process.

    A second Ctrl-C ends it at once: as KeyboardInterrupt, or by the thread that calls
    `poll` where a step never ends, for then Python does not get to raise it. Outside
    the main thread Python has no signals to handle, and nothing is changed.

    Several processes must stop at the same step, and a signal comes to one of them.
    They count their calls of `agreed`. `poll` tells the others of a signal; each then
    says how many calls it has been through, and holds its next one until all have said
    so. The first call that none has been through is the one that says to stop. Nothing
    of this waits for the devices.

    Args:
        board: of the run; None where this process is its only one.
    """

    def __init__(self, board: Board | None = None):
        self.received: signal.Signals | None = None
        self._board = board
        self._before: dict[signal.Signals, object] = {}
        self._calls = 0
        self._last: int | None = None
        """Calls that all processes go through; the next one says to stop."""
        self._asked = False
        self._agreeing = threading.Condition()
        self._raw: tuple[socket.socket, socket.socket] | None = None
        """Where Python writes the numbers of signals, even while a step never ends."""
        self._wakeup_before = -1
        self._told = False
        """Whether a signal has come to this very process."""
        self._interrupts, self._twice_since = 0, 0.0

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
            self._raw = socket.socketpair()
            for end_of_pair in self._raw:
                end_of_pair.setblocking(False)
            self._wakeup_before = signal.set_wakeup_fd(
                self._raw[1].fileno(), warn_on_full_buffer=False
            )
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
        if self._raw is not None:
            signal.set_wakeup_fd(self._wakeup_before)
            pair, self._raw = self._raw, None
            for end_of_pair in pair:
                end_of_pair.close()

    @property
    def exit_code(self) -> int:
        """128 + number of the signal, as shells say it: the run is not finished."""
        return 128 + int(self.received or 0)

    def agreed(self) -> bool:
        """Say whether the run is to stop here.

        Every process must call at the same places of the run, between steps and between
        batches of an evaluation, and all get the same answer there.
        """
        if self._board is None:
            return self.received is not None
        with self._agreeing:
            while self._asked and self._last is None:
                # With a time limit, for only then does Python handle signals meanwhile.
                self._agreeing.wait(1.0)
            if self._last is not None and self._calls >= self._last:
                return True
            self._calls += 1
            return False

    def poll(self) -> None:
        """Hear whether a process was told to stop, and agree on the call that says so.

        A thread of every process calls it a few times a second.
        """
        self._end_at_once()
        board = self._board
        if board is None or self._last is not None:
            return
        if self.received is not None and not self._asked:
            board.post(_ASKED, int(self.received))
        if not self._asked and not board.read(_ASKED):
            return
        with self._agreeing:
            self._asked = True  # from here on `agreed` waits
        each = board.read(_CALLS)
        if board.index not in each:
            board.post(_CALLS, self._calls)
        if len(each) == board.count:
            # Nobody asks any more who has said how many calls.
            number = max(board.read(_ASKED).values())
            with self._agreeing:
                self.received, self._last = signal.Signals(number), max(each.values())
                self._agreeing.notify_all()

    def _end_at_once(self) -> None:
        """End the process if two Ctrl-C have come and Python has not heard of them."""
        pair = self._raw
        if pair is not None:
            with contextlib.suppress(OSError):  # nothing there, or just closed
                self._interrupts += pair[0].recv(64).count(signal.SIGINT)
        if self._interrupts < 2:
            return
        self._twice_since = self._twice_since or time.monotonic()
        if time.monotonic() - self._twice_since > _AT_ONCE:
            line = "interrupted; nothing was saved since the last checkpoint"
            name = "" if self._board is None else f"{self._board.name()} was "
            end(self._board, name + line, INTERRUPTED)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # What another process was told is no first Ctrl-C here: one that is sent to all
        # comes to some of them only after they have heard of it.
        if self._told and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._told = True
        if self.received is None:
            self.received = signal.Signals(number)
