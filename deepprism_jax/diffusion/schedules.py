"""Noise schedules: how much of an image and how much noise there is at each time.

    x_t = alpha_t x_0 + sigma_t eps,    alpha_t^2 + sigma_t^2 = 1,    t = 0 ... T - 1

All are variance preserving and discrete (Ho et al., 2020): t = 0 is almost the image,
t = T - 1 almost noise.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

ScheduleName = Literal["linear", "scaled_linear", "cosine"]


class Schedule(NamedTuple):
    """Coefficients of the image and of the noise, float32."""

    alpha: Float[Array, " t"] | Float[np.ndarray, " t"]
    sigma: Float[Array, " t"] | Float[np.ndarray, " t"]

    @property
    def steps(self) -> int:
        """Number of times T."""
        return len(self.alpha)

    def at(
        self, t: Int[Array, " b"], ndim: int
    ) -> tuple[Float[Array, "b *_"], Float[Array, "b *_"]]:
        """Return alpha and sigma at times t, shaped for arrays [B, ...] of `ndim`."""
        shape = (-1,) + (1,) * (ndim - 1)
        alpha, sigma = (jnp.asarray(table)[t] for table in self)
        return alpha.reshape(shape), sigma.reshape(shape)


def from_betas(betas: Float[np.ndarray, " t"]) -> Schedule:
    """Return the schedule whose noise grows by the variances `betas`, in (0, 1).

    Raises:
        ValueError: a variance lies outside.
    """
    betas = np.asarray(betas, np.float64)
    if not np.all((betas > 0) & (betas < 1)):
        bad = betas[~((betas > 0) & (betas < 1))][0]
        raise ValueError(f"beta={bad} must lie in (0, 1)")
    kept = np.cumprod(1.0 - betas)
    return Schedule(
        np.sqrt(kept).astype(np.float32), np.sqrt(1.0 - kept).astype(np.float32)
    )


def linear(steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> Schedule:
    """Variances that rise linearly (Ho et al., 2020)."""
    return from_betas(np.linspace(first, last, steps))


def scaled_linear(
    steps: int = 1000, first: float = 0.0015, last: float = 0.0195
) -> Schedule:
    """Variances whose roots rise linearly, latent diffusion's (Rombach et al., 2022).

    Stable Diffusion has first = 0.00085 and last = 0.012.
    """
    return from_betas(np.linspace(math.sqrt(first), math.sqrt(last), steps) ** 2)


def cosine(steps: int = 1000, offset: float = 0.008, most: float = 0.999) -> Schedule:
    """Alpha that falls as a cosine (Nichol and Dhariwal, 2021, eq. 17).

    Variances are held to `most`, of which the last ones would be 1.
    """
    times = np.arange(steps + 1) / steps
    kept = np.cos((times + offset) / (1.0 + offset) * (math.pi / 2)) ** 2
    return from_betas(np.minimum(1.0 - kept[1:] / kept[:-1], most))


def make_schedule(name: ScheduleName, steps: int) -> Schedule:
    """Return a schedule by its name.

    Raises:
        ValueError: the name is unknown, or there is no step.
    """
    makers: dict[str, Callable[[int], Schedule]] = {
        "linear": linear,
        "scaled_linear": scaled_linear,
        "cosine": cosine,
    }
    if name not in makers:
        known = list(get_args(ScheduleName))
        raise ValueError(f"schedule={name!r} is unknown; choose one of {known}")
    if steps < 1:
        raise ValueError(f"steps={steps} must be at least 1")
    return makers[name](steps)


def add_noise(
    x0: Float[Array, "b *_"],
    eps: Float[Array, "b *_"],
    t: Int[Array, " b"],
    schedule: Schedule,
) -> jax.Array:
    """Return x_t of images and standard normal noise: the forward process."""
    alpha, sigma = schedule.at(t, x0.ndim)
    return alpha * x0 + sigma * eps
