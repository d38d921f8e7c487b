"""Names a process that is regularly late: the others can only wait for it.

Steps take the same time everywhere, for their collectives meet. What differs is how
long each process waits for its own data.
"""

from statistics import median

from deepprism_jax.training.board import Board

BEHIND = 0.2
"""Share of its time that a process waits longer for data than the median of all."""

LINES = 3
"""Lines of the log, one after the other, of which that is true."""

_TOPIC = "data wait"


class Stragglers:
    """Compares how long the processes wait for data, at the lines of the log.

    Args:
        board: of the run; None where this process is its only one.
    """

    def __init__(self, board: Board | None):
        self._board = board
        self._own: tuple[int, float] | None = None
        self._times: dict[int, int] = {}
        self._compared = -1
        self._line = ""

    def report(self, step: int, data_wait: float) -> str:
        """Note which share of the time until a step this process waited for data.

        Returns, in process 0 and once for each, a line about one that is late, or "".
        """
        self._own = step, data_wait
        line, self._line = self._line, ""
        return line

    def check(self) -> None:
        """Tell the others and compare; a thread calls it, for the board may be slow."""
        board = self._board
        if board is None:
            return
        if self._own is not None:
            board.post(_TOPIC, self._own)
            self._own = None
        if board.index == 0:
            notes = board.read(_TOPIC)
            steps = {step for step, _ in notes.values()}
            if (
                len(notes) == board.count
                and len(steps) == 1
                and self._compared not in steps
            ):
                (self._compared,) = steps
                self._compare(
                    board, {index: wait for index, (_, wait) in notes.items()}
                )

    def _compare(self, board: Board, waits: dict[int, float]) -> None:
        usual = median(waits.values())
        for index, wait in waits.items():
            late = wait > usual + BEHIND
            self._times[index] = self._times.get(index, 0) + 1 if late else 0
            if self._times[index] == LINES:
                self._line = (
                    f"{board.name(index)} is late: it waits for its data {wait:.0%} of "
                    f"the time, where {usual:.0%} is usual, and the others wait for it"
                )
