"""The stream of steps: which scale each one is of."""

from collections.abc import Mapping, Sequence

import numpy as np

from deepprism_jax.diffusion.pyramid import Size


def scale_probabilities(sizes: Sequence[Size], favour_small: float) -> np.ndarray:
    """Return how likely each scale is drawn: its pixels to the power -favour_small."""
    weights = np.array([float(h * w) for h, w in sizes]) ** -favour_small
    return weights / weights.sum()


class Steps:
    """Endless `{"scale": s}`, whose position can be saved.

    The host draws the scale, so that each has a program of its own: in a branch of one
    program for all, XLA's gradients of convolutions on CPUs take ten times as long.

    Args:
        sizes: of the scales.
        favour_small: see `scale_probabilities`.
        seed: of the run.
        images: how many are trained on.
    """

    def __init__(
        self, sizes: Sequence[Size], favour_small: float, *, seed: int, images: int
    ):
        self._probabilities = scale_probabilities(sizes, favour_small)
        self._seed, self._images, self._taken = seed, images, 0

    def __next__(self) -> dict[str, int]:
        draw = np.random.default_rng([self._seed, self._taken])
        self._taken += 1
        scales = len(self._probabilities)
        return {"scale": int(draw.choice(scales, p=self._probabilities))}

    def get_state(self) -> dict[str, int]:
        """Return how many were taken, and of how many images."""
        return {"batch": self._taken, "images": self._images}

    def set_state(self, state: Mapping[str, int]) -> None:
        """Go on from there."""
        self._taken = state["batch"]
