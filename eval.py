"""Measure a trained autoencoder, and its linear baselines on the same images.

Prints a table, and writes `metrics.json` and the picture `eval.png`.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from rich.console import Console
from rich.progress import track

from deepprism_jax.data import eval_batches
from deepprism_jax.evaluation import comparison
from deepprism_jax.evaluation.report import Row, table, write_json
from deepprism_jax.evaluation.trained import load_trained
from deepprism_jax.training.cli import read, report
from deepprism_jax.training.evaluation import compare
from deepprism_jax.training.grids import save_grid
from deepprism_jax.training.preflight import PreflightError, refusing
from deepprism_jax.training.setup import open_split
from deepprism_jax.training.sharding import make_mesh, place_batch, replicated

EXAMPLES = 10  # images in the picture


@dataclass(frozen=True)
class Options:
    """What to measure, and on which images."""

    workdir: tyro.conf.Positional[Path]
    """Work directory of a training run, or directory of an exported model."""
    source: Literal["photos", "folder", "cifar10", "tfds"] | None = None
    """Source of the images. Data options left out are those of the training run."""
    path: str | None = None
    """Folder of images, CIFAR-10 directory, or TFDS `data_dir`."""
    name: str | None = None
    """TFDS data set name."""
    split: str | None = None
    """Split to evaluate on."""
    train_split: str | None = None
    """Split that PCA is fitted on."""
    image_size: tuple[int, int] | None = None
    """Height and width; the model takes any that its factor divides."""
    limit: int = 0
    """Evaluate this many images, evenly spaced over the split; 0 takes all."""
    batch_size: int = 0
    """Images a batch; 0 chooses 128 of 32x32 a device, fewer where they are larger."""
    baselines: bool = True
    """Measure bicubic down-up and PCA too."""
    output: Path | None = None
    """Directory of the results: if left out WORKDIR, or MODEL-eval beside a MODEL."""


def measure(options: Options) -> None:
    """Evaluate, print and write."""
    console = Console()
    progress = partial(track, transient=True, console=Console(stderr=True))
    trained = load_trained(options.workdir)
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
        output.mkdir(parents=True, exist_ok=True)
    methods, notes = comparison.make_methods(
        trained,
        data,
        baselines=options.baselines,
        sharding=replicated(mesh),
        watch=lambda batches, count: progress(batches, "PCA", count),
    )

    reconstruct = {name: method.reconstruct for name, method in methods.items()}
    place = partial(place_batch, mesh)
    batches = progress(batches, "evaluation", len(batches))
    scores = compare(reconstruct, batches, place=place)
    rows = [Row(n, scores[n], m.parameters, m.code) for n, m in methods.items()]
    facts = comparison.provenance(trained, data, scores["model"]["psnr"].count)
    facts |= {"workdir": str(options.workdir), "notes": notes}
    console.print(table(rows))
    for line in (comparison.summary(facts), *notes):
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    write_json(output / "metrics.json", rows, facts)
    # Batches of the same shape, for which everything is compiled already.
    few = next(iter(eval_batches(source, batch_size=size, limit=EXAMPLES, **layout)))
    shown = few["mask"].nonzero()[0]
    pictures = {"input": few["image"][shown]}
    for name, function in reconstruct.items():
        pictures[name] = np.asarray(function(place(few["image"])))[shown]
    scale = max(1, 64 // max(data.image_size))
    save_grid(output / "eval.png", pictures, scale=scale)
    console.print(f"wrote metrics.json and eval.png to {output}", soft_wrap=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 2 says that it was refused before any work."""
    try:
        measure(read(Options, argv, prog="eval.py", description=__doc__))
    except PreflightError as error:
        return report(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
