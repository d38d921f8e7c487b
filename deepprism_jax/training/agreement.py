"""What the processes of a run do together before its work: agree that it can begin."""

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Any

import jax

import deepprism_jax
from deepprism_jax.paths import AnyPath
from deepprism_jax.training import workdir as workdirs
from deepprism_jax.training.board import PERIOD, Board
from deepprism_jax.training.preflight import PreflightError
from deepprism_jax.training.systems import Experiment
from deepprism_jax.weights.items import flatten_names, steps
from deepprism_jax.weights.pretrained import CHECKPOINTS

_PATIENCE = 20.0
"""Seconds after which a process that refuses no longer waits for the others to."""

_VISIBLE = 10.0
"""Seconds in which a file that process 0 has written must be seen by the others."""


class AgreedRefusal(PreflightError):
    """A refusal that every process of the run has come to."""


@contextlib.contextmanager
def refusing_together(board: Board | None, stage: str) -> Iterator[dict[str, Any]]:
    """Let a refusal of one process in a block be one of all, with its number and host.

    The block may fill in the dictionary that it is given: facts, JSON-able, that must
    be the same on all processes. Each stage has a name of its own.

    Raises:
        AgreedRefusal: on all processes, if one refuses, or if the facts differ.
        PreflightError: of a process alone, or if the others do not come to agree.
    """
    facts: dict[str, Any] = {}
    problems: tuple[str, ...] = ()
    try:
        yield facts
    except PreflightError as error:
        if board is None:
            raise
        problems = error.problems
    if board is None:
        return
    note = {"problems": problems, "facts": facts}
    try:
        patience = _PATIENCE if problems else math.inf
        notes = board.gather(f"stage {stage}", note, patience=patience)
    except TimeoutError:  # the others may be waiting for this process elsewhere
        raise PreflightError(*problems) from None
    if found := list(_problems(board, [note["problems"] for note in notes])):
        raise AgreedRefusal(*found)
    for index, note in enumerate(notes[1:], start=1):
        for name, value in note["facts"].items():
            if value != (first := notes[0]["facts"].get(name)):
                raise AgreedRefusal(
                    f"{name} is {value!r} on {board.name(index)} and {first!r} on "
                    f"{board.name(0)}; start all processes alike"
                )


def _problems(board: Board, each: list[list[str]]) -> Iterator[str]:
    """Name every problem once, with its process unless all have it."""
    seen = set()
    for index, problems in enumerate(each):
        for problem in problems:
            if problem in seen:
                continue
            seen.add(problem)
            everywhere = all(problem in other for other in each)
            yield problem if everywhere else f"{board.name(index)}: {problem}"


def common_facts(config: Experiment, workdir: AnyPath, resume: bool) -> dict[str, Any]:
    """Return what all processes must be started with."""
    return {
        "deepprism_jax": deepprism_jax.__version__,
        "jax": jax.__version__,
        "--workdir": str(workdir),
        "--resume": resume,
        "newest checkpoint": (steps(workdir / CHECKPOINTS) or [None])[-1],
        **flatten_names(workdirs.to_dict(config)),
    }


def check_shared(workdir: AnyPath) -> None:
    """Check that this process sees the directory that process 0 has claimed.

    Raises:
        PreflightError: it does not.
    """
    deadline = time.monotonic() + _VISIBLE
    while jax.process_index() > 0:
        try:
            workdirs.read_config(workdir)
            return
        except FileNotFoundError:
            if time.monotonic() > deadline:
                raise PreflightError(
                    f"--workdir {workdir} of process 0 is not seen here; choose one on "
                    "storage that all processes share"
                ) from None
        time.sleep(PERIOD)
