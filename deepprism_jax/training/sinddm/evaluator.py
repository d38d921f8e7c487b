"""What is measured and shown of denoisers during training: errors and samples."""

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deepprism_jax.diffusion.multiscale import sample_scales
from deepprism_jax.diffusion.reverse import noise_of
from deepprism_jax.ops import to_uint8
from deepprism_jax.training.grids import image_grid
from deepprism_jax.training.sinddm.objective import Pictures
from deepprism_jax.training.sinddm.process import make_process
from deepprism_jax.training.sinddm.trainer import SinDDMTrainer

MODELS = 4
"""Models that are shown, of a run that trains more."""
SAMPLES = 4
"""Samples of each, where `train.eval_images` does not say."""
TIMES = 8
"""Times below T_s at which the error is measured at each scale."""

_SEED = 20_221_129


class SinDDMEvaluator:
    """Errors on noise that stays the same, and samples from the same noise each time.

    Args:
        trainer: of the run.
        pictures: its images by name.
        interrupted: asked before each scale; an evaluation that it ends gives nothing.
    """

    ranking = None

    def __init__(
        self,
        trainer: SinDDMTrainer,
        pictures: dict[str, np.ndarray],
        interrupted: Callable[..., bool] = lambda what: False,
    ):
        self._trainer, self._interrupted = trainer, interrupted
        names = trainer.names[:MODELS]
        self._images = [pictures[name] for name in names]
        self._pairs = [make_process(trainer.config, image) for image in self._images]
        self._count = trainer.config.train.eval_images or SAMPLES

    def scores(self, values: Any) -> dict[str, float]:
        """Return the error of the noise by scale, and its mean: means over models."""
        each = self._models(values)
        scores: dict[str, float] = {}
        for scale, size in enumerate(self._trainer.process.sizes):
            if self._interrupted(f"scale {scale} of the evaluation"):
                return {}
            shape = (TIMES, *size, self._trainer.config.data.channels)
            eps = np.random.default_rng([_SEED, scale]).standard_normal(shape)
            eps = eps.astype(np.float32)
            u = (np.arange(TIMES, dtype=np.float32) + np.float32(0.5)) / TIMES
            errors = [
                self._error(values, one, scale, u, eps)
                for values, one in zip(each, self._stacked, strict=True)
            ]
            scores[f"loss_{scale}"] = float(np.mean(jax.device_get(errors)))
        return {"loss": float(np.mean(list(scores.values()))), **scores}

    def pictures(self, values: Any) -> dict[str, np.ndarray]:
        """Return each image with its samples, rows of the first few models."""
        rows: dict[str, np.ndarray] = {}
        each = self._models(values)
        for name, image, pair, model in zip(
            self._trainer.names, self._images, self._pairs, each, strict=False
        ):
            scales = sample_scales(
                noise_of(
                    jax.tree_util.Partial(self._predict, model),
                    self._trainer.config.diffusion.target,
                    pair[1].schedule,
                ),
                pair[1],
                self._count,
                self._trainer.config.data.channels,
                jax.random.key(_SEED),
            )
            drawn = jnp.zeros(())
            for scale in range(len(pair[1].sizes)):
                self._interrupted(f"scale {scale} of the samples")
                drawn = jax.block_until_ready(next(scales))
            rows[name] = np.concatenate([image[None], np.asarray(to_uint8(drawn))])
        return {"samples": image_grid(rows, captions=len(rows) > 1)}

    def _models(self, values: Any) -> list[Any]:
        """Return the values of the shown models, on the host."""
        host = self._trainer.gathered(values)
        if len(self._trainer.names) == 1:
            return [host]
        shown = range(len(self._images))
        return [{name: x[row] for name, x in host.items()} for row in shown]

    @cached_property
    def _stacked(self) -> list[Pictures]:
        return [
            Pictures(pyramid.images, pyramid.enlarged, process.blur, process.starts)
            for pyramid, process in self._pairs
        ]

    @cached_property
    def _error(self) -> Callable[..., jax.Array]:
        loss = self._trainer.loss

        @partial(jax.jit, static_argnames="scale")
        def error(values, pictures, scale, u, eps):
            # One time after the other: evaluation needs no more memory than training.
            one = jax.lax.map(
                lambda pair: loss(values, pictures, scale, *pair),
                (u[:, None], eps[:, None]),
            )
            return jnp.mean(one)

        return error

    @cached_property
    def _predict(self) -> Callable[..., jax.Array]:
        network = self._trainer.network
        return lambda values, x, t, scale: network.bind(values)(x, t, scale)
