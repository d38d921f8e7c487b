"""What is said and shown of samples of latent diffusion, besides their figures."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deepprism_jax.evaluation.latent.drawing import Samples
from deepprism_jax.evaluation.latent.trained import Trained, parameters
from deepprism_jax.evaluation.runs import FoundRun
from deepprism_jax.evaluation.table4 import WITHOUT_TIME, Row
from deepprism_jax.files import replacing
from deepprism_jax.metrics.state import Score
from deepprism_jax.training.config import DataConfig
from deepprism_jax.training.grids import enlargement, save_grid
from deepprism_jax.training.preflight import plural

KIND = "generated images"
"""What the figures are of, so that they are not compared with reconstructions."""

ROWS, COLUMNS = 10, 8
"""Classes in the picture, and samples of each."""


def make_rows(model: Trained, scores: Mapping[str, Score]) -> list[Row]:
    """Return the row of the model, and what the same network weighs as dense one."""
    own = dict(model.network.options)
    dense = own | {"conv": "dense", "time_conv": "dense"}
    rows = [_counted("samples", own, scores)]
    return rows if own == dense else [*rows, _counted("dense, not trained", dense, {})]


def _counted(name: str, options: dict[str, Any], scores: Mapping[str, Score]) -> Row:
    total, without = parameters(options)
    counted = {WITHOUT_TIME: Score(float(without), None, 0, "")}
    return Row(name, {**scores, **counted}, total, None)


def subject(run: FoundRun, samples: Samples, data: DataConfig, real: int) -> str:
    """Say what was drawn, how, and beside what."""
    way, classes = samples.way, samples.model.classes
    height, width = data.image_size
    words = (
        f"{samples.count:,} samples of {height}x{width}, UNet, checkpoint "
        f"{run.step:,}, {way.steps} steps of {way.sampler}"
    )
    if way.eta:
        words += f" with eta {way.eta:g}"
    if classes:
        words += f", {classes:,} classes in turn, guidance {way.guidance:g}"
    words += f", seeds from {samples.first}"
    if real:
        words += f"; beside {real:,} images of {data.source} split {data.eval_split!r}"
    return words


def throughput(samples: Samples) -> str:
    """Say how fast samples were drawn."""
    seconds, devices = samples.seconds, samples.mesh.size
    line = f"{1 / seconds:,.2f} images/s, {seconds:.4f} s an image, on {devices} "
    line += plural(devices, "device")
    return line if samples.compiled else f"{line}, compilation included"


class Shown:
    """Passes batches of samples on, and keeps some of every class for a picture.

    Args:
        samples: to be passed on.
        classes: names of the classes; () of an unconditional model.
    """

    def __init__(self, samples: Samples, classes: tuple[str, ...]):
        self._samples = samples
        known = samples.model.classes
        names = classes or tuple(map(str, range(known))) or ("samples",)
        self._rows: dict[str, list[np.ndarray]] = {name: [] for name in names[:ROWS]}

    def __len__(self) -> int:
        return len(self._samples)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        names = list(self._rows)
        for batch in self._samples:
            yield batch
            seeds = self._samples.first + batch["index"][batch["mask"]]
            labels = self._samples.labels(seeds)
            if labels is None:
                labels = np.zeros(len(seeds), int)
            images: Iterable[np.ndarray] = batch["image"][batch["mask"]]
            for label, image in zip(labels, images, strict=True):
                if label < len(names) and len(self._rows[names[label]]) < COLUMNS:
                    self._rows[names[label]].append(image)

    def save(self, path: Path) -> None:
        """Write the picture: a row a class that has samples, all of one length."""
        there = {name: images for name, images in self._rows.items() if images}
        length = min(map(len, there.values()))
        rows = {name: np.stack(images[:length]) for name, images in there.items()}
        side = max(next(iter(rows.values())).shape[1:3])
        with replacing(path) as part:
            save_grid(
                part,
                rows,
                scale=enlargement(side),
                captions=bool(self._samples.model.classes),
            )
