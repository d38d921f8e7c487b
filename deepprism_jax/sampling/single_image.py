"""Drawing from single-image models (SinDDM), by a plan."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from deepprism_jax.diffusion.multiscale import (
    GuideOfScale,
    MultiScale,
    sample_scales,
)
from deepprism_jax.diffusion.prediction import Target
from deepprism_jax.diffusion.pyramid import Pyramid
from deepprism_jax.evaluation.setup import FailedError
from deepprism_jax.evaluation.single_image.drawing import make_denoise
from deepprism_jax.evaluation.single_image.folder import PIXELS_AT_ONCE
from deepprism_jax.layers.functional import values_of
from deepprism_jax.ops import to_uint8
from deepprism_jax.sampling.drawing import Advance
from deepprism_jax.sampling.pictures import Pixels
from deepprism_jax.sampling.plan import Plan
from deepprism_jax.training.sharding import replicated

Finish = Callable[[jax.Array], jax.Array]
"""Images [b, h, w, c] in [-1, 1] to such images."""


@dataclass(frozen=True)
class Model:
    """A trained model of one image."""

    name: str
    """Of its image."""
    step: int
    """Training step of its checkpoint."""
    network: Any
    """The denoiser."""
    image: Pixels
    """What it was trained on."""
    pyramid: Pyramid
    process: MultiScale
    target: Target = "eps"
    """What the network predicts."""
    has_image: bool = True
    """Whether image and pyramid are the training image's, and not black."""


def per_device(
    batch: int,
    size: tuple[int, int],
    count: int,
    devices: int,
    at_once: int = PIXELS_AT_ONCE,
) -> int:
    """Return how many images of (height, width) every device draws at once.

    Args:
        batch: as asked for; 0 chooses by the size.
        size: of the images.
        count: how many images there are.
        devices: that share them.
        at_once: pixels that a device has room for.
    """
    most = batch or max(at_once // math.prod(size), 1)
    return min(most, math.ceil(count / devices))


def times_of(process: MultiScale, plan: Plan) -> list[int]:
    """Return the steps at every scale that the plan draws."""
    times = [int(start) for start in process.starts]
    if plan.begin is not None:
        times[plan.first_scale] = plan.begin
    return times[plan.first_scale :]


def work_of(process: MultiScale, plan: Plan) -> list[int]:
    """Return the pixels of an image that every scale of the plan goes over."""
    sizes = plan.sizes[plan.first_scale :]
    steps = times_of(process, plan)
    return [n * math.prod(size) for n, size in zip(steps, sizes, strict=True)]


def draw(
    model: Model,
    plan: Plan,
    mesh: Mesh,
    *,
    first: int,
    count: int,
    batch: int,
    advance: Advance,
    start: Any = None,
    guide: GuideOfScale | None = None,
    finish: Finish = lambda x: x,
    omega: float = 0.0,
) -> Iterator[Pixels]:
    """Draw the images of the seeds `first` ... `first + count - 1`, in this order.

    An image depends on its seed and not on those that are drawn with it.

    Args:
        model: what draws.
        plan: how.
        mesh: devices that share every batch.
        first, count: which images.
        batch: images at once on every device.
        advance: told how much of the `work_of` the images is done.
        start: image in [-1, 1] to begin with; noise if None.
        guide: what is done to predicted images.
        finish: what is done to the images of the last scale, in [-1, 1].
        omega: share of noise that is drawn anew in every step above the coarsest scale.

    Raises:
        FailedError: the model gave no numbers.
    """
    denoise = jax.tree_util.Partial(
        make_denoise(model.network, model.target, model.process, mesh),
        jax.device_put(values_of(model.network), replicated(mesh)),
    )
    together = batch * mesh.size
    work = work_of(model.process, plan)
    for place in range(0, count, together):
        wanted = min(together, count - place)
        x = jnp.zeros(())
        for x, done in zip(
            sample_scales(
                denoise,
                model.process,
                together,
                model.image.shape[-1],
                jax.random.key(0),
                sizes=plan.sizes,
                first_scale=plan.first_scale,
                start=start,
                begin=plan.begin,
                blurred=plan.begin is None,
                guide=guide,
                omega=omega,
                first=first + place,
            ),
            work,
            strict=True,
        ):
            x.block_until_ready()
            advance(wanted * done)
        pixels, finite = _pixels(finish(x))
        if not finite:
            raise FailedError(
                f"{model.name} at step {model.step} draws no numbers; take an earlier "
                "checkpoint, WORKDIR/checkpoints/STEP"
            )
        yield from np.asarray(pixels)[:wanted]


@jax.jit
def _pixels(images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return images as 8-bit pixels, and whether all were numbers."""
    return to_uint8(images), jnp.isfinite(images).all()
