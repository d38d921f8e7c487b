"""Write pairs.json: what other libraries compute from generated pairs of images.

Needs torch, torchmetrics, pytorch-msssim and scikit-image (made with 2.14.1, 1.9.0,
1.0.0 and 0.26.0), on a CPU:

    python tests/metrics/golden/make_pairs.py

One number an image. All but the PSNR of torchmetrics runs in float64. The mean of
torchmetrics' map of SSIM is taken as scikit-image takes it, without the places where
the window reaches over the edge; torchmetrics itself counts them, with the image
mirrored. For the same reason it is not asked about MS-SSIM.
"""

import json
import sys
from pathlib import Path

import pytorch_msssim
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional import image as metrics

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import generated_features  # noqa: E402

GAUSSIAN = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
RADIUS = 5


def figures(name: str) -> dict[str, list[float]]:
    """PSNR, SSIM and MS-SSIM of one pair of batches."""
    images, noisy = generated_features.image_pair(name)
    x, y = (torch.from_numpy(a).double().movedim(-1, 1) for a in (images, noisy))
    options = {"data_range": 255.0, "reduction": "none"}
    _, similarity = metrics.structural_similarity_index_measure(
        y, x, return_full_image=True, **options
    )
    inside = similarity[..., RADIUS:-RADIUS, RADIUS:-RADIUS]
    by_torchmetrics = {
        "psnr": metrics.peak_signal_noise_ratio(y, x, dim=(1, 2, 3), **options),
        "ssim": inside.mean(dim=(1, 2, 3)),
    }
    by_pytorch_msssim = {
        "ssim": pytorch_msssim.ssim(x, y, size_average=False),
        "ms_ssim": pytorch_msssim.ms_ssim(x, y, size_average=False),
    }
    pairs = list(zip(images, noisy, strict=True))
    return {
        **{f"torchmetrics/{k}": v.tolist() for k, v in by_torchmetrics.items()},
        **{f"pytorch-msssim/{k}": v.tolist() for k, v in by_pytorch_msssim.items()},
        "scikit-image/psnr": [
            float(peak_signal_noise_ratio(a, b, data_range=255)) for a, b in pairs
        ],
        "scikit-image/ssim": [
            float(
                structural_similarity(a, b, channel_axis=-1, data_range=255, **GAUSSIAN)
            )
            for a, b in pairs
        ],
    }


def main() -> None:
    result = {name: figures(name) for name in generated_features.PAIRS}
    (HERE / "pairs.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
