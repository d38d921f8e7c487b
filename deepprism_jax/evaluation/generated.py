"""Measure a folder of generated images: IS, FID, KID, precision and recall."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import jax
from rich.console import Console

from deepprism_jax.data import eval_batches
from deepprism_jax.evaluation import comparison, legend
from deepprism_jax.evaluation.networks import make_suite
from deepprism_jax.evaluation.options import Options
from deepprism_jax.evaluation.real_side import RealSide
from deepprism_jax.evaluation.report import Row, show, write_report
from deepprism_jax.evaluation.samples import open_samples
from deepprism_jax.evaluation.scoring import Pass
from deepprism_jax.evaluation.setup import failing, make_pass, make_real_side, unread
from deepprism_jax.evaluation.table4 import IMAGES
from deepprism_jax.metrics.state import Score
from deepprism_jax.training.config import DataConfig
from deepprism_jax.training.preflight import PreflightError, refusing
from deepprism_jax.training.setup import open_split
from deepprism_jax.training.sharding import make_mesh
from deepprism_jax.version import code_version


@runtime_checkable
class Batches(Protocol):
    """`{"image", "mask", "index"}` again and again; the number of them is known."""

    def __iter__(self) -> Iterator[Mapping[str, Any]]: ...

    def __len__(self) -> int: ...


Progress = Callable[..., Iterable[Any]]
"""Shows how far an iterable is: batches, words, number of batches."""


def compare(
    of_real: Pass,
    real: RealSide,
    real_batches: Batches | None,
    samples: Batches,
    progress: Progress,
) -> tuple[Pass, dict[str, Score], list[str]]:
    """Show real and generated images to all networks, and compare their features.

    Args:
        of_real: a new pass; it sees the real images, where they are needed.
        real: the real side of the comparison.
        real_batches: of `data.eval_batches`; None where a reference stands for them.
        samples: batches of generated images, of the same keys.
        progress: shows how far both are.

    Returns:
        the pass of the generated images, scores, and notes on them.

    Raises:
        ValueError: images or features turn out to be of no use.
    """
    # To the pass, generated images are the images; there is nothing to reconstruct.
    # Both passes share their networks, which are compiled once.
    seen = replace(of_real, wanted=None, caches={}, real={})
    if real_batches is not None and real.needed:
        of_real.run({}, progress(real_batches, "real images", len(real_batches)))
    seen.run({}, progress(samples, "generated images", len(samples)))
    scores, notes = real.compare(of_real.real, seen.real)
    return seen, scores, notes


def evaluate_folder(options: Options, console: Console, progress: Progress) -> None:
    """Compare generated images with a split of real ones, or with a reference.

    Images are measured as they are; real ones are brought to their size.

    Raises:
        PreflightError: it is refused, before any work.
        FailedError: images or features turn out to be of no use.
    """
    path = options.subject
    assert path is not None
    if options.source is None and options.reference is None:
        raise PreflightError(
            f"{path} is a folder of images; give --source (and --path, --split) of the "
            "real images to compare them with, or --reference; of samples of a model "
            "of one image, --real with that image"
        )
    if options.source is None and options.save_reference is not None:
        raise PreflightError(
            "--save-reference writes statistics of real images; give their --source"
        )
    with refusing():
        found = open_samples(path, options.image_size)
        height, width = found.image_size
        data = DataConfig(image_size=(height, width))
        if options.source is not None:
            data = DataConfig(
                source=options.source,
                path=options.path or "",
                name=options.name or "",
                image_size=(height, width),
                eval_split=options.split or data.eval_split,
            )
        suite = make_suite(options.metrics, data.image_size, 3, pairs=False)
        if not suite.distributions:
            raise PreflightError(
                "no network to measure generated images by: "
                + "; ".join(suite.skipped or ["choose other metrics"])
            )
        mesh = make_mesh()
        size = comparison.batch_size(
            options.batch_size, data.image_size, len(found), mesh.size
        )
        layout = {
            "image_size": data.image_size,
            "batch_size": size,
            "limit": options.limit,
        }
        samples = eval_batches(found, **layout)
        real_batches, count = None, samples.images
        if options.source is not None:
            real_batches = eval_batches(open_split(data, data.eval_split), **layout)
            count = min(count, real_batches.images)
        real = make_real_side(suite, options, data, count)
        place = path.resolve()
        output = options.output or place.with_name(f"{place.name}-eval")
        output.mkdir(parents=True, exist_ok=True)

    of_real = make_pass(suite, mesh, real)
    with real.caching(), failing():
        seen, scores, notes = compare(of_real, real, real_batches, samples, progress)
        if seen.count < samples.images:
            notes.append(unread(samples.images - seen.count, samples.images))
        rows = [Row("generated", scores, None, None)]
        if own := real.scores_of_images(of_real.real):
            rows.append(Row(IMAGES, own, None, None))
        saved = real.write(of_real.real) if real_batches is not None else []
    facts = {
        "generated": str(path),
        "source": data.source if real_batches is not None else None,
        "path": data.path,
        "name": data.name,
        "split": data.eval_split if real_batches is not None else None,
        "images": seen.count,
        "real_images": of_real.count or None,
        "image_size": list(data.image_size),
        "resize": data.resize,
        "deepprism_jax": code_version(),
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "networks": suite.facts,
        "skipped": suite.skipped,
        "notes": list(dict.fromkeys([*notes, *real.notes()])),
        **real.facts(),
    }
    show(console, rows, legend.lines(rows, facts))
    written = write_report(output, rows, facts) + saved
    console.print(f"wrote {', '.join(written)} to {output}", soft_wrap=True)
