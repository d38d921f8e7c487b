"""What is measured and shown of a denoiser of latents during training."""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from deepprism_jax.diffusion.samplers import make_stepper, spaced
from deepprism_jax.training.grids import enlargement, image_grid
from deepprism_jax.training.ldm.cache import LatentCache
from deepprism_jax.training.ldm.drawing import Decoder, Drawer
from deepprism_jax.training.ldm.latents import HeldOut
from deepprism_jax.training.ldm.networks import latent_shape
from deepprism_jax.training.ldm.trainer import LDMTrainer
from deepprism_jax.training.sharding import (
    data_part,
    make_mesh,
    replicated,
    spread,
)

QUARTERS = 4
"""Parts of the times, of which each has its error."""

ROWS, COLUMNS = 10, 8
"""Classes that are shown, and samples of each."""
STEPS = 25
"""Steps of the sampler."""

_SEED = 20_211_220


class LDMEvaluator:
    """Errors on held-out latents, by noise that stays the same, and samples.

    Args:
        trainer: of the run.
        held_out: latents, or images where pixels are diffused.
        interrupted: asked before each batch; an evaluation that it ends gives nothing.
    """

    ranking = None

    def __init__(
        self,
        trainer: LDMTrainer,
        held_out: HeldOut,
        interrupted: Callable[..., bool] = lambda what: False,
    ):
        self._trainer, self._held_out = trainer, held_out
        self._interrupted = interrupted

    def scores(self, values: Any) -> dict[str, float]:
        """Return the mean square error of what is predicted, and by quarter of times.

        Latent number n has a time in quarter n mod 4, and noise, of its own. Errors are
        not weighted, so they compare with those of other runs of the same target.
        """
        total = np.zeros((QUARTERS, 2))
        for batch in self._batches():
            if self._interrupted("a batch of the evaluation"):
                return {}
            total += np.asarray(self._errors(values, self._trainer.shard_batch(batch)))
        errors = total[:, 0] / np.maximum(total[:, 1], 1)
        scores = {f"loss_{n}": float(error) for n, error in enumerate(errors)}
        return {"loss": float(total[:, 0].sum() / total[:, 1].sum()), **scores}

    def pictures(self, values: Any) -> dict[str, np.ndarray]:
        """Return a few samples of each of the first classes, uint8 [H, W, 3].

        From the same noise each time, by DDIM. Every process draws them by itself.
        """
        values = self._trainer.gathered(values)
        classes = self._held_out.classes[:ROWS] or ("samples",)
        count = len(classes) * COLUMNS
        height, width, _ = latent_shape(self._trainer.config)

        def advanced(steps: int) -> None:
            self._interrupted("the samples")

        devices = self._mesh.size
        places = np.arange(-(-count // devices) * devices) % count
        labelled = bool(self._held_out.classes)
        latents = self._drawer.draw(
            values,
            places,
            places // COLUMNS if labelled else None,
            (height, width),
            advanced=advanced,
        )
        images, _ = self._decoder.decode(np.asarray(latents), COLUMNS)
        rows = images[:count].reshape(len(classes), COLUMNS, *images.shape[1:])
        grid = image_grid(
            dict(zip(classes, rows, strict=True)),
            scale=enlargement(images.shape[1]),
            captions=labelled,
        )
        return {"samples": grid}

    @cached_property
    def _mesh(self) -> Mesh:
        return make_mesh(jax.local_devices())

    @cached_property
    def _drawer(self) -> Drawer:
        objective = self._trainer.objective
        times = spaced(objective.schedule.steps, min(STEPS, objective.schedule.steps))
        return Drawer(
            self._trainer.model,
            objective.schedule,
            self._mesh,
            target=objective.target,
            stepper=make_stepper("ddim"),
            times=times,
        )

    @cached_property
    def _decoder(self) -> Decoder:
        return Decoder(self._trainer.autoencoder, self._mesh)

    def _batches(self) -> Iterator[Mapping[str, np.ndarray]]:
        """Held-out latents as batches with `mask` and `index`, of this process."""
        labelled = bool(self._trainer.config.model.classes)
        if self._held_out.latents is None:
            for batch in self._held_out.images:
                yield {k: x for k, x in batch.items() if labelled or k != "label"}
            return
        cache = self._cache
        index, count = data_part(self._trainer.mesh)
        # As many as in a step of training, which needs more room.
        train = self._trainer.config.train
        together = train.batch_size // train.accumulation
        for first in range(0, len(cache), together):
            places = np.arange(first, first + together)
            places = np.array_split(places, count)[index]
            mask = places < len(cache)
            kept = np.where(mask, places, 0)
            rows = cache.rows(kept, np.zeros(len(kept), bool))
            if not labelled:
                del rows["label"]
            yield {**rows, "mask": mask, "index": places}

    @cached_property
    def _cache(self) -> LatentCache:
        assert self._held_out.latents is not None
        return self._held_out.latents.cache()

    @cached_property
    def _errors(self) -> Callable[..., jax.Array]:
        """`(values, batch) -> sums of errors and counts, by quarter, [4, 2]`."""
        objective, mesh = self._trainer.objective, self._trainer.mesh
        steps = objective.schedule.steps

        def local(values: Any, batch: Mapping[str, jax.Array]) -> jax.Array:
            inputs = {k: x for k, x in batch.items() if k not in ("mask", "index")}
            z = objective.drawn(inputs, jnp.float32(0.0))
            x0 = objective.network.bind(values).normalize(z)

            def draw(index: jax.Array) -> tuple[jax.Array, jax.Array]:
                key = jax.random.fold_in(jax.random.key(_SEED), index)
                of_time, of_noise = jax.random.split(key)
                share = (index % QUARTERS + jax.random.uniform(of_time)) / QUARTERS
                t = jnp.minimum((share * steps).astype(jnp.int32), steps - 1)
                return t, jax.random.normal(of_noise, x0.shape[1:])

            t, eps = jax.vmap(draw)(batch["index"])
            labels = None
            if objective.classes:
                labels = objective.known(batch["label"])
            errors = objective.errors(values, x0, t, eps, labels)
            quarter = jax.nn.one_hot(batch["index"] % QUARTERS, QUARTERS)
            quarter *= batch["mask"][:, None]
            return jnp.stack([quarter * errors[:, None], quarter], axis=-1)

        on_all = spread(mesh, local)
        return jax.jit(
            lambda values, batch: jnp.sum(on_all(values, batch), axis=0),
            in_shardings=(self._trainer.values_sharding, self._trainer.batch_sharding),
            out_shardings=replicated(mesh),
        )
