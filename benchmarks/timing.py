"""Times of several subjects that take turns, so that a busy machine slows all alike."""

import os
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import jax

Run = Callable[[], Any]
Pair = tuple[Run, Run]
"""A forward pass, and one with all gradients; both return tuples of arrays."""

Name = TypeVar("Name", bound=Hashable)

_FEWEST_BURSTS = 3


@dataclass(frozen=True)
class Timing:
    """How long to measure."""

    seconds: float = 0.05
    """Least time of a burst of calls."""
    bursts: int = 9
    """Bursts of each subject, in turn; the median counts."""
    budget: float = 6.0
    """Seconds after which a slow subject rests; it has three bursts at least."""
    clock: Literal["auto", "wall", "processor"] = "auto"
    """`processor` leaves out other programs; `auto` takes it on one core of a CPU."""

    def __post_init__(self) -> None:
        if self.bursts < 1:
            raise SystemExit(f"error: --bursts {self.bursts}: at least one is needed")

    @property
    def clock_used(self) -> Literal["wall", "processor"]:
        """The clock that `auto` means here."""
        if self.clock != "auto":
            return self.clock
        # Threads that wait for each other may spin, which is no work: so not on many.
        # And a processor waits for an accelerator.
        alone = cores() == 1 and jax.default_backend() == "cpu"
        return "processor" if alone else "wall"


def cores() -> int:
    """Cores that this process may use, which `taskset` sets."""
    return len(os.sched_getaffinity(0))


def interleave(subjects: Mapping[Name, Run], timing: Timing) -> dict[Name, float]:
    """Return the median milliseconds of a call of each.

    A run returns when its work is done. The first call of each, which may compile, is
    not counted.
    """
    clock = {"wall": time.perf_counter, "processor": time.process_time}
    now = clock[timing.clock_used]
    for run in subjects.values():
        run()
    found: dict[Name, list[float]] = {name: [] for name in subjects}
    spent = dict.fromkeys(subjects, 0.0)
    fewest = min(_FEWEST_BURSTS, timing.bursts)
    for number in range(timing.bursts):
        for name, run in subjects.items():
            if number < fewest or spent[name] < timing.budget:
                start = time.perf_counter()
                found[name].append(_burst(run, timing.seconds, now))
                spent[name] += time.perf_counter() - start
    return {name: 1e3 * statistics.median(times) for name, times in found.items()}


def measure(subjects: Sequence[Any], timing: Timing) -> None:
    """Fill in the `milliseconds` of the `runs` of all subjects, which take turns."""
    runs = {
        (number, part): run
        for number, subject in enumerate(subjects)
        for part, run in subject.runs.items()
    }
    for (number, part), milliseconds in interleave(runs, timing).items():
        subjects[number].milliseconds[part] = milliseconds


def held(step: Callable[[Any], Any], state: Any) -> Run:
    """Return a run that puts a state in and keeps the one that comes out.

    It waits for one array: those of a program are there together, and to ask for each
    of a thousand would be timed as well.
    """
    states = [state]

    def run() -> Any:
        states.append(step(states.pop()))
        return jax.block_until_ready(jax.tree.leaves(states)[0])

    return run


def _burst(run: Run, least: float, now: Callable[[], float]) -> float:
    """Seconds a call, over calls that take at least so long."""
    calls, end, start = 0, time.perf_counter() + least, now()
    while not calls or time.perf_counter() < end:
        run()
        calls += 1
    return (now() - start) / calls
