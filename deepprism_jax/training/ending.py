"""How a process ends when it cannot wait for the others: in one line, and at once.

Python's own way out would wait for every process. What was saved stays.
"""

import contextlib
import os
import sys
import threading
import time
import traceback
from typing import Any, NoReturn

import jax

from deepprism_jax.training.board import PERIOD, Board
from deepprism_jax.training.preflight import PreflightError

FAILED, REFUSED, INTERRUPTED = 1, 2, 130
"""Exit codes."""

GRACE = 3.0
"""Seconds in which a process that lives gives a sign of it, and ends if it must."""

ENDED, BEAT = "ended", "beat"
"""Topics of the board."""

_ends = threading.Lock()


def end(
    board: Board | None, line: str, code: int, *, doing: str = "", compare: bool = False
) -> NoReturn:
    """Print why this process ends, leave it for the others, and end.

    Process 0 ends last, for it keeps the board, and prints what the others have left.

    Args:
        board: of the run; None for a process alone.
        line: why; empty if it has been said.
        code: exit code.
        doing: what this process was at.
        compare: say which of the others were at something else.
    """
    _ends.acquire()  # and never released: a second thread that ends waits here
    said = {line, ""}
    with contextlib.suppress(Exception):  # it ends, whether or not it can be said
        _print(line)
    if board is not None:
        with contextlib.suppress(Exception):
            board.post(ENDED, {"line": line, "code": code, "doing": doing})
            deadline = time.monotonic() + GRACE
            left: dict[int, Any] = {}
            while board.index == 0 and time.monotonic() < deadline:
                left = board.read(ENDED)
                if len(left) == board.count:
                    break
                time.sleep(PERIOD)
            for index, note in sorted(left.items()):
                if note["line"] not in said:
                    _print(note["line"])
                elif compare and index != board.index and note["doing"] != doing:
                    _print(f"{board.name(index)} was at {note['doing']}")
                said.add(note["line"])
    os._exit(code)


def follow(board: Board, *, doing: str = "") -> None:
    """End this process if another has ended, and say why that one did."""
    notes = {i: note for i, note in board.read(ENDED).items() if i != board.index}
    if notes:
        first = notes[min(notes)]
        code = first["code"] if first["code"] == REFUSED else FAILED
        end(board, first["line"], code, doing=doing)


def fail(board: Board, error: BaseException, *, doing: str = "") -> NoReturn:
    """End this process for an error that not all processes have had.

    An error of the devices may be but the end of another process: if one has ended or
    gives no sign of life, that is what is said.
    """
    if isinstance(error, KeyboardInterrupt):
        line = f"{board.name()} was interrupted; nothing was saved since the last "
        end(board, line + "checkpoint", INTERRUPTED, doing=doing)
    if isinstance(error, PreflightError):
        lines = (f"error: {board.name()}: {problem}" for problem in error.problems)
        end(board, "\n".join(lines), REFUSED, doing=doing)
    if isinstance(error, (jax.errors.JaxRuntimeError, ValueError)):
        with contextlib.suppress(Exception):
            if silent := _silent(board, doing):
                line = f"{lost(board, silent)} ({_first_line(error)})"
                end(board, line, FAILED, doing=doing)
    with contextlib.suppress(Exception):
        traceback.print_exception(error)
    end(board, f"{board.name()} failed: {_first_line(error)}", FAILED, doing=doing)


def _first_line(error: BaseException) -> str:
    text = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {text}"


def lost(board: Board, silent: list[int]) -> str:
    """Return what is said of processes that give no sign of life."""
    names = " and ".join(board.name(index) for index in silent)
    return (
        f"lost {names}; the run is ended, its newest checkpoint, if there is one, "
        "stays, and --resume goes on from it"
    )


def _silent(board: Board, doing: str) -> list[int]:
    """Return the processes without a sign of life; if one has ended, end as well."""
    before, deadline = board.read(BEAT), time.monotonic() + GRACE
    while time.monotonic() < deadline:
        follow(board, doing=doing)
        time.sleep(PERIOD)
    now = board.read(BEAT)
    others = (i for i in range(board.count) if i != board.index)
    return [i for i in others if before.get(i) == now.get(i)]


def _print(line: str) -> None:
    if line:
        # A progress bar may have hidden the cursor, and stands in the line.
        show = "\r\x1b[K\x1b[?25h" if sys.stderr.isatty() else ""
        print(f"{show}{line}", file=sys.stderr, flush=True)
