"""What leads a sampler: labels, parts of an image that stay, an image to begin with.

All of it is put around what `samplers.sample` takes, a `Denoise` or a stepper or a path
and its first x, and so goes with every sampler.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from deepprism_jax.diffusion.prediction import Denoised
from deepprism_jax.diffusion.samplers import Denoise, Path, Stepper, fold_in, normal
from deepprism_jax.diffusion.schedules import Schedule

Predict = Callable[[jax.Array, jax.Array, jax.Array], Any]
"""x_t [B, ...], the time t, a scalar, and labels [B] to a tree of arrays [B, ...]."""


def guided(
    predict: Predict,
    labels: Int[Array, " b"],
    null: int,
    scale: float | Float[Array, ""],
) -> Callable[[jax.Array, jax.Array], Any]:
    """Return what is predicted of x_t and t, pushed towards the labels.

    Classifier-free guidance (Ho and Salimans, 2022), by one evaluation of a batch twice
    as large; each part may be whatever is linear in the noise:

        null + scale (labelled - null)

    Args:
        predict: of a network that knows labels.
        labels: of each image.
        null: label of those without one.
        scale: 0 ignores the labels; the number 1 is the plain prediction, evaluated
            once; above 1 what tells the labels is exaggerated.
    """
    if isinstance(scale, int | float) and scale == 1:
        return lambda x, t: predict(x, t, labels)

    def both(x: jax.Array, t: jax.Array) -> Any:
        every = jnp.concatenate([jnp.full_like(labels, null), labels])
        found = predict(jnp.concatenate([x, x]), t, every)

        def push(pair: jax.Array) -> jax.Array:
            without, labelled = jnp.split(pair, 2)
            return without + scale * (labelled - without)

        return jax.tree.map(push, found)

    return both


def keeping(
    denoise: Denoise,
    schedule: Schedule,
    known: Float[Array, "*_"],
    noise: Float[Array, "b *_"],
    free: Bool[Array, "*_"],
) -> Denoise:
    """Return the denoiser that draws only where an image is free: inpainting.

    Whenever it is asked, x_t is there the known image with noise, and so is what it
    says that x_t consists of. The known part then follows its own path to the last bit
    under any sampler, and what is free is drawn to it. Lugmayr et al., 2022 (RePaint)
    replace between steps instead, which leaves out heun's second look.

    Args:
        denoise: of the whole image.
        schedule: of the times that it is asked at.
        known: the image, of the shape of x or to be broadcast to it.
        noise: standard normal, of the shape of x.
        free: where it is drawn, to be broadcast to x.
    """

    def ask(x: jax.Array, t: jax.Array) -> Denoised:
        alpha, sigma = (jnp.asarray(table)[t] for table in schedule)
        found = denoise(jnp.where(free, x, alpha * known + sigma * noise), t)
        return Denoised(
            jnp.where(free, found.x0, known), jnp.where(free, found.eps, noise)
        )

    return ask


def repeated(stepper: Stepper, times: int) -> Stepper:
    """Return the stepper that takes each step several times, with new noise between.

    Of an image that is partly known one step sees the known part through its noise
    alone. Going back and again lets the rest settle to it: RePaint's resampling, with
    jumps of one step. It costs `times` as many evaluations. What a stepper keeps of the
    step before does not fit after a jump: dpmpp_2m is then of first order.

    Raises:
        ValueError: there is no step.
    """
    if times < 1:
        raise ValueError(f"times={times} must be at least 1")
    if times == 1:
        return stepper

    def step(denoise, now, next_, x, memory, key, *, first, last):
        del first
        kept = now.alpha / next_.alpha
        lost = jnp.sqrt(jnp.maximum(now.sigma**2 - (kept * next_.sigma) ** 2, 0.0))

        def again(number, carry):
            there, _ = carry
            keys = fold_in(key, number)
            back = kept * there + lost * normal(fold_in(keys, 1), x)
            begin = jnp.where(number == 0, x, back)
            return stepper(
                denoise,
                now,
                next_,
                begin,
                memory,
                fold_in(keys, 0),
                first=True,
                last=last,
            )

        return lax.fori_loop(0, times, again, (x, memory))

    return step


def begun(
    path: Path,
    image: Float[Array, "*_"],
    noise: Float[Array, "b *_"],
    strength: float,
) -> tuple[Path, jax.Array]:
    """Return the rest of a path and the x to begin it with: image to image.

    So much noise is put on the image as there is after a share of the path (SDEdit:
    Meng et al., 2022).

    Args:
        path: from noise to an image.
        image: of the shape of `noise`, or to be broadcast to it.
        noise: standard normal.
        strength: share of the path's steps to take: 0 gives the image as it is, 1
            begins with the noise alone.

    Raises:
        ValueError: the strength lies outside [0, 1].
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength={strength} must lie in [0, 1]")
    left = round(strength * path.steps)
    rest = Path(*(column[path.steps - left :] for column in path))
    image = jnp.broadcast_to(image, noise.shape)
    if strength == 1:
        return rest, noise
    return rest, rest.alpha[0] * image + rest.sigma[0] * noise


def covered(
    free: Bool[np.ndarray, "h w"], factor: int
) -> Bool[np.ndarray, "h//{factor} w//{factor}"]:
    """Return where a latent of `factor` pixels a side is free, of where its image is.

    A place is known only where all its pixels are.

    Raises:
        ValueError: the mask is no multiple of the factor.
    """
    height, width = free.shape
    if height % factor or width % factor:
        raise ValueError(f"mask of {height} x {width} must be a multiple of {factor}")
    blocks = free.reshape(height // factor, factor, width // factor, factor)
    return np.any(blocks, (1, 3))
