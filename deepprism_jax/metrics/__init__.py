"""Metrics of images: a state of sums each, and the baselines they are read against.

The functions `psnr.psnr`, `ssim.ssim` and `ms_ssim.ms_ssim` give the figure of every
image. FID, KID, inception score, precision and recall compare sets of features; SIFID
and the diversities are of samples of a model of one image.
"""

from deepprism_jax.metrics.baselines import PCA, bicubic_down_up, fit_pca
from deepprism_jax.metrics.feature_rows import FeatureRows
from deepprism_jax.metrics.fid import FID
from deepprism_jax.metrics.gaussian import Gaussian
from deepprism_jax.metrics.inception_score import InceptionScore
from deepprism_jax.metrics.kid import KID
from deepprism_jax.metrics.lpips import LPIPS
from deepprism_jax.metrics.lpips_diversity import LPIPSDiversity
from deepprism_jax.metrics.ms_ssim import MSSSIM
from deepprism_jax.metrics.pixel_diversity import PixelDiversity
from deepprism_jax.metrics.precision_recall import PrecisionRecall
from deepprism_jax.metrics.psnr import PSNR
from deepprism_jax.metrics.sifid import SIFID
from deepprism_jax.metrics.ssim import SSIM
from deepprism_jax.metrics.state import Metric, Moments, Score

__all__ = [
    "FID",
    "KID",
    "LPIPS",
    "MSSSIM",
    "PCA",
    "PSNR",
    "SIFID",
    "SSIM",
    "FeatureRows",
    "Gaussian",
    "InceptionScore",
    "LPIPSDiversity",
    "Metric",
    "Moments",
    "PixelDiversity",
    "PrecisionRecall",
    "Score",
    "bicubic_down_up",
    "fit_pca",
]
