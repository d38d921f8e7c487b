"""Samplers: from noise to an image, along a few times of a schedule, as one loop.

A sampler is a stepper: it takes x from one time to the next lower one, given a function
that predicts image and noise. Times and coefficients are a table (`Path`), whose last
row is the image itself, alpha = 1 and sigma = 0.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from deepprism_jax.diffusion.prediction import Denoised
from deepprism_jax.diffusion.schedules import Schedule

Denoise = Callable[[jax.Array, jax.Array], Denoised]
"""x_t [B, ...] and the time t, a scalar, to image and noise."""

Spacing = Literal["leading", "trailing", "linspace"]
SamplerName = Literal["ddpm", "ddim", "heun", "dpmpp_2m"]


class Path(NamedTuple):
    """The times that a sampler stops at, and what is there; row by row downwards."""

    t: Int[Array, " n"] | Int[np.ndarray, " n"]
    alpha: Float[Array, " n"] | Float[np.ndarray, " n"]
    sigma: Float[Array, " n"] | Float[np.ndarray, " n"]

    @property
    def steps(self) -> int:
        """Steps from the first row to the last."""
        return len(self.t) - 1


class Point(NamedTuple):
    """One row of a path."""

    t: jax.Array
    alpha: jax.Array
    sigma: jax.Array


class Memory(NamedTuple):
    """What a stepper keeps of the step before."""

    x0: jax.Array
    half_log_snr: jax.Array
    """log(alpha / sigma) there."""


FAR = 50.0
"""Ratio of sigma / alpha at two times beyond which a step has no second order."""

Stepper = Callable[..., tuple[jax.Array, Any]]
"""`(denoise, now, next, x, memory, key, first=..., last=...) -> (x, memory)`."""


def fold_in(key: jax.Array, number: int | jax.Array) -> jax.Array:
    """Return the key, or the keys of a batch, of a number."""
    if key.ndim == 0:
        return jax.random.fold_in(key, number)
    return jax.vmap(lambda each: jax.random.fold_in(each, number))(key)


def normal(key: jax.Array, x: jax.Array) -> jax.Array:
    """Return standard normal noise like x [B, ...], by one key or one an image.

    With one an image, its noise does not depend on the batch that it is in.
    """
    if key.ndim == 0:
        return jax.random.normal(key, x.shape, x.dtype)
    size = math.prod(x.shape[1:])  # one axis compiles faster than three
    draw = jax.vmap(lambda each: jax.random.normal(each, (size,), x.dtype))
    return draw(key).reshape(x.shape)


def spaced(total: int, steps: int, spacing: Spacing = "trailing") -> np.ndarray:
    """Choose times of 0 ... total - 1, the noisiest first.

    | spacing | of 1000, 4 | |
    |---|---|---|
    | `leading` | 750 500 250 0 | DDPM's and DDIM's; leaves out the noisiest times |
    | `trailing` | 999 749 499 249 | begins where training ended (Lin et al., 2024) |
    | `linspace` | 999 666 333 0 | both ends |

    Raises:
        ValueError: there are not so many times, or the spacing is unknown.
    """
    if not 1 <= steps <= total:
        raise ValueError(
            f"steps={steps} must lie in [1, {total}], the schedule's times"
        )
    match spacing:
        case "leading":
            times = np.arange(steps)[::-1] * (total // steps)
        case "trailing":
            times = np.round(np.arange(total, 0, -total / steps))[:steps] - 1
        case "linspace":
            times = np.round(np.linspace(total - 1, 0, steps))
        case _:
            known = list(get_args(Spacing))
            raise ValueError(f"spacing={spacing!r} is unknown; choose one of {known}")
    return times.astype(np.int32)


def path_of(schedule: Schedule, times: Int[np.ndarray, " n"]) -> Path:
    """Return the path along times of a schedule, and on to the image."""
    alpha, sigma = (np.asarray(table)[times] for table in schedule)
    return Path(
        np.append(times, 0).astype(np.int32),
        np.append(alpha, np.float32(1)),
        np.append(sigma, np.float32(0)),
    )


def ddim(eta: float = 0.0) -> Stepper:
    """Step along the predicted noise, with a share `eta` of it drawn anew.

    Song et al., 2021, eq. (12). `eta=0` is deterministic, Euler's method; `eta=1` is
    ancestral sampling, DDPM's posterior with its smaller variance (Ho et al., 2020).
    """

    def step(denoise, now, next_, x, memory, key, *, first, last):
        del first, last
        x0, eps = denoise(x, now.t)
        kept = now.alpha / next_.alpha
        fresh = eta * (next_.sigma / now.sigma) * jnp.sqrt(1.0 - kept * kept)
        along = jnp.sqrt(jnp.maximum(next_.sigma**2 - fresh**2, 0.0))
        y = next_.alpha * x0 + along * eps
        if eta > 0:
            y = y + fresh * normal(key, x)
        return y, memory

    return step


def heun(denoise, now, next_, x, memory, key, *, first, last):
    """Step by the mean of the directions here and there, of second order.

    Karras et al., 2022, algorithm 1 without churn, in x / alpha and sigma / alpha. Two
    evaluations a step; one in the last, which ends where there is no direction, and
    one where sigma / alpha falls more than `FAR` times: from almost nothing but noise,
    where a cosine schedule begins, the mean of both directions leads anywhere.
    """
    del first, last, key
    x0, eps = denoise(x, now.t)
    there = next_.alpha * x0 + next_.sigma * eps

    def correct(there):
        mean = (eps + denoise(there, next_.t).eps) / 2
        ahead = next_.sigma / next_.alpha - now.sigma / now.alpha
        return next_.alpha * (x / now.alpha + ahead * mean)

    far = now.sigma * next_.alpha > FAR * next_.sigma * now.alpha  # so is the last step
    return lax.cond(far, lambda there: there, correct, there), memory


def dpmpp_2m(denoise, now, next_, x, memory, key, *, first, last):
    """Step by the image predicted here and the one before: DPM-Solver++ (2M).

    Lu et al., 2022b, algorithm 2; one evaluation a step, of second order. The first
    step has nothing before it, and the last ends at infinite log(alpha / sigma): both
    are of first order.
    """
    del key
    x0, _ = denoise(x, now.t)
    here = jnp.log(now.alpha) - jnp.log(now.sigma)
    there = jnp.log(next_.alpha) - jnp.log(jnp.where(last, 1.0, next_.sigma))
    ratio = (there - here) / (2.0 * jnp.where(first, 1.0, here - memory.half_log_snr))
    ratio = jnp.where(first | last, 0.0, ratio)
    mixed = x0 + ratio * (x0 - memory.x0)
    shrunk = next_.sigma / now.sigma
    y = shrunk * x + (next_.alpha - shrunk * now.alpha) * mixed
    return y, Memory(x0, here)


def make_stepper(name: SamplerName, eta: float = 0.0) -> Stepper:
    """Return a stepper by its name; `eta` is ddim's.

    Raises:
        ValueError: the name is unknown, or eta lies outside [0, 1].
    """
    if not 0.0 <= eta <= 1.0:
        raise ValueError(f"eta={eta} must lie in [0, 1]")
    steppers = {"ddpm": ddim(1.0), "ddim": ddim(eta), "heun": heun}
    steppers["dpmpp_2m"] = dpmpp_2m
    if name not in steppers:
        known = list(get_args(SamplerName))
        raise ValueError(f"sampler={name!r} is unknown; choose one of {known}")
    return steppers[name]


def sample(
    stepper: Stepper, denoise: Denoise, path: Path, x: jax.Array, key: jax.Array
) -> jax.Array:
    """Return the image at the end of the path of x, which is at its first row.

    Noise is drawn from the key, or one key an image [B], and the number of the step.
    """
    x, _ = advance(stepper, denoise, path, x, at_first(x), key, 0, path.steps)
    return x


def at_first(x: jax.Array) -> Memory:
    """Return what a stepper keeps before the first step."""
    return Memory(jnp.zeros_like(x), jnp.float32(0.0))


def advance(
    stepper: Stepper,
    denoise: Denoise,
    path: Path,
    x: jax.Array,
    memory: Memory,
    key: jax.Array,
    start: int | jax.Array,
    stop: int | jax.Array,
) -> tuple[jax.Array, Memory]:
    """Take the steps `start` ... `stop - 1` of a path, for `sample` in several calls.

    Start and stop may be traced, so that one compiled program takes any of them.
    """
    rows = Point(*(jnp.asarray(column) for column in path))

    def step(number, carry):
        x, memory = carry
        return stepper(
            denoise,
            jax.tree.map(lambda column: column[number], rows),
            jax.tree.map(lambda column: column[number + 1], rows),
            x,
            memory,
            fold_in(key, number),
            first=number == 0,
            last=number == path.steps - 1,
        )

    return lax.fori_loop(start, stop, step, (x, memory))
