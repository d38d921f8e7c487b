"""How much samples of a model of one image differ, pixel by pixel.

Shaham et al. (SinGAN), 2019, section 4, and Kulikov et al. (SinDDM), 2022, describe it
in words and publish no program.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from deepprism_jax.metrics.state import Mask, Pixels, Score

LUMA = np.array([0.299, 0.587, 0.114])
"""Of ITU-R 601, which images are made gray with everywhere here."""


class PixelDiversity(NamedTuple):
    """Spread of every pixel's intensity over samples.

    Intensity is the luma. Count, mean and sum of squared deviations are merged by the
    formula of Chan, Golub and LeVeque (1979), a pixel at a time, in float64.
    """

    count: int
    mean: Float[np.ndarray, "h w"]
    deviation: Float[np.ndarray, "h w"]

    @classmethod
    def from_batch(cls, samples: Pixels, mask: Mask | None = None) -> "PixelDiversity":
        """Take in samples [b, h, w, c]; those where `mask` is False do not count.

        Raises:
            TypeError: they are not 8-bit.
            ValueError: they are neither gray nor RGB.
        """
        x = intensity(samples)
        if mask is not None:
            x = x[np.asarray(mask)]
        mean = x.mean(axis=0) if len(x) else np.zeros(x.shape[1:])
        return cls(len(x), mean, np.sum((x - mean) ** 2, axis=0))

    def merge(self, other: "PixelDiversity") -> "PixelDiversity":
        """Return the state of both parts together.

        Raises:
            ValueError: samples differ in size.
        """
        if self.mean.shape != other.mean.shape:
            raise ValueError(
                f"samples of {self.mean.shape} and of {other.mean.shape} pixels have "
                "no diversity together: draw all of one size"
            )
        count = self.count + other.count
        share = other.count / max(count, 1)
        step = other.mean - self.mean
        deviation = self.deviation + other.deviation + step**2 * (self.count * share)
        return PixelDiversity(count, self.mean + step * share, deviation)

    def compute(self, image: Pixels) -> Score:
        """Return the mean over pixels of the deviation over samples, as a multiple of
        the deviation of the image's intensities.

        The deviation over samples has count - 1 in its denominator, so that few samples
        do not look less diverse than many; independent samples that each have the
        image's intensities in another order reach about 1.

        Args:
            image: the training image [h, w, c], of any size.

        Raises:
            ValueError: there are fewer than two samples, or the image is of one
                intensity.
        """
        if self.count < 2:
            raise ValueError(
                f"diversity needs at least 2 samples, got {self.count}: draw more"
            )
        scale = float(np.std(intensity(image)))
        if scale == 0.0:
            raise ValueError(
                "the training image is of one intensity: no diversity beside it"
            )
        spread = np.sqrt(self.deviation / (self.count - 1))
        return Score(float(spread.mean()) / scale, None, self.count, "samples")


def intensity(images: Pixels) -> Float[np.ndarray, "*b h w"]:
    """Return the luma of gray or RGB images, 0 ... 255, in float64.

    Raises:
        TypeError: images are not 8-bit.
        ValueError: for another number of channels.
    """
    pixels = np.asarray(images)
    if pixels.dtype != np.uint8:
        raise TypeError(
            f"images are {pixels.dtype}, not uint8: convert images in [-1, 1] with "
            "deepprism_jax.ops.pixels.to_uint8"
        )
    if pixels.shape[-1] == 1:
        return pixels[..., 0].astype(np.float64)
    if pixels.shape[-1] != 3:
        raise ValueError(
            f"intensities are of gray or RGB images, got {pixels.shape[-1]} channels; "
            "convert the images"
        )
    return pixels @ LUMA
