"""The evaluation program: what `eval.py` does once the command line is read."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from rich.console import Console
from rich.progress import track

from deepprism_jax.data import eval_batches
from deepprism_jax.evaluation import comparison, legend, side_by_side
from deepprism_jax.evaluation.extremes import Extremes, ranking_metric
from deepprism_jax.evaluation.generated import Progress, evaluate_folder
from deepprism_jax.evaluation.latent import trained as latent
from deepprism_jax.evaluation.latent.run import evaluate_latents
from deepprism_jax.evaluation.networks import make_suite
from deepprism_jax.evaluation.options import OF_DRAWING, Options, refuse
from deepprism_jax.evaluation.per_image import PerImage
from deepprism_jax.evaluation.pretrained import open_pretrained
from deepprism_jax.evaluation.real_side import RealSide
from deepprism_jax.evaluation.report import Row, show, write_report
from deepprism_jax.evaluation.samples import is_folder_of_images
from deepprism_jax.evaluation.scoring import Batch, Contestant, Pass, warnings
from deepprism_jax.evaluation.setup import (
    failing,
    make_pass,
    make_real_side,
    unread,
    use_cores,
)
from deepprism_jax.evaluation.single_image import trained as single_image
from deepprism_jax.evaluation.single_image.folder import evaluate_samples
from deepprism_jax.evaluation.single_image.run import evaluate_run
from deepprism_jax.evaluation.table4 import IMAGES
from deepprism_jax.evaluation.trained import Trained, load_trained, of_package
from deepprism_jax.files import replacing, write_text
from deepprism_jax.training.allocator import keep_memory
from deepprism_jax.training.grids import enlargement, save_grid
from deepprism_jax.training.preflight import PreflightError, refusing
from deepprism_jax.training.setup import open_split
from deepprism_jax.training.sharding import make_mesh, place_batch, replicated

EXAMPLES = 10
"""Images in the picture `eval.png`."""

MODEL = "model"

PER_IMAGE, EXTREMES = "per_image.csv", "extremes.png"


def main(options: Options) -> None:
    """Do what the command line asks for.

    Raises:
        PreflightError: it is refused, before any work.
        FailedError: it had begun and came to nothing.
    """
    console = Console()
    if options.compare and (options.subject or options.pretrained):
        raise PreflightError("--compare takes all runs: put SUBJECT behind it")
    if options.pretrained and options.subject:
        raise PreflightError("give SUBJECT or --pretrained, not both")
    if options.compare:
        found = side_by_side.load(options.compare)
        found.show(console)
        if options.output:
            with failing():
                write_text(options.output / "compare.md", found.markdown())
            console.print(f"wrote compare.md to {options.output}", soft_wrap=True)
        return
    if options.subject is None and not options.pretrained:
        raise PreflightError(
            "nothing to evaluate; give the work directory of a run, an exported model, "
            "a folder of generated images, or --pretrained NAME"
        )
    use_cores()
    if jax.process_count() > 1:
        raise PreflightError("eval.py runs in one process; start it on one machine")
    keep_memory()
    progress = partial(track, transient=True, console=Console(stderr=True))
    if options.subject is None:
        evaluate_pretrained(options, console, progress)
    elif options.real:
        evaluate_samples(options, console, progress)
    elif is_folder_of_images(options.subject):
        refuse(options, OF_DRAWING, "images beside a split of real ones")
        evaluate_folder(options, console, progress)
    elif run := single_image.open_run(options.subject):
        evaluate_run(run, options, console, progress)
    elif found := latent.open_run(options.subject):
        evaluate_latents(found, options, console, progress)
    else:
        trained = load_trained(options.subject)
        refuse(options, OF_DRAWING, "an autoencoder")
        evaluate_model(trained, options, console, progress)


def evaluate_pretrained(options: Options, console: Console, progress: Progress) -> None:
    """Measure a model of the package as the run that trained it would be.

    Raises:
        PreflightError: it is refused, before any work.
        FailedError: it had begun and came to nothing.
    """
    found = open_pretrained(options.pretrained)
    options = replace(options, pretrained="")
    if found.kind == "sinddm":
        run = single_image.of_package(found, options.real)
        evaluate_run(run, replace(options, real=None), console, progress)
    elif found.kind == "ldm":
        evaluate_latents(found.as_run, options, console, progress)
    else:
        refuse(options, OF_DRAWING, "an autoencoder")
        evaluate_model(of_package(found), options, console, progress)


def evaluate_model(
    trained: Trained, options: Options, console: Console, progress: Progress
) -> None:
    """Measure a model and its baselines; print, and write all files.

    Raises:
        PreflightError: it is refused, before any work.
        FailedError: images or features turn out to be of no use.
    """
    fields = ("source", "path", "name", "train_split", "image_size")
    given = {name: getattr(options, name) for name in fields}
    data = comparison.choose_data(trained, eval_split=options.split, **given)
    mesh = make_mesh()
    layout = {"image_size": data.image_size, "channels": data.channels}
    output = options.output or trained.results
    with refusing():
        source = open_split(data, data.eval_split)
        size = comparison.batch_size(
            options.batch_size, data.image_size, options.limit or len(source), mesh.size
        )
        batches = eval_batches(source, batch_size=size, limit=options.limit, **layout)
        suite = make_suite(options.metrics, data.image_size, data.channels)
        real = make_real_side(suite, options, data, batches.images)
        names = [*suite.pairs, *suite.distances]
        if not (names or suite.distributions):
            raise PreflightError(f"nothing to measure: {'; '.join(suite.skipped)}")
        output.mkdir(parents=True, exist_ok=True)
    methods, notes = comparison.make_methods(
        trained,
        data,
        baselines=options.baselines,
        sharding=replicated(mesh),
        watch=lambda batches, count: progress(batches, "PCA", count),
    )
    contestants = {
        name: Contestant(method.reconstruct, name == MODEL or options.baseline_features)
        for name, method in methods.items()
    }
    passed = make_pass(suite, mesh, real)
    extremes = Watcher(names, options.extremes)
    with failing(), real.caching():
        with PerImage(output / PER_IMAGE, names) as table:
            watch = (extremes, partial(_write_figures, table))
            passed.run(
                contestants, progress(batches, "evaluation", len(batches)), watch
            )
        rows, said = _rows(methods, contestants, passed, real)
    if own := real.scores_of_images(passed.real):
        numbers = math.prod((*data.image_size, data.channels))
        rows.append(Row(IMAGES, own, None, numbers))
    if passed.count < batches.images:
        said.append(unread(batches.images - passed.count, batches.images))
    facts = comparison.provenance(trained, data, passed.count)
    facts |= {
        "workdir": trained.name or str(options.subject),
        "networks": suite.facts,
        "skipped": suite.skipped,
        "notes": list(dict.fromkeys([*notes, *said, *real.notes()])),
        **real.facts(),
    }
    show(console, rows, legend.lines(rows, facts))

    written = write_report(output, rows, facts)
    with failing():
        written += real.write(passed.real)
    # Batches of the same shape, for which everything is compiled already.
    few = next(iter(eval_batches(source, batch_size=size, limit=EXAMPLES, **layout)))
    save_examples(output / "eval.png", contestants, few, mesh)
    written += ["eval.png", *extremes.save(output / EXTREMES)]
    if names:
        written.append(PER_IMAGE)
    for stale in {PER_IMAGE, EXTREMES} - set(written):
        # Of an earlier evaluation, whose figures are replaced.
        (output / stale).unlink(missing_ok=True)
    console.print(f"wrote {', '.join(written)} to {output}", soft_wrap=True)


def _rows(
    methods: Mapping[str, comparison.Method],
    contestants: Mapping[str, Contestant],
    passed: Pass,
    real: RealSide,
) -> tuple[list[Row], list[str]]:
    """Return the scores of all methods, and notes on them."""
    rows, notes = [], []
    for name, method in methods.items():
        contestant = contestants[name]
        scores, said = real.compare(passed.real, contestant.sets)
        scores = contestant.scores() | scores
        rows.append(Row(name, scores, method.parameters, method.code))
        notes += warnings(name, contestant, passed) + said
    return rows, notes


class Watcher:
    """Keeps the model's worst and best cases, where something is measured to rank by.

    Args:
        metrics: what is measured of every image.
        keep: how many of either.
    """

    def __init__(self, metrics: Sequence[str], keep: int):
        metric = ranking_metric(metrics)
        self._found = Extremes(metric, keep) if metric and keep > 0 else None

    def __call__(self, name: str, batch: Batch) -> None:
        """Look at what a method has reached on a batch."""
        if self._found and name == MODEL:
            values = batch.values[self._found.metric]
            self._found = self._found.add(
                batch.indices, values, batch.images, batch.reconstructions
            )

    def save(self, path: Path) -> list[str]:
        """Write the picture and return its name, or nothing if there is none."""
        if self._found is None:
            return []
        self._found.save(path)
        return [path.name]


def _write_figures(table: PerImage, name: str, batch: Batch) -> None:
    if name == MODEL:
        table.add(batch.indices, batch.values)


def save_examples(
    path: Path,
    contestants: Mapping[str, Contestant],
    batch: Mapping[str, Any],
    mesh: Mesh,
) -> None:
    """Write a picture of images and of what every method makes of them."""
    shown = batch["mask"].nonzero()[0]
    placed = place_batch(mesh, batch["image"])
    pictures = {"input": batch["image"][shown]}
    for name, contestant in contestants.items():
        pictures[name] = np.asarray(contestant.reconstruct(placed).pixels)[shown]
    scale = enlargement(max(batch["image"].shape[1:3]))
    with replacing(path) as part:
        save_grid(part, pictures, scale=scale)
