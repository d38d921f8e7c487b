"""Samples of a model of latents as batches of images, with the time they took."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jax.sharding import Mesh

from deepprism_jax.diffusion.samplers import make_stepper, spaced
from deepprism_jax.evaluation.latent.trained import Trained
from deepprism_jax.evaluation.latent.ways import (
    PIXELS_AT_ONCE,
    POSITIONS_AT_ONCE,
    Way,
)
from deepprism_jax.layers.functional import values_of
from deepprism_jax.training.ldm.drawing import Decoder, Drawer


@dataclass
class Samples:
    """Samples of the seeds `first` ... `first + count - 1`, in order, as batches.

    A sample depends on its seed alone: they are those that `sample.py` draws. Classes
    take turns, seed by seed, so that all have equal shares.

    Args:
        model: what draws.
        way: how.
        mesh: devices that share every batch.
        first, count: which samples.
        batch: images in a batch, a multiple of the devices.
    """

    model: Trained
    way: Way
    mesh: Mesh
    first: int
    count: int
    batch: int
    broken: int = field(default=0, init=False)
    """Samples so far that are no numbers."""
    _times: list[tuple[int, float]] = field(default_factory=list, init=False)

    @property
    def together(self) -> int:
        """Samples that are drawn at once: as many batches as the devices hold."""
        height, width = self.model.size
        each = POSITIONS_AT_ONCE // (height * width) * self.mesh.size
        most = -(-self.count // self.batch)
        return min(max(each // self.batch, 1), most) * self.batch

    @property
    def seconds(self) -> float:
        """Seconds an image; of the first draw, which compiles, only if it is alone."""
        times = self._times[1:] or self._times
        return sum(t for _, t in times) / max(sum(n for n, _ in times), 1)

    @property
    def compiled(self) -> bool:
        """Whether `seconds` is free of compilation."""
        return len(self._times) > 1

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-self.count // self.batch)

    def labels(self, seeds: np.ndarray) -> np.ndarray | None:
        """Return the class of each seed; None of an unconditional model."""
        return seeds % self.model.classes if self.model.classes else None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Draw, and give batches `{"image", "mask", "index"}`; `mask` is False where a
        sample only fills up the batch, or is no numbers.

        Raises:
            ValueError: no sample is numbers.
        """
        model, way, together = self.model, self.way, self.together
        drawer = Drawer(
            model.network,
            model.schedule,
            self.mesh,
            target=model.target,
            stepper=make_stepper(way.sampler, way.eta),
            times=spaced(model.schedule.steps, way.steps),
            guidance=way.guidance,
        )
        decoder = Decoder(model.autoencoder, self.mesh)
        values = values_of(model.network)
        for place in range(0, self.count, together):
            begun = time.perf_counter()
            numbers = np.arange(place, place + together)
            wanted = numbers < self.count
            # Those past the last are drawn again from the first ones' seeds.
            seeds = self.first + numbers % self.count
            latents = drawer.draw(values, seeds, self.labels(seeds), model.size)
            pixels, finite = decoder.decode(np.asarray(latents), self._decoded)
            self._times.append((int(wanted.sum()), time.perf_counter() - begun))
            self.broken += int((wanted & ~finite).sum())
            for start in range(0, together, self.batch):
                part = slice(start, start + self.batch)
                if wanted[part].any():
                    yield {
                        "image": pixels[part],
                        "mask": (wanted & finite)[part],
                        "index": numbers[part],
                    }

        if self.broken == self.count:
            raise ValueError(
                "the model draws no numbers: its training has diverged; evaluate an "
                "earlier checkpoint, RUN/checkpoints/STEP"
            )

    @property
    def _decoded(self) -> int:
        height, width = (side * self.model.factor for side in self.model.size)
        each = max(PIXELS_AT_ONCE // (height * width), 1)
        return min(each, self.together // self.mesh.size)
