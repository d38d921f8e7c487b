"""What a network predicts of x_t = alpha x_0 + sigma eps, and how one gives the others.

| target | |
|---|---|
| `eps` | the noise (Ho et al., 2020) |
| `x0` | the image |
| `v` | alpha eps - sigma x_0 (Salimans and Ho, 2022) |
"""

from typing import Literal, NamedTuple, get_args

import jax
from jaxtyping import Array, Float

Target = Literal["eps", "x0", "v"]
Coefficient = jax.Array | float


class Denoised(NamedTuple):
    """Image and noise that x_t consists of, as predicted."""

    x0: jax.Array
    eps: jax.Array


def target_of(
    target: Target,
    x0: Float[Array, "*b"],
    eps: Float[Array, "*b"],
    alpha: Coefficient,
    sigma: Coefficient,
) -> jax.Array:
    """Return what the network is to predict of a noised image.

    Raises:
        ValueError: the target is unknown.
    """
    match target:
        case "eps":
            return eps
        case "x0":
            return x0
        case "v":
            return alpha * eps - sigma * x0
    raise ValueError(_unknown(target))


def denoised(
    target: Target,
    prediction: Float[Array, "*b"],
    x_t: Float[Array, "*b"],
    alpha: Coefficient,
    sigma: Coefficient,
) -> Denoised:
    """Return image and noise of a prediction; together they give x_t exactly.

    `eps` divides by alpha and `x0` by sigma, which must not be 0.

    Raises:
        ValueError: the target is unknown.
    """
    match target:
        case "eps":
            return Denoised((x_t - sigma * prediction) / alpha, prediction)
        case "x0":
            return Denoised(prediction, (x_t - alpha * prediction) / sigma)
        case "v":
            return Denoised(
                alpha * x_t - sigma * prediction, sigma * x_t + alpha * prediction
            )
    raise ValueError(_unknown(target))


def _unknown(target: str) -> str:
    return f"target={target!r} is unknown; choose one of {list(get_args(Target))}"
