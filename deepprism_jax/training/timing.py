"""What steps take: seconds, images a second, waits for data, use of the devices."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field


class Stopwatch:
    """Measures time, but for pauses."""

    def __init__(self):
        self._start = time.perf_counter()

    def restart(self) -> float:
        """Return the seconds since the last restart, pauses left out."""
        start, self._start = self._start, time.perf_counter()
        return max(self._start - start, 1e-9)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out the time of a block."""
        begin = time.perf_counter()
        yield
        self._start += time.perf_counter() - begin


@dataclass
class StepTimer:
    """Times the steps between two lines of the log.

    It stands still until `start`, and leaves out steps by `paused` and `skip`, so that
    those that wait for the compiler are in no figure.

    >>> timer = StepTimer(batch_size=64)
    >>> timer.start(1)
    >>> with timer.waiting():
    ...     batch = next(batches)
    >>> timer.read(2)
    {"step_seconds": 0.1, "images_per_second": 640.0, "data_wait": 0.02}
    """

    batch_size: int
    """Images a step, over all devices."""
    ideal_seconds: Callable[[int], float] | None = None
    """What a step would take at the devices' peak; see `training.autoencoder.peak`."""
    running: bool = False
    _since: int = 0
    _waited: float = 0.0
    _stopwatch: Stopwatch = field(default_factory=Stopwatch)

    def start(self, step: int) -> None:
        """Count from the end of step number `step` on."""
        self._restart(step)
        self.running = True

    def skip(self) -> None:
        """Leave out a step whose time was paused."""
        self._since += 1

    def read(self, step: int) -> dict[str, float]:
        """Return the means of the steps since the last reading, and start anew.

        Nothing is returned where there was no step, or no `start`. Some of what
        `data_wait` says was no loss: a device works on the steps that it was given
        before (`loop.IN_FLIGHT`) while the loop waits.
        """
        steps, waited = step - self._since, self._waited
        seconds = self._restart(step)
        if not self.running or steps < 1:
            return {}
        values = {
            "step_seconds": seconds / steps,
            "images_per_second": steps * self.batch_size / seconds,
            "data_wait": min(waited / seconds, 1.0),
        }
        if self.ideal_seconds is not None:
            values["flops_utilization"] = self.ideal_seconds(step) * steps / seconds
        return values

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time of a block as a wait for data."""
        begin = time.perf_counter()
        yield
        self._waited += time.perf_counter() - begin

    def paused(self) -> contextlib.AbstractContextManager[None]:
        """Leave out the time of a block."""
        return self._stopwatch.paused()

    def _restart(self, step: int) -> float:
        self._since, self._waited = step, 0.0
        return self._stopwatch.restart()
