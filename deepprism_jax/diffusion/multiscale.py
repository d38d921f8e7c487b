"""Single-image diffusion over a pyramid (SinDDM: Kulikov et al., 2022): the process.

At scale s the image x_0 gives way to u, the scale before enlarged, while noise comes:

    x_t = alpha_t (gamma_t u + (1 - gamma_t) x_0) + sigma_t eps,     t < T_s

gamma is the row of `blur`. At T_s only u is left, so that sampling begins there, with
the image that the scale before ended in. The coarsest scale begins with noise.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from deepprism_jax.diffusion.pyramid import Arrays, Pyramid, Size, enlarge
from deepprism_jax.diffusion.rescale import Reading, blur_of, rescale_losses, starts_of
from deepprism_jax.diffusion.reverse import (
    DenoiseAtScale,
    Guide,
    as_partial,
    first_noise,
    rows_of,
    walk,
)
from deepprism_jax.diffusion.schedules import Schedule, add_noise

GuideOfScale = Callable[[int, Size], Guide | None]
"""A scale and the size there to what is done to its predicted images."""


class MultiScale(NamedTuple):
    """The process of all scales S of a pyramid, over the times T of a schedule."""

    sizes: tuple[Size, ...]
    schedule: Schedule
    blur: Float[Arrays, "s t"]
    """gamma: the share of the enlarged image; row 0 is zero."""
    starts: Int[Arrays, " s"]
    """T_s: the times of a scale are those below."""


def multi_scale(
    pyramid: Pyramid,
    schedule: Schedule,
    *,
    reading: Reading = "area",
    factor: float = 1.0,
) -> MultiScale:
    """Return the process of a pyramid.

    Args:
        pyramid: of the image.
        schedule: of the noise.
        reading: how the distance between scales is measured, see `rescale_losses`.
        factor: multiplies these distances, so that more noise is added.

    Raises:
        ValueError: the reading is unknown, or the factor is not above 0.
    """
    if not factor > 0:
        raise ValueError(f"factor={factor} must be above 0")
    losses = factor * rescale_losses(pyramid, reading)
    blur, starts = blur_of(losses, schedule), starts_of(losses, schedule)
    return MultiScale(pyramid.sizes, schedule, blur, starts)


def mixed(
    image: Float[Arrays, "*b h w c"],
    enlarged: Float[Arrays, "*b h w c"],
    t: Int[Arrays, " b"],
    process: MultiScale,
    scale: int | jax.Array,
) -> Float[Array, "b h w c"]:
    """Return what noise is added to: the image at time t gone over to the enlarged one.

    Both may be one image for the whole batch. `process` may hold traced arrays.
    """
    blur = jnp.asarray(process.blur)[scale, t].reshape(-1, 1, 1, 1)
    image = jnp.asarray(image)
    return image + blur * (enlarged - image)


def noised(
    image: Float[Arrays, "*b h w c"],
    enlarged: Float[Arrays, "*b h w c"],
    eps: Float[Arrays, "b h w c"],
    t: Int[Arrays, " b"],
    process: MultiScale,
    scale: int | jax.Array,
) -> Float[Array, "b h w c"]:
    """Return x_t of a scale's image and the enlarged one before it, as `mixed`."""
    x0 = mixed(image, enlarged, t, process, scale)
    return add_noise(x0, jnp.asarray(eps), jnp.asarray(t), process.schedule)


def sample_scale(
    denoise: DenoiseAtScale,
    process: MultiScale,
    scale: int,
    start: Float[Arrays, "b h w c"],
    key: jax.Array,
    *,
    begin: int | None = None,
    blurred: bool = True,
    guide: Guide | None = None,
    eta: float | None = None,
    omega: float = 0.0,
    most_blur: float = 0.55,
    first: int = 0,
) -> Float[Array, "b h w c"]:
    """Draw images of one scale, of the size of `start`.

    Args:
        denoise: gives the noise in x [B, h, w, C] at times [B] and scales [B]. Made as
            `jax.tree_util.Partial(function, parameters)`, it is compiled once for all
            parameters and calls with the same function; a plain function is compiled
            with what it closes over. See `reverse.noise_of` for other targets.
        process: the process of all scales, of arrays that are not traced.
        scale: which one.
        start: the image of the scale before, enlarged, in [-1, 1], to be noised here;
            at scale 0, if `begin` is not given, the noise itself.
        key: of the noise.
        begin: times to go through, 0 ... T; `process.starts[scale]` if None. The fewer,
            the more is kept of `start`.
        blurred: whether `start` is blurred, as the process says, rather than sharp.
        guide: changes the predicted image.
        eta: fresh noise in each step, 0 ... 1; None is 1 at scale 0 and 0 above.
        omega: above scale 0, the share of noise that is drawn anew in each step, by
            variance, 0 ... 1: the official program's option.
        most_blur: bound of gamma, below 1: 1 - gamma divides.
        first: number of the first image. Each draws its noise by its number, so that an
            image is the same in any batch.

    Raises:
        ValueError: an option lies outside its range.
    """
    steps = int(process.starts[scale]) if begin is None else begin
    _check(process, scale, steps, eta, omega, most_blur)
    if steps == 0:
        return jnp.asarray(start)
    key = jax.random.fold_in(key, scale)
    is_noise = scale == 0 and begin is None
    share = (1.0 if scale == 0 else 0.0) if eta is None else eta
    blur = np.minimum(process.blur[scale], most_blur if blurred else 0.0)
    return walk(
        as_partial(denoise),
        rows_of(process.schedule, blur, steps, share, omega if scale else 0.0),
        np.int32(scale),
        start,
        None if is_noise else first_noise(key, start.shape, first),
        key,
        np.int32(first),
        guide,
        stochastic=share > 0 or (omega > 0 and scale > 0),
    )


def sample(
    denoise: DenoiseAtScale,
    process: MultiScale,
    count: int,
    channels: int,
    key: jax.Array,
    **options: Any,
) -> Float[Array, "b h w c"]:
    """Draw images of the last scale, in [-1, 1]; options as `sample_scales`."""
    *_, images = sample_scales(denoise, process, count, channels, key, **options)
    return images


def sample_scales(
    denoise: DenoiseAtScale,
    process: MultiScale,
    count: int,
    channels: int,
    key: jax.Array,
    *,
    multiples: tuple[float, float] = (1.0, 1.0),
    sizes: Sequence[Size] | None = None,
    first_scale: int = 0,
    start: Float[Arrays, "*b h w c"] | None = None,
    begin: int | None = None,
    blurred: bool = True,
    guide: GuideOfScale | None = None,
    eta: float | None = None,
    omega: float = 0.0,
    most_blur: float = 0.55,
    first: int = 0,
) -> Iterator[Float[Array, "b h w c"]]:
    """Return the images that each scale ends in, from `first_scale` to the last.

    They are drawn one scale after another as they are asked for.

    Args:
        denoise: as of `sample_scale`.
        process: the process of all scales.
        count: how many images.
        channels: of each.
        key: of all noise.
        multiples: height and width in those of the training image.
        sizes: of each scale, instead; see `sizes_ending_in`.
        first_scale: where to begin.
        start: what to begin with, one image or `count` of them, of any size, in
            [-1, 1]; without one, the coarsest scale begins with noise.
        begin: times to go through at the first scale; those of the process if None.
        blurred: whether `start` is blurred, as an enlarged image is.
        guide: gives what is done to predicted images of a scale and size, if anything.
        eta, omega, most_blur, first: as of `sample_scale`.

    Raises:
        ValueError: there is no such scale, a scale above the coarsest has no start, or
            an option lies outside its range.
    """
    scales = len(process.sizes)
    if not 0 <= first_scale < scales:
        raise ValueError(f"first_scale={first_scale} must lie in [0, {scales - 1}]")
    if start is None and (first_scale > 0 or begin is not None):
        raise ValueError("start is missing: only the coarsest scale begins with noise")
    if count < 1:
        raise ValueError(f"count={count} must be at least 1")
    sizes = output_sizes(process.sizes, multiples) if sizes is None else tuple(sizes)
    if len(sizes) != scales:
        raise ValueError(f"sizes has {len(sizes)} entries; there are {scales} scales")
    if start is None:
        x = first_noise(key, (count, *sizes[0], channels), first)
    else:
        shape = (count, *np.shape(start)[-3:])
        x = np.broadcast_to(np.asarray(start, np.float32), shape)
        begin = int(process.starts[first_scale]) if begin is None else begin
    _check(process, first_scale, begin or 0, eta, omega, most_blur)

    def draw(x):
        for scale in range(first_scale, scales):
            is_first = scale == first_scale
            x = sample_scale(
                denoise,
                process,
                scale,
                x if x.shape[1:3] == sizes[scale] else enlarge(x, sizes[scale]),
                key,
                begin=begin if is_first else None,
                blurred=blurred or not is_first,
                guide=guide(scale, sizes[scale]) if guide else None,
                eta=eta,
                omega=omega,
                most_blur=most_blur,
                first=first,
            )
            yield x

    return draw(x)


def output_sizes(
    sizes: Sequence[Size], multiples: tuple[float, float]
) -> tuple[Size, ...]:
    """Return the sizes of all scales, multiplied in height and width.

    Raises:
        ValueError: a multiple is not above 0.
    """
    if not min(multiples) > 0:
        raise ValueError(f"multiples={multiples} must be above 0, height and width")
    tall, wide = multiples
    return tuple((max(1, round(h * tall)), max(1, round(w * wide))) for h, w in sizes)


def sizes_ending_in(sizes: Sequence[Size], last: Size) -> tuple[Size, ...]:
    """Return the sizes of all scales of images whose last scale is of a given size."""
    ends = sizes[-1]
    return output_sizes(sizes, (last[0] / ends[0], last[1] / ends[1]))


def _check(
    process: MultiScale,
    scale: int,
    steps: int,
    eta: float | None,
    omega: float,
    most_blur: float,
) -> None:
    """Refuse what no scale can be drawn with."""
    if not 0 <= scale < len(process.sizes):
        raise ValueError(f"scale={scale} must lie in [0, {len(process.sizes) - 1}]")
    if not 0 <= steps <= process.schedule.steps:
        raise ValueError(f"begin={steps} must lie in [0, {process.schedule.steps}]")
    if eta is not None and not 0 <= eta <= 1:
        raise ValueError(f"eta={eta} must lie in [0, 1]")
    if not 0 <= omega <= 1:
        raise ValueError(f"omega={omega} must lie in [0, 1]")
    if not 0 <= most_blur < 1:
        raise ValueError(f"most_blur={most_blur} must lie in [0, 1)")
