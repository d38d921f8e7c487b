"""A thread beside the run that ends it where it would wait for good.

A collective waits for every process. So when one fails, is killed or hangs, the others
must be ended: with a line that says which one it was and on which host. What was saved
stays, and `--resume` goes on from it.
"""

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator

import jax

from deepprism_jax.training.agreement import AgreedRefusal
from deepprism_jax.training.board import PERIOD, Board
from deepprism_jax.training.ending import (
    BEAT,
    ENDED,
    FAILED,
    end,
    fail,
    follow,
    lost,
)

log = logging.getLogger(__name__)

LOST_AFTER = 60.0
"""Seconds without a sign of life after which a process counts as lost."""

COMPILING = 3600.0
"""Seconds that what is begun for the first time has besides, to be compiled."""

_GRACE = 1.0
"""Seconds that this process has to find out by itself why another one ended."""


class Watchdog:
    """Ends this process if the run cannot go on.

    That is where another process has ended or is lost, and where something that was
    begun takes longer than `timeout`. What is begun for the first time may have to be
    compiled, and has `COMPILING` seconds besides.

    Args:
        board: of the run; None where this process is its only one.
        timeout: seconds; 0 is no limit.
    """

    def __init__(self, board: Board | None = None, *, timeout: float = 0.0):
        self.board, self._timeout = board, timeout
        self.checks: list[Callable[[], None]] = [self._hanging]
        """Called by the thread, four times a second."""
        if board is not None:
            self.checks.append(_Peers(board, lambda: self._doing).check)
        self._doing, self._since, self._limit = "the start", 0.0, 0.0
        self._begun: set[str] = set()
        self._deaf_since: float | None = None
        self._broken = False
        self._closed = threading.Event()

    @contextlib.contextmanager
    def watching(self) -> Iterator["Watchdog"]:
        """Watch over a block, and guard it."""
        thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        thread.start()
        try:
            with self.guarding():
                yield self
        finally:
            self._closed.set()
            thread.join()  # it may be about to end the process

    @contextlib.contextmanager
    def guarding(self) -> Iterator[None]:
        """Let an error of one process in a block end them all.

        Only a refusal that all have agreed on passes, for then all end alike.
        """
        try:
            yield
        except AgreedRefusal:
            raise
        except BaseException as error:
            if self.board is not None:
                fail(self.board, error, doing=self._doing)
            raise

    def begin(self, kind: str, step: int, *, compiled: bool = True) -> None:
        """Say what the run is at from now on: `begin("the evaluation at step", 5)`.

        What is never compiled has no more time at its first.
        """
        self._limit = 0.0  # for the thread, until all is said
        self._doing, self._since = f"{kind} {step}", time.monotonic()
        if self._timeout > 0:
            first = compiled and kind not in self._begun
            self._limit = self._timeout + (COMPILING if first else 0.0)
        self._begun.add(kind)

    def _run(self) -> None:
        while not self._closed.wait(PERIOD):
            try:
                for check in self.checks:
                    check()
                self._deaf_since = None
            except jax.errors.JaxRuntimeError:
                self._bear_silence_of_the_board()
            except Exception as error:  # the others go on being looked after
                if not self._broken:
                    self._broken = True
                    log.warning("the watchdog could not look: %r", error)

    def _bear_silence_of_the_board(self) -> None:
        """Let the board fail for a while: process 0 keeps it, and may be gone."""
        now = time.monotonic()
        self._deaf_since = self._deaf_since or now
        if self.board is not None and now - self._deaf_since > LOST_AFTER:
            end(None, lost(self.board, [0]), FAILED)

    def _hanging(self) -> None:
        took = time.monotonic() - self._since
        if not 0 < self._limit < took:
            return
        name = (
            self.board.name() if self.board else f"process 0 ({socket.gethostname()})"
        )
        line = (
            f"{name}: {self._doing} takes longer than train.step_timeout="
            f"{self._timeout:g} s; the run is ended, and its newest checkpoint stays"
        )
        end(self.board, line, FAILED, doing=self._doing, compare=True)


class _Peers:
    """Gives a sign of life to the other processes, and looks for theirs."""

    def __init__(self, board: Board, doing: Callable[[], str]):
        self._board, self._doing = board, doing
        self._looks = 0
        # All have met before, so that those not heard of count from here on.
        now = time.monotonic()
        self._heard: dict[int, tuple[int, float]] = dict.fromkeys(
            range(board.count), (-1, now)
        )
        self._one_ended: float | None = None

    def check(self) -> None:
        """Look once; the signs of life are of every fourth look."""
        self._follow()
        if self._looks % 4 == 0:
            self._board.post(BEAT, self._looks)
            if self._board.index == 0:
                self._listen()
        self._looks += 1

    def _follow(self) -> None:
        """End if another process has ended, once this one had time to find out why."""
        now = time.monotonic()
        if self._one_ended is None:
            if not self._board.read(ENDED):
                return
            self._one_ended = now
        if now - self._one_ended > _GRACE:
            follow(self._board, doing=self._doing())

    def _listen(self) -> None:
        """End if a process has given no sign of life for long."""
        now, silent, beats = time.monotonic(), [], self._board.read(BEAT)
        for index, (last, since) in self._heard.items():
            beat = beats.get(index, -1)
            if beat != last:
                self._heard[index] = beat, now
            elif now - since > LOST_AFTER:
                silent.append(index)
        if silent:
            end(self._board, lost(self._board, silent), FAILED, doing=self._doing())
