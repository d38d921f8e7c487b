"""The drawing program: what `sample.py` does once the command line is read."""

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from deepprism_jax.evaluation.setup import FailedError, use_cores
from deepprism_jax.sampling import folder
from deepprism_jax.sampling.asked import foreign
from deepprism_jax.sampling.drawing import Advance, Drawing
from deepprism_jax.sampling.latent_drawing import prepare_latent
from deepprism_jax.sampling.options import Options
from deepprism_jax.sampling.pictures import Pixels
from deepprism_jax.sampling.prepare import prepare
from deepprism_jax.sampling.runs import Run, of_package, open_run
from deepprism_jax.training.allocator import keep_memory
from deepprism_jax.training.compilation import keep_programs
from deepprism_jax.training.preflight import PreflightError, plural, refusing
from deepprism_jax.version import code_version

PREPARE: dict[str, Callable[[Options, Run], Drawing]] = {
    "sinddm": prepare,
    "ldm": prepare_latent,
}
"""By the kind of run, what makes a drawing of options and a run."""


def main(options: Options) -> None:
    """Draw what the command line asks for.

    Raises:
        PreflightError: it is refused, before any work.
        FailedError: it had begun and came to nothing.
    """
    use_cores()
    if jax.process_count() > 1:
        raise PreflightError("sample.py runs in one process; start it on one machine")
    keep_memory()
    run, drawing = prepared(options)
    with refusing():
        if options.output:
            where = options.output
            where.mkdir(parents=True, exist_ok=True)
        else:
            where = folder.make_next_folder(run.results)
    console = Console()
    for line in drawing.lines:
        console.print(line, soft_wrap=True, highlight=False)
    try:
        with keep_programs(run.results):
            write(drawing, where, options, run)
    finally:
        with contextlib.suppress(OSError):  # it holds something, as it should
            where.rmdir()
    images = plural(drawing.count, "image")
    console.print(f"wrote {drawing.count} {images} to {where}", soft_wrap=True)


def prepared(options: Options) -> tuple[Run, Drawing]:
    """Open what is to be drawn from, and check what is asked of it.

    Raises:
        PreflightError: it is refused, before any work.
    """
    if options.run and options.pretrained:
        raise PreflightError("give WORKDIR or --pretrained, not both")
    with refusing():
        if options.run:
            run = open_run(options.run, PREPARE)
        elif options.pretrained:
            run = of_package(options.pretrained, PREPARE)
        else:
            raise PreflightError(
                "nothing to draw from; give the work directory of a run, for example "
                "runs/sinddm_deepprism, or --pretrained NAME"
            )
        if options.output:
            folder.check_folder(options.output)
    if problems := tuple(foreign(options, run.kind)):
        raise PreflightError(*problems)
    return run, PREPARE[run.kind](options, run)


def draw(**options: Any) -> Iterator[Pixels]:
    """Draw what `sample.py` would write, one image after another.

    Args:
        **options: those of `sample.py`, as `Options` names them: `run` or `pretrained`,
            `count`, `seed`, `scale_mul`, ... What is about files is of no effect.

    Returns:
        images, uint8 [h, w, c], in the order of their seeds.

    Raises:
        PreflightError: it is refused, before any work; its text names the options.
    """
    for name in {"run", "input", "mask"} & options.keys():
        options[name] = Path(options[name])
    _, drawing = prepared(Options(**options))
    return drawing.images(lambda done: None)


def write(drawing: Drawing, where: Path, options: Options, run: Run) -> None:
    """Draw, and write every image as soon as it is there.

    Raises:
        FailedError: the images cannot be drawn or written; those before are there.
    """
    began = time.perf_counter()
    small, whole = [], []
    try:
        for name, pixels in drawing.pictures.items():
            folder.save_image(where / name, pixels)
        with bar(drawing.work) as advance:
            for number, pixels in enumerate(drawing.images(advance)):
                folder.save_image(
                    where / folder.name_of(drawing.first + number), pixels
                )
                small.append(folder.thumbnail(pixels, drawing.count))
                if options.npz:
                    whole.append(pixels)
        seconds = time.perf_counter() - began
        if options.grid:
            folder.write_grid(where, small, drawing.rows)
        if options.npz:
            seeds = np.arange(drawing.first, drawing.first + drawing.count)
            folder.save_arrays(where, whole, seeds, drawing.labels)
        folder.save_record(where, record(drawing, options, run, seconds))
    except OSError as error:
        raise FailedError(str(error)) from error


def record(
    drawing: Drawing, options: Options, run: Run, seconds: float
) -> dict[str, Any]:
    """Return what `samples.json` says: enough to draw the same images again."""
    usual = dataclasses.asdict(Options())
    asked = {
        name: value
        for name, value in dataclasses.asdict(options).items()
        if value != usual[name]
    }
    return {
        "run": options.pretrained or str(run.workdir.absolute()),
        **drawing.facts,
        "seeds": [drawing.first, drawing.first + drawing.count - 1],
        "options": json.loads(json.dumps(asked, default=str)),
        "seconds": round(seconds, 3),
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "deepprism_jax": code_version(),
    }


@contextlib.contextmanager
def bar(work: int) -> Iterator[Advance]:
    """Show how far the work is, where somebody looks on; nothing of it stays."""
    columns = (
        TextColumn("drawing"),
        BarColumn(),
        TextColumn("{task.percentage:.0f} %"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=work)
        yield lambda done: progress.advance(task, done)
