"""One scale of single-image diffusion, backwards: from a noised image to an image.

The denoiser's noise gives the mean of the image at that time; what it has of the
enlarged image is taken out, and put back as much as the next time has of it:

    m   = (x_t - sigma_t eps) / alpha_t
    x_0 = (m - gamma_t u) / (1 - gamma_t)
    x_t-1 = alpha_t-1 clip(gamma_t-1 u + (1 - gamma_t-1) x_0)
            + sqrt(sigma_t-1^2 - s^2) (x_t - alpha_t clip(m)) / sigma_t + s z

u is the enlarged image, clip holds to [-1, 1], and s = 0 above the coarsest scale. At
the coarsest gamma = 0, and s is that of ancestral sampling: DDPM.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from deepprism_jax.diffusion.prediction import Target, denoised
from deepprism_jax.diffusion.pyramid import Arrays
from deepprism_jax.diffusion.schedules import Schedule

DenoiseAtScale = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""x [B, H, W, C], time [B] and scale [B] to the noise in x."""


def as_partial(function: Callable[..., Any]) -> jax.tree_util.Partial:
    """Return what can be passed to a compiled function, as a tree of its arrays."""
    if isinstance(function, jax.tree_util.Partial):
        return function
    return jax.tree_util.Partial(function)


def noise_of(
    predict: Callable[..., jax.Array], target: Target, schedule: Schedule
) -> jax.tree_util.Partial:
    """Return the denoiser of a network that predicts something else than the noise.

    Args:
        predict: x [B, H, W, C], time [B] and scale [B] to the target.
        target: what it predicts.
        schedule: of the noise.

    Raises:
        ValueError: the target is unknown.
    """
    if target == "eps":
        return as_partial(predict)
    if target not in get_args(Target):
        known = list(get_args(Target))
        raise ValueError(f"target={target!r} is unknown; choose one of {known}")
    return jax.tree_util.Partial(_NoiseOf(target), as_partial(predict), schedule)


@dataclass(frozen=True)
class _NoiseOf:
    """Compared by its value, so that equal ones are compiled once."""

    target: Target

    def __call__(self, predict, schedule, x, t, scale):
        alpha, sigma = schedule.at(t, x.ndim)
        found = predict(x, t, scale)
        return denoised(self.target, found, x, alpha, sigma).eps


class Guide(NamedTuple):
    """What is done to a predicted image: x_0 becomes keep x_0 + add."""

    keep: Float[Arrays, "h w _"]
    add: Float[Arrays, "h w c"]


class Rows(NamedTuple):
    """What each step needs, in the order in which steps are taken."""

    t: Any
    alpha: Any
    sigma: Any
    blur: Any
    next_alpha: Any
    next_blur: Any
    along: Any
    """Of the noise that is there, what stays."""
    fresh: Any
    """Noise drawn anew, s."""


def rows_of(
    schedule: Schedule,
    blur: Float[np.ndarray, " t"],
    begin: int,
    eta: float,
    omega: float = 0.0,
) -> Rows:
    """Return the steps t = begin - 1 ... 0.

    Fresh noise is DDIM's, of which `eta` is the share, or `omega` of all variance,
    whichever is more.
    """
    alpha, sigma = (np.asarray(table, np.float64)[:begin] for table in schedule)
    blur = np.asarray(blur, np.float64)[:begin]
    next_alpha = np.append(1.0, alpha[:-1])
    next_sigma = np.append(0.0, sigma[:-1])
    kept = alpha / next_alpha
    fresh = eta * next_sigma / sigma * np.sqrt(1 - kept * kept)
    fresh = np.maximum(fresh, np.sqrt(omega) * next_sigma)
    along = np.sqrt(np.maximum(next_sigma**2 - fresh**2, 0.0)) / sigma
    columns = (alpha, sigma, blur, next_alpha, np.append(0.0, blur[:-1]), along, fresh)
    times = np.arange(begin, dtype=np.int32)[::-1]
    return Rows(times, *(column[::-1].astype(np.float32) for column in columns))


def step_back(
    x: Float[Arrays, "b h w c"],
    eps: Float[Arrays, "b h w c"],
    row: Rows,
    enlarged: Float[Arrays, "b h w c"],
    guide: Guide | None = None,
) -> Float[Array, "b h w c"]:
    """Return x_t-1 of x_t and the noise predicted in it, but for fresh noise."""
    mean = (x - row.sigma * eps) / row.alpha
    x0 = (mean - row.blur * enlarged) / (1 - row.blur)
    if guide is not None:
        x0 = guide.keep * x0 + guide.add
    mixed = jnp.clip(row.next_blur * enlarged + (1 - row.next_blur) * x0, -1, 1)
    noise = x - row.alpha * jnp.clip(mean, -1, 1)  # times sigma, which along divides by
    return row.next_alpha * mixed + row.along * noise


def first_noise(
    key: jax.Array, shape: tuple[int, ...], first: int = 0
) -> Float[np.ndarray, "b h w c"]:
    """Return normal noise, of each image by its own number, counted from `first`.

    So an image is the same in whatever batch it is drawn. Drawn by NumPy: there is one
    shape a scale, and JAX would take longer to compile each than to run it.
    """
    words = np.asarray(jax.random.key_data(key)).ravel().tolist()
    generators = (np.random.default_rng([*words, first + n]) for n in range(shape[0]))
    drawn = [g.standard_normal(shape[1:], np.float32) for g in generators]
    return np.stack(drawn)


def fresh_noise(
    key: jax.Array, x: Float[Array, "b h w c"], first: jax.Array
) -> Float[Array, "b h w c"]:
    """Do as `first_noise` within a compiled program."""
    size = math.prod(x.shape[1:])  # one axis compiles in half the time of three

    def draw(number: jax.Array) -> jax.Array:
        return jax.random.normal(jax.random.fold_in(key, number), (size,), x.dtype)

    return jax.vmap(draw)(first + jnp.arange(x.shape[0])).reshape(x.shape)


@partial(jax.jit, static_argnames="stochastic")
def walk(
    denoise: Any,
    rows: Rows,
    scale: jax.Array,
    start: jax.Array,
    noise: jax.Array | None,
    key: jax.Array,
    first: jax.Array,
    guide: Guide | None,
    *,
    stochastic: bool,
) -> jax.Array:
    """Take images [B, H, W, C] from the first row to the end, by one scan.

    They begin as `start`, noised as at the first row; without noise, as they are.
    `denoise` is a `jax.tree_util.Partial`, so that its parameters are arguments of the
    compiled program, and not a part of it.
    """
    batch, x = start.shape[0], start
    if noise is not None:
        x = rows.alpha[0] * start + rows.sigma[0] * noise

    def step(x, row):
        t = jnp.full((batch,), row.t)
        eps = denoise(x, t, jnp.full((batch,), scale)).astype(x.dtype)
        x = step_back(x, eps, row, start, guide)
        if stochastic:
            x = x + row.fresh * fresh_noise(jax.random.fold_in(key, row.t), x, first)
        return x, None

    return lax.scan(step, x, rows)[0]
