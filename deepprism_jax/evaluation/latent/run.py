"""Draw samples of a run of latent diffusion, and compare them with its data."""

from dataclasses import replace
from typing import Any

import jax
from rich.console import Console

from deepprism_jax.data import eval_batches
from deepprism_jax.evaluation import comparison, legend
from deepprism_jax.evaluation.generated import Progress, compare
from deepprism_jax.evaluation.latent.drawing import Samples
from deepprism_jax.evaluation.latent.report import (
    KIND,
    Shown,
    make_rows,
    subject,
    throughput,
)
from deepprism_jax.evaluation.latent.trained import Trained, load
from deepprism_jax.evaluation.latent.ways import Way, problems, steps_of
from deepprism_jax.evaluation.networks import make_suite
from deepprism_jax.evaluation.options import Options, check_seeds, refuse_all_but
from deepprism_jax.evaluation.report import show, write_report
from deepprism_jax.evaluation.runs import FoundRun
from deepprism_jax.evaluation.setup import failing, make_pass, make_real_side
from deepprism_jax.evaluation.table4 import IMAGES, Row
from deepprism_jax.training.config import DataConfig
from deepprism_jax.training.ldm.config import LDMConfig
from deepprism_jax.training.ldm.system import kept_classes
from deepprism_jax.training.preflight import PreflightError, refusing
from deepprism_jax.training.setup import open_split
from deepprism_jax.training.sharding import make_mesh
from deepprism_jax.version import code_version

OF_RUNS = (
    *("subject", "samples", "seed", "sampler", "steps", "eta", "guidance"),
    *("source", "path", "name", "split", "limit", "batch_size", "metrics"),
    *("kid_subset", "splits", "reference", "save_reference", "cache", "output"),
)
"""Options that are of effect here."""

SAMPLES = 10_000
"""Samples, where `--samples` is left out."""

PICTURE = "eval.png"


def evaluate_latents(
    run: FoundRun, options: Options, console: Console, progress: Progress
) -> None:
    """Draw samples, measure them, print, and write all files.

    Raises:
        PreflightError: it is refused, before any work.
        FailedError: the model draws no numbers, or features turn out to be of no use.
    """
    refuse_all_but(options, OF_RUNS, "a run of latent diffusion")
    count = SAMPLES if options.samples is None else options.samples
    check_seeds(options, count)
    model = load(run)
    way = choose_way(options, model)
    data = choose_data(run.config, options)
    output = options.output or run.results
    mesh = make_mesh()
    with refusing():
        suite = make_suite(options.metrics, data.image_size, data.channels, pairs=False)
        if not suite.distributions:
            raise PreflightError(
                "no network to measure samples by: "
                + "; ".join(suite.skipped or ["choose other metrics"])
            )
        size = comparison.batch_size(
            options.batch_size, data.image_size, count, mesh.size
        )
        real_batches, least = None, count
        if options.reference is None or options.save_reference is not None:
            real_batches = eval_batches(
                open_split(data, data.eval_split),
                image_size=data.image_size,
                channels=data.channels,
                batch_size=size,
                limit=options.limit,
            )
            least = min(count, real_batches.images)
        real = make_real_side(suite, options, data, least)
        output.mkdir(parents=True, exist_ok=True)
    samples = Samples(model, way, mesh, options.seed, count, size)
    shown = Shown(samples, kept_classes(run.workdir))
    of_real = make_pass(suite, mesh, real)
    with real.caching(), failing():
        seen, scores, notes = compare(of_real, real, real_batches, shown, progress)
        rows = make_rows(model, scores)
        if own := real.scores_of_images(of_real.real):
            rows.append(Row(IMAGES, own, None, None))
        saved = real.write(of_real.real) if real_batches is not None else []
    if samples.broken:
        notes.append(
            f"{samples.broken:,} of {count:,} samples have NaN or infinite numbers and "
            "count in no figure; take an earlier checkpoint"
        )
    facts = {
        "kind": KIND,
        "subject": subject(run, samples, data, of_real.count),
        "workdir": str(run.workdir),
        "model": type(model.network).__name__,
        "options": dict(model.network.options),
        "step": run.step,
        "sampler": way.sampler,
        "steps": way.steps,
        "eta": way.eta,
        "guidance": way.guidance,
        "seed": options.seed,
        "seconds_an_image": samples.seconds,
        "compiled_before": samples.compiled,
        "devices": mesh.size,
        "source": data.source if of_real.count else None,
        "path": data.path,
        "name": data.name,
        "split": data.eval_split if of_real.count else None,
        "images": seen.count,
        "real_images": of_real.count or None,
        "image_size": list(data.image_size),
        "channels": data.channels,
        "resize": data.resize,
        "deepprism_jax": code_version(),
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "networks": suite.facts,
        "skipped": suite.skipped,
        "notes": list(
            dict.fromkeys([throughput(samples), *notes, *real.notes()]),
        ),
        **real.facts(),
    }
    show(console, rows, legend.lines(rows, facts))
    written = write_report(output, rows, facts)
    shown.save(output / PICTURE)
    written += [PICTURE, *saved]
    console.print(f"wrote {', '.join(written)} to {output}", soft_wrap=True)


def choose_way(options: Options, model: Trained) -> Way:
    """Check how to draw, and settle what is left open.

    Raises:
        PreflightError: with all problems, the value and the remedy.
    """
    times = model.schedule.steps
    steps = steps_of(options.sampler, options.steps, times)
    way = Way(options.sampler, steps, options.eta, options.guidance)
    if found := list(problems(way, times, model.classes, guidable=model.guidable)):
        raise PreflightError(*found)
    return way


def choose_data(config: LDMConfig, options: Options) -> DataConfig:
    """Return the data to compare with: those trained on, but for what is given.

    Another source takes no path, name or split over.
    """
    there = config.data
    names = ("source", "path", "name", "image_size", "channels", "resize", "eval_split")
    kept: dict[str, Any] = {name: getattr(there, name) for name in names}
    if options.source not in (None, there.source):
        kept = {"image_size": there.image_size, "channels": there.channels}
    given = {
        "source": options.source,
        "path": options.path,
        "name": options.name,
        "eval_split": options.split,
    }
    given = {name: value for name, value in given.items() if value is not None}
    return replace(DataConfig(**kept), **given)
