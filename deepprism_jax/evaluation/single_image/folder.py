"""Measure a folder of samples beside the one image that their model was trained on."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from deepprism_jax.data import eval_batches
from deepprism_jax.data.images import decode_whole
from deepprism_jax.data.sources.folder import FolderSource
from deepprism_jax.evaluation import legend
from deepprism_jax.evaluation.options import Options, refuse_all_but
from deepprism_jax.evaluation.report import show, write_report
from deepprism_jax.evaluation.samples import open_samples
from deepprism_jax.evaluation.setup import failing, unread
from deepprism_jax.evaluation.single_image.measure import Measurement
from deepprism_jax.evaluation.single_image.report import KIND, SHOWN, save_picture
from deepprism_jax.evaluation.single_image.suite import Suite, make_suite
from deepprism_jax.evaluation.table4 import Row
from deepprism_jax.training.preflight import PreflightError, refusing
from deepprism_jax.version import code_version
from deepprism_jax.weights.pretrained import CONFIG

PICTURE = "eval.png"

PIXELS_AT_ONCE = 2**18
"""Of the samples that are measured together, unless one alone has more."""

WENT_IN = {"input.png", "mask.png", "regions.png"}
"""What `sample.py` writes before any sample."""

OF_SAMPLES = ("subject", "metrics", "batch_size", "limit", "output")
"""Options that samples of one image have, too."""


def evaluate_samples(
    options: Options, console: Console, progress: Callable[..., Iterable[Any]]
) -> None:
    """Compare samples with their training image, `options.real`.

    Raises:
        PreflightError: it is refused, before any work.
        FailedError: the images turn out to be of no use.
    """
    path, given = options.subject, options.real
    assert path is not None
    assert given is not None
    refuse_all_but(options, (*OF_SAMPLES, "real"), "samples of one image")
    if (path / CONFIG).is_file():
        raise PreflightError(
            f"{path} is a run or an export, and --real is for a folder of samples; a "
            "run has its training image: leave --real out"
        )
    with refusing():
        found = open_drawn(path)
        image = decode_whole(given, 3)
        suite = make_suite(options.metrics, (found.image_size, image.shape[:2]))
        layout = {"image_size": found.image_size, "limit": options.limit}
        size = options.batch_size or at_once(found.image_size, len(found))
        batches = eval_batches(found, batch_size=size, **layout)
        place = path.resolve()
        output = options.output or place.with_name(f"{place.name}-eval")
        output.mkdir(parents=True, exist_ok=True)
    shown: list[np.ndarray] = []
    with failing():
        measured = Measurement(suite, image)
        for batch in progress(batches, "samples", len(batches)):
            mask = np.asarray(batch["mask"])
            samples = np.asarray(batch["image"])
            measured.add(samples, mask)
            shown += list(samples[mask][: SHOWN - len(shown)])
        scores = measured.scores()
        if not scores:
            raise ValueError("; ".join(measured.notes()) or "no sample could be read")
    notes = measured.notes()
    if found.image_size != image.shape[:2]:
        real, drawn = (f"{h}x{w}" for h, w in (image.shape[:2], found.image_size))
        notes.append(
            f"{given} is {real} and the samples are {drawn}: features of patches "
            "compare at one scale; what a run has learnt is its images/NAME.png"
        )
    if measured.count < batches.images:
        notes.append(unread(batches.images - measured.count, batches.images))
    rows = [Row(given.stem, scores, None, None)]
    height, width = found.image_size
    words = f"{measured.count:,} samples of {height}x{width} in {path}, beside {given}"
    facts = {
        "subject": words,
        "generated": str(path),
        "source": "image",
        "name": given.stem,
        "images": measured.count,
        "image_size": [height, width],
        **facts_of(suite, notes),
    }
    show(console, rows, legend.lines(rows, facts))
    written = write_report(output, rows, facts)
    save_picture(output / PICTURE, {given.stem: (image, np.stack(shown))})
    console.print(f"wrote {', '.join([*written, PICTURE])} to {output}", soft_wrap=True)


def facts_of(suite: Suite, notes: Iterable[str]) -> dict[str, Any]:
    """Return what all evaluations of samples of one image have to say."""
    return {
        "kind": KIND,
        "deepprism_jax": code_version(),
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "networks": suite.facts,
        "skipped": suite.skipped,
        "notes": list(dict.fromkeys(notes)),
    }


def open_drawn(path: Path) -> FolderSource:
    """Open a folder of samples, all of one size.

    In a folder that `sample.py` has written, to its end or not, the images that are
    named by their seeds: the grid of all, and what went in, are none of them.

    Raises:
        ValueError: they differ in size.
    """
    there = list(path.glob("*"))
    names = {file.name for file in there}
    broken_off = bool(names & WENT_IN) and any(map(_is_numbered, there))
    if "samples.json" in names or broken_off:
        return open_samples(path, None, only=_is_numbered)
    return open_samples(path, None)


def _is_numbered(file: Path) -> bool:
    """Whether an image is named by its seed."""
    return file.stem.isdecimal()


def at_once(size: tuple[int, int], count: int) -> int:
    """Return how many samples of (height, width) are measured together."""
    return max(1, min(count, PIXELS_AT_ONCE // (size[0] * size[1])))
