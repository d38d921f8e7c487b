"""Evaluation during training: scores over the evaluation split, and a picture."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from deepprism_jax.training.autoencoder.trainer import AutoencoderTrainer
from deepprism_jax.training.evaluation import evaluate, scalars
from deepprism_jax.training.grids import enlargement, image_grid
from deepprism_jax.training.sharding import local_rows

COLUMNS = 8
"""Images in the picture."""


class Evaluator:
    """Scores the reconstructions of one trainer's model on the same images each time.

    Args:
        trainer: reconstructs, and places batches.
        batches: masked batches of this process; iterated again at each call.
        interrupted: asked before each batch; an evaluation that it ends gives nothing.
            Several processes must get the same answers, for they work together.
    """

    ranking = "psnr"

    def __init__(
        self,
        trainer: AutoencoderTrainer,
        batches: Iterable[Mapping[str, Any]],
        *,
        interrupted: Callable[[], bool] = lambda: False,
    ):
        self._trainer, self._batches = trainer, batches
        self._interrupted = interrupted
        self._first: Mapping[str, Any] | None = None

    def scores(self, values: Any) -> dict[str, float]:
        """Return scores by name, `psnr` and `psnr_std` for one; none if interrupted."""
        scores = evaluate(
            lambda images: self._trainer.reconstruct(values, images),
            self._until_interrupted(),
            place=self._trainer.shard_batch,
        )
        return {} if self._interrupted() else scalars(scores)

    def pictures(self, values: Any) -> dict[str, np.ndarray]:
        """Return the first images over their reconstructions, uint8 [H, W, 3].

        All processes call it, for they reconstruct together; each gets a picture of its
        own images, or of one black filler where it has none.
        """
        if self._first is None:
            self._first = next(iter(self._batches))
        inputs = self._first["image"]
        placed = self._trainer.shard_batch({"image": inputs})["image"]
        outputs = local_rows(self._trainer.reconstruct(values, placed))
        mask = self._first["mask"]
        shown = np.flatnonzero(mask)[:COLUMNS] if mask.any() else [0]
        grid = image_grid(
            {"input": inputs[shown], "reconstruction": outputs[shown]},
            scale=enlargement(inputs.shape[1]),
        )
        return {"reconstructions": grid}

    def _until_interrupted(self) -> Iterator[Mapping[str, Any]]:
        for number, batch in enumerate(self._batches):
            if number and self._interrupted():
                return
            yield batch
