"""Metrics of images: a state of sums each, and the baselines they are read against.

The functions `psnr.psnr` and `ssim.ssim` give the figure of every image.
"""

from deepprism_jax.metrics.baselines import PCA, bicubic_down_up, fit_pca
from deepprism_jax.metrics.psnr import PSNR
from deepprism_jax.metrics.ssim import SSIM
from deepprism_jax.metrics.state import Metric, Moments, Score

__all__ = [
    "PCA",
    "PSNR",
    "SSIM",
    "Metric",
    "Moments",
    "Score",
    "bicubic_down_up",
    "fit_pca",
]
