"""A profiler trace of chosen steps, in the work directory.

Every process traces what it and its devices do, and writes it beside the traces of the
others: WORKDIR/profile/plugins/profile/steps_A_B/HOST_PROCESS.*, where XProf looks for
it (`xprof --logdir WORKDIR/profile`). The `.trace.json.gz` of one process is read by
https://ui.perfetto.dev alone.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
from etils import epath

FOLDER = "profile"
_RUNS = "plugins/profile"


class Profile:
    """Traces the steps from `first` to `last`, both included, counted from 1.

    A context: what is traced when it is left is written. A trace is a help and not the
    run: that it could not be made is said in a line, and the run goes on.

    Args:
        folder: where it is written; made where there is none.
        first, last: the steps; none if `last` is 0.
        say: what is told a line for people.
    """

    def __init__(
        self, folder: epath.PathLike, first: int, last: int, say: Callable[[str], None]
    ):
        self._folder, self._say = folder, say
        self._first, self._last = first, last
        self._scratch: tempfile.TemporaryDirectory[str] | None = None

    def traced(self, step: int, function: Callable[..., Any], *args: Any) -> Any:
        """Return what the function of one step returns; its number counts from 1."""
        if self._scratch is None and self._first <= step <= self._last:
            self._start(step, args)
        if self._scratch is None:
            return function(*args)
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            result = function(*args)
        if step >= self._last:
            jax.block_until_ready(result)
            self._stop()
        return result

    def __enter__(self) -> "Profile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._scratch is not None:
            self._stop()

    def _start(self, step: int, args: Any) -> None:
        jax.block_until_ready(args)  # steps before are not part of it
        options = jax.profiler.ProfileOptions()
        # Every call in Python would be an event, and bury what the devices do.
        options.python_tracer_level = 0
        options.session_id = f"steps_{step}_{self._last}"
        try:
            self._scratch = tempfile.TemporaryDirectory()
            jax.profiler.start_trace(self._scratch.name, profiler_options=options)
        except (OSError, RuntimeError) as error:
            self._give_up(error)

    def _stop(self) -> None:
        assert self._scratch is not None
        try:
            jax.profiler.stop_trace()
            scratch = Path(self._scratch.name)
            for file in sorted(scratch.glob(f"{_RUNS}/*/*")):
                # Processes of one host would all write the same name.
                host, _, ending = file.name.partition(".")
                name = f"{host}_{jax.process_index()}.{ending}"
                target = epath.Path(self._folder) / _RUNS / file.parent.name
                target.mkdir(parents=True, exist_ok=True)
                (target / name).write_bytes(file.read_bytes())
        except (OSError, RuntimeError) as error:
            self._give_up(error)
            return
        self._say(f"a profile is in {self._folder}")
        self._end()

    def _give_up(self, error: Exception) -> None:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        self._say(f"there is no profile: {lines[0]}")
        self._end()

    def _end(self) -> None:
        self._last = 0  # one trace is all
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = None
