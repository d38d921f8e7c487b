"""Where numbers, pictures and notes of a run go: JSONL, TensorBoard, PNG, console.

A writer is four methods; `Writers` hands everything to several. Only process 0 has any.
"""

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import (  # its names are made at run time
    Event,  # pyright: ignore[reportAttributeAccessIssue]
    SessionLog,  # pyright: ignore[reportAttributeAccessIssue]
)

from deepprism_jax.training.mirror import Mirror


@runtime_checkable
class Writer(Protocol):
    """What a run reports to."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write numbers measured at a step, by name."""
        ...

    def images(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """Write pictures made at a step: name to uint8 [height, width, 3]."""
        ...

    def text(self, step: int, message: str) -> None:
        """Write one line for people."""
        ...

    def close(self) -> None:
        """Write what is left and release files."""
        ...


class Writers:
    """Hands everything to several writers, and outlives those that fail.

    A full disk is no reason to lose a run: a writer that raises OSError is named once,
    by the `text` of the others, and left out until the end.
    """

    def __init__(self, writers: Sequence[Writer]):
        self._writers = list(writers)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write numbers measured at a step, by name."""
        self._each(step, lambda writer: writer.scalars(step, values))

    def images(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """Write pictures made at a step: name to uint8 [height, width, 3]."""
        self._each(step, lambda writer: writer.images(step, pictures))

    def text(self, step: int, message: str) -> None:
        """Write one line for people."""
        self._each(step, lambda writer: writer.text(step, message))

    def advance(self, step: int) -> None:
        """Move the progress bar, if any, to a step."""
        for writer in self._writers:
            if isinstance(writer, ConsoleWriter):
                writer.advance(step)

    def sync(self) -> None:
        """Bring files to where they belong, if they are written elsewhere."""
        for writer in self._writers:
            if isinstance(writer, Mirror):
                writer.push(now=True)

    def close(self) -> None:
        """Close all of them."""
        self._each(-1, lambda writer: writer.close())

    def _each(self, step: int, call: Callable[[Writer], None]) -> None:
        failed = {}
        for writer in self._writers:
            try:
                call(writer)
            except OSError as error:
                failed[writer] = error
        self._writers = [writer for writer in self._writers if writer not in failed]
        for writer, error in failed.items():
            self.text(step, f"{type(writer).__name__} cannot write and stops: {error}")


class JsonlWriter:
    """One JSON object a line: `{"step": 50, "time": ..., "loss": 0.1}`; always on.

    Every line is flushed, so that a crash costs at most the line being written. To open
    drops what a run that goes on from `step` will write again: a line cut by a crash,
    and lines of later steps. Values that are not finite are null.
    """

    def __init__(self, path: str | Path, *, step: int = -1):
        path = Path(path)
        kept = [line for line in _lines(path) if json.loads(line)["step"] <= step]
        part = path.with_name(f"{path.name}.part")
        part.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        part.replace(path)
        self._file = path.open("a", encoding="utf-8")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Append the numbers as one line."""
        finite = {k: float(v) if math.isfinite(v) else None for k, v in values.items()}
        self._append(step, finite)

    def images(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """Leave pictures to others."""

    def text(self, step: int, message: str) -> None:
        """Append the message as one line."""
        self._append(step, {"text": message})

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _append(self, step: int, values: Mapping[str, Any]) -> None:
        line = {"step": step, "time": round(time.time(), 3), **values}
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()


def _lines(path: Path) -> list[str]:
    """Return the whole lines of a JSONL file, without one that a crash has cut."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line for line in lines if _is_record(line)]


def _is_record(line: str) -> bool:
    try:
        return isinstance(json.loads(line).get("step"), int)
    except (ValueError, AttributeError):
        return False


class TensorBoardWriter:
    """TensorBoard event files by tensorboardX.

    Events are written in this thread: the queue of `SummaryWriter` stands still for
    good once its own thread has met a full disk. Where a run goes on from `step`,
    TensorBoard is told to forget later ones.
    """

    def __init__(self, directory: str | Path, *, step: int = -1):
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        # The name's own resolution is a second, and opening cuts a file that exists.
        suffix = f".{os.getpid()}.{time.time_ns()}"
        self._events = EventsWriter(str(directory / "events"), suffix)
        if step >= 0:
            start = SessionLog(status=SessionLog.START)
            self._write(Event(step=step + 1, session_log=start))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write every number under its name, but those that are not finite."""
        for name, value in values.items():
            if not math.isfinite(value):
                continue
            self._write(Event(step=step, summary=summary.scalar(name, value)))
        self._events.flush()

    def images(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """Write every picture under its name."""
        for name, picture in pictures.items():
            image = summary.image(name, picture, dataformats="HWC")
            self._write(Event(step=step, summary=image))
        self._events.flush()

    def text(self, step: int, message: str) -> None:
        """Leave messages to others."""

    def close(self) -> None:
        """Close the file."""
        self._events.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._events.write_event(event)


class PngWriter:
    """Pictures as files: `DIRECTORY/NAME/STEP.png`."""

    def __init__(self, directory: str | Path):
        self._directory = Path(directory)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Leave numbers to others."""

    def images(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """Write every picture as a file."""
        for name, picture in pictures.items():
            path = self._directory / name / f"{step:08d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.asarray(picture)).save(path, format="PNG")

    def text(self, step: int, message: str) -> None:
        """Leave messages to others."""

    def close(self) -> None:
        """Have nothing to close."""


class ConsoleWriter:
    """A line for every log, and under them a progress bar with rate and time left.

    On anything but a terminal the lines come alone.
    """

    def __init__(self, steps: int, *, step: int = 0, console: Console | None = None):
        self.console = console or Console()
        self._steps = steps
        self._progress = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.percentage:.0f}%"),
            _RateColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
            transient=True,
        )
        # What an earlier run did is no measure of this one's rate.
        self._task = self._progress.add_task("train", total=steps, completed=step)
        self._progress.start()

    def advance(self, step: int) -> None:
        """Move the bar to a step."""
        self._progress.update(self._task, completed=step)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Print the numbers as one line."""
        numbers = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        width = len(str(self._steps))
        self._print(f"step {step:>{width}}  {numbers}")

    def images(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """Leave pictures to others."""

    def text(self, step: int, message: str) -> None:
        """Print the message."""
        self._print(message)

    def close(self) -> None:
        """Take the bar away."""
        self._progress.stop()

    def _print(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


class _RateColumn(ProgressColumn):
    """Steps a second."""

    def render(self, task: Task) -> Text:
        """Return the rate as text."""
        speed = task.finished_speed or task.speed
        return Text("- steps/s" if speed is None else f"{speed:.2f} steps/s")
