"""The loss of single-image diffusion, and its gradients for many models at once.

A step is of one scale, and draws for every copy of the image in the batch a time below
T_s and noise (Kulikov et al., 2022, algorithm 1). Models that train together draw the
same: so each is trained exactly as it would be alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from deepprism_jax.diffusion.multiscale import MultiScale, noised
from deepprism_jax.diffusion.prediction import Target, target_of
from deepprism_jax.diffusion.pyramid import Pyramid, Size
from deepprism_jax.diffusion.schedules import Schedule
from deepprism_jax.layers.functional import Functional, Values
from deepprism_jax.training.sharding import AXES, DATA_AXIS, FSDP_AXIS

MODELS_AXIS, COPIES_AXIS = DATA_AXIS, FSDP_AXIS
"""Axes of the mesh: over one lie the models, over the other the copies of a batch."""


class Pictures(NamedTuple):
    """What N models are trained on: every leaf has N rows."""

    images: tuple[Any, ...]
    """By scale, [N, h, w, c]."""
    enlarged: tuple[Any, ...]
    blur: Any
    """[N, S, T]"""
    starts: Any
    """[N, S]"""


def stack(pairs: Sequence[tuple[Pyramid, MultiScale]]) -> Pictures:
    """Return the pyramids and processes of images of one size as one."""
    pyramids, processes = zip(*pairs, strict=True)
    return Pictures(
        tuple(np.stack(x) for x in zip(*(p.images for p in pyramids), strict=True)),
        tuple(np.stack(x) for x in zip(*(p.enlarged for p in pyramids), strict=True)),
        np.stack([process.blur for process in processes]),
        np.stack([process.starts for process in processes]),
    )


@dataclass(frozen=True)
class DenoisingLoss:
    """The error of what one model predicts at one scale.

    Args:
        network: the denoiser.
        schedule: of the noise.
        target: what the network predicts.
        kind: `l1` or `l2`, mean absolute or mean square error.
    """

    network: Functional
    schedule: Schedule
    target: Target
    kind: str

    def __call__(
        self,
        values: Values,
        pictures: Pictures,
        scale: int,
        u: jax.Array,
        eps: jax.Array,
    ) -> jax.Array:
        """Return the mean error, a scalar.

        Args:
            values: of the model.
            pictures: of this model alone.
            scale: which one.
            u: by which times are drawn, [B] in [0, 1).
            eps: noise [B, h, w, c] of the size of the scale.
        """
        process = MultiScale((), self.schedule, pictures.blur, pictures.starts)
        starts = pictures.starts[scale]
        t = jnp.minimum((u * starts).astype(jnp.int32), starts - 1)
        image, enlarged = pictures.images[scale], pictures.enlarged[scale]
        alpha, sigma = self.schedule.at(t, 4)
        x_t = noised(image, enlarged, eps, t, process, scale)
        mixed = (x_t - sigma * eps) / alpha
        scales = jnp.full(t.shape, scale, jnp.int32)
        target = target_of(self.target, mixed, eps, alpha, sigma)
        error = self.network.bind(values)(x_t, t, scales) - target
        return jnp.mean(jnp.abs(error) if self.kind == "l1" else jnp.square(error))


@dataclass(frozen=True)
class DenoisingGradients:
    """The gradients of all models, as one program over a mesh.

    Args:
        loss: of one model.
        mesh: of the run; models lie over `data`, copies of the images over `fsdp`.
        sizes: of the scales.
        channels: of the images.
        batch_size: copies of every image in a step.
        vectorize: how models of one device are computed; see `over_models`.
    """

    loss: DenoisingLoss
    mesh: Mesh
    sizes: tuple[Size, ...]
    channels: int
    batch_size: int
    vectorize: bool

    def __call__(
        self,
        params: Values,
        key: jax.Array,
        step: jax.Array,
        pictures: Pictures,
        scale: int,
    ) -> tuple[Values, jax.Array]:
        """Return gradients like `params`, and the mean loss over models and copies."""
        models, everywhere = PartitionSpec(MODELS_AXIS), PartitionSpec()
        on_all = jax.shard_map(
            partial(self._on_device, scale),
            mesh=self.mesh,
            in_specs=(models, everywhere, everywhere, models),
            out_specs=(models, everywhere),
            check_vma=False,
        )
        return on_all(params, key, step, pictures)

    def _on_device(self, scale, params, key, step, pictures):
        key = jax.random.fold_in(jax.random.wrap_key_data(key), step)
        copies = self.batch_size // lax.axis_size(COPIES_AXIS)
        places = lax.axis_index(COPIES_AXIS) * copies + jnp.arange(copies)
        keys = jax.vmap(lambda place: jax.random.fold_in(key, place))(places)
        losses, grads = self._at_scale(scale, params, pictures, keys)
        grads = lax.pmean(grads, COPIES_AXIS)
        return grads, lax.pmean(jnp.mean(losses), AXES)

    def _at_scale(self, scale, params, pictures, keys):
        shape = (*self.sizes[scale], self.channels)

        def draw(key):
            time_key, noise_key = jax.random.split(key)
            return jax.random.uniform(time_key), jax.random.normal(noise_key, shape)

        u, eps = jax.vmap(draw)(keys)

        def of_one(params, pictures):
            return jax.value_and_grad(self.loss)(params, pictures, scale, u, eps)

        return over_models(of_one, vectorize=self.vectorize)(params, pictures)


def over_models(function: Callable[..., Any], *, vectorize: bool) -> Callable[..., Any]:
    """Let a function of one model be one of many, along the first axis of all.

    All at once by `jax.vmap`, or one after the other: what is batched over kernels
    becomes a convolution in groups, which CPUs are slow at.
    """

    def of_many(*operands):
        count = len(jax.tree.leaves(operands)[0])
        if count == 1:
            only = jax.tree.map(lambda x: x[0], operands)
            return jax.tree.map(lambda x: x[None], function(*only))
        if vectorize:
            return jax.vmap(function)(*operands)
        return lax.map(lambda each: function(*each), operands)

    return of_many
