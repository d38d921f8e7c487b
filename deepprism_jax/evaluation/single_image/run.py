"""Draw samples of a run of single-image models, and measure those of every model."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from rich.console import Console

from deepprism_jax.analysis.parameters import count_without_time
from deepprism_jax.evaluation import legend
from deepprism_jax.evaluation.options import Options, check_seeds, refuse_all_but
from deepprism_jax.evaluation.report import show, write_report
from deepprism_jax.evaluation.setup import failing
from deepprism_jax.evaluation.single_image.drawing import Drawer
from deepprism_jax.evaluation.single_image.folder import PICTURE, at_once, facts_of
from deepprism_jax.evaluation.single_image.measure import Measurement
from deepprism_jax.evaluation.single_image.report import (
    MOST_ROWS,
    SHOWN,
    save_picture,
    with_mean,
)
from deepprism_jax.evaluation.single_image.suite import (
    SIFID_METRICS,
    Suite,
    make_suite,
)
from deepprism_jax.evaluation.single_image.trained import Trained, TrainedRun
from deepprism_jax.evaluation.table4 import WITHOUT_TIME, Row
from deepprism_jax.layers.functional import Functional
from deepprism_jax.metrics.state import Score
from deepprism_jax.training.preflight import PreflightError, refusing
from deepprism_jax.training.sharding import make_mesh

SAMPLES = 16
"""Samples of every model, where `--samples` is left out."""

OF_RUNS = ("subject", "metrics", "batch_size", "samples", "seed", "output")
"""Options that are of effect here."""


def evaluate_run(
    run: TrainedRun,
    options: Options,
    console: Console,
    progress: Callable[..., Iterable[Any]],
) -> None:
    """Draw `--samples` of every model, measure, print, and write all files.

    Raises:
        PreflightError: it is refused, before any work.
        FailedError: no model draws numbers.
    """
    count = _check(options)
    suite = make_suite(options.metrics, [x.shape[:2] for x in run.images.values()])
    output = options.output or run.results
    with refusing():
        output.mkdir(parents=True, exist_ok=True)
    model = run.load(next(iter(run.images)))
    target = run.config.diffusion.target
    drawer = Drawer(model.network, target, model.process, make_mesh())
    total, without = count_without_time(Functional(model.network).shapes)
    counted = {WITHOUT_TIME: Score(float(without), None, 0, "")}
    rows: list[Row] = []
    notes = list(run.notes)
    shown: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    with failing():
        for name in progress(run.images, "models", len(run.images)):
            if name != model.name:
                model = run.load(name)
            measured, few = measure(model, drawer, suite, options, count)
            if scores := measured.scores():
                rows.append(Row(name, scores | counted, total, None))
            notes += measured.notes()
            if measured.count < count:
                notes.append(
                    f"{count - measured.count:,} of {count:,} "
                    f"samples of {name} have NaN or infinite numbers and count in no "
                    "figure; take an earlier checkpoint"
                )
            if len(few) and len(shown) < MOST_ROWS:
                shown[name] = model.image, few
        if not rows:
            raise ValueError("; ".join(dict.fromkeys(notes)))
    rows = with_mean(rows)
    facts = {
        **_provenance(run, options, count),
        "options": dict(model.network.options),
        **facts_of(suite, notes),
    }
    show(console, rows, legend.lines(rows, facts))
    written = write_report(output, rows, facts)
    save_picture(output / PICTURE, shown)
    console.print(f"wrote {', '.join([*written, PICTURE])} to {output}", soft_wrap=True)


def measure(
    model: Trained, drawer: Drawer, suite: Suite, options: Options, count: int
) -> tuple[Measurement, np.ndarray]:
    """Draw samples of one model; return what was measured, and a few of them."""
    measured = Measurement(suite, model.image)
    height, width, channels = model.image.shape
    few: list[np.ndarray] = []
    for batch in drawer.draw(
        model.network,
        model.process,
        channels,
        first=options.seed,
        count=count,
        batch=options.batch_size or at_once((height, width), count),
    ):
        measured.add(batch.pixels, batch.mask)
        few += list(batch.pixels[batch.mask][: SHOWN - len(few)])
    return measured, np.array(few)


def _check(options: Options) -> int:
    """Return how many samples to draw."""
    refuse_all_but(options, OF_RUNS, "a run of models of one image")
    count = SAMPLES if options.samples is None else options.samples
    check_seeds(options, count)
    diversities = [name for name in options.metrics if name not in SIFID_METRICS]
    if count == 1 and diversities:
        raise PreflightError(
            f"--metrics {diversities[0]} is of how samples differ, and --samples is 1: "
            "ask for 2 or more"
        )
    return count


def _provenance(run: TrainedRun, options: Options, count: int) -> Mapping[str, Any]:
    """Return what samples were drawn of what."""
    height, width = next(iter(run.images.values())).shape[:2]
    names = list(run.images)
    words = f"{count:,} samples of {height}x{width}"
    if len(names) == 1:
        words += f" by SinDDM of {names[0]}"
    else:
        words += f" each of {len(names):,} models, SinDDM, of an image each"
    return {
        "subject": f"{words}, checkpoint {run.step:,}, seeds from {options.seed}",
        "workdir": str(run.workdir),
        "model": "SinDDM",
        "step": run.step,
        "source": "image" if len(names) == 1 else "images",
        "name": _names(run.images),
        "images": count,
        "image_size": [height, width],
        "channels": run.config.data.channels,
        "seed": options.seed,
    }


def _names(images: Mapping[str, np.ndarray]) -> str:
    """Name the training images, many of them by a digest."""
    if len(images) <= legend.NAMED:
        return ", ".join(images)
    digest = hashlib.sha256()
    for name, pixels in images.items():
        digest.update(name.encode() + pixels.tobytes())
    return f"{len(images):,} images {digest.hexdigest()[:16]}"
