"""Score reconstructions over a stream of masked batches, in bounded memory.

The training loop measures what is cheap; `deepprism_jax.evaluation` measures the rest.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

from deepprism_jax.layers.functional import Functional, Values
from deepprism_jax.losses.structural import WINDOW
from deepprism_jax.metrics.psnr import PSNR
from deepprism_jax.metrics.ssim import SSIM
from deepprism_jax.metrics.state import Mask, Metric, Pixels, Score
from deepprism_jax.ops import to_float, to_uint8
from deepprism_jax.typing import ImageU8

Reconstruct = Callable[[Any], Any]
"""8-bit images [b, h, w, c] to their 8-bit reconstructions."""

Measure = Callable[[Any, Any, Any], Mapping[str, Metric]]
"""Images, reconstructions and mask to the states of the metrics, by name."""


def reconstruct_pixels(network: Functional, values: Values, images: ImageU8) -> ImageU8:
    """Code 8-bit images by an autoencoder as likely as can be, and decode them."""
    return to_uint8(network.bind(values).reconstruct(to_float(images)))


def _measure_pairs(
    images: Pixels, reconstructions: Pixels, mask: Mask
) -> dict[str, Metric]:
    states: dict[str, Metric] = {"psnr": PSNR.from_batch(images, reconstructions, mask)}
    if min(images.shape[-3:-1]) >= WINDOW:
        states["ssim"] = SSIM.from_batch(images, reconstructions, mask)
    return states


measure_pairs: Measure = jax.jit(_measure_pairs)
"""PSNR and SSIM of every pair; no SSIM where images are smaller than its window."""


def evaluate(
    reconstruct: Reconstruct,
    batches: Iterable[Mapping[str, Any]],
    *,
    measure: Measure = measure_pairs,
    place: Callable[[Any], Any] = jax.device_put,
) -> dict[str, Score]:
    """Return the scores of a model, by metric.

    Args:
        reconstruct: 8-bit images to their reconstructions.
        batches: `{"image": uint8 [b, h, w, c], "mask": bool [b]}`; the mask is False
            where an image only fills up the last batch.
        measure: makes the states of one batch; they are merged here.
        place: puts a batch on the device or devices, as global arrays where there are
            several processes.

    Raises:
        ValueError: there is no image.
    """
    totals: dict[str, Metric] = {}
    for batch in batches:
        batch = place({"image": batch["image"], "mask": batch["mask"]})
        images, mask = batch["image"], batch["mask"]
        # States stay on the device, so the next batch need not wait for this one.
        for name, state in measure(images, reconstruct(images), mask).items():
            totals[name] = totals[name].merge(state) if name in totals else state
    if not totals:
        raise ValueError("no image was measured: the split is empty")
    return {name: total.compute() for name, total in totals.items()}


def scalars(scores: Mapping[str, Score]) -> dict[str, float]:
    """Flatten scores to what a log line holds: `psnr`, `psnr_std`, `ssim`, ..."""
    flat: dict[str, float] = {}
    for name, score in scores.items():
        flat[name] = score.value
        if score.std is not None:
            flat[f"{name}_std"] = score.std
    return flat
