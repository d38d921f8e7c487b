"""Metrics of an image and its reconstruction, measured over a mesh."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from deepprism_jax.losses.perceptual import PerceptualDistance
from deepprism_jax.metrics.lpips import lpips
from deepprism_jax.metrics.ms_ssim import ms_ssim
from deepprism_jax.metrics.psnr import psnr
from deepprism_jax.metrics.ssim import ssim
from deepprism_jax.training.sharding import replicated, spread

Measure = Callable[[Any, Any], Mapping[str, jax.Array]]
"""Images and reconstructions, 8-bit [b, h, w, c], to numbers [b] by metric; every
process gets those of the whole batch."""

PLAIN = {"psnr": psnr, "ssim": ssim, "ms_ssim": ms_ssim}
"""Those that need no network."""


def make_measure(
    names: Sequence[str], distances: Mapping[str, PerceptualDistance], mesh: Mesh
) -> Measure:
    """Return a jitted function that measures all pairs of a batch.

    Args:
        names: of `PLAIN`.
        distances: name to perceptual distance with heads, which is LPIPS.
        mesh: the images are spread over it.
    """
    frozen = {name: distance.frozen for name, distance in distances.items()}
    frozen = jax.device_put(frozen, replicated(mesh))

    def measure(frozen: Any, batch: tuple[Any, Any]) -> dict[str, jax.Array]:
        values = {name: PLAIN[name](*batch) for name in names}
        # Accelerators round products to bfloat16 or TF32 unless they are told not to.
        with jax.default_matmul_precision("float32"):
            for name, distance in distances.items():
                values[name] = lpips(*batch, distance, frozen[name])
        return values

    function = jax.jit(spread(mesh, measure), out_shardings=replicated(mesh))
    return lambda images, reconstructions: function(frozen, (images, reconstructions))
