"""Write inception.npz: what torch-fidelity computes with generated weights.

Needs torch and torch-fidelity (made with 2.14.1 and 0.4.0), on a CPU:

    python tests/models/golden/make_inception.py
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.interpolate_compat_tensorflow import (
    interpolate_bilinear_2d_like_tensorflow1x,
)

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import inception_weights  # noqa: E402

FEATURES = ("2048", "logits_unbiased", "logits")

# Enlarging, shrinking, and one side of each.
RESIZED = ("32x32", "40x56", "310x400", "200x320")


def network(dtype: str = "float32") -> FeatureExtractorInceptionV3:
    """torch-fidelity's own module, which takes its weights from a file."""
    state = {
        name: torch.tensor(tensor)
        for name, tensor in inception_weights.state_dict().items()
    }
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "weights.pth")
        torch.save(state, path)
        return FeatureExtractorInceptionV3(
            "inception",
            list(FEATURES),
            feature_extractor_weights_path=path,
            feature_extractor_internal_dtype=dtype,
        )


def pixels(size: str) -> torch.Tensor:
    """The images of a size as torch-fidelity takes them, [b, 3, h, w] uint8."""
    return torch.tensor(inception_weights.images(size).transpose(0, 3, 1, 2).copy())


def main() -> None:
    golden = {}
    inception = network()
    for size in inception_weights.IMAGES:
        for name, values in zip(FEATURES, inception(pixels(size)), strict=True):
            golden[f"{size}.{name}"] = values.numpy()
    for size in RESIZED:
        large = interpolate_bilinear_2d_like_tensorflow1x(
            pixels(size).float(), size=(299, 299), align_corners=False
        )
        golden[f"{size}.resized"] = large[0, :, ::13, ::13].numpy().transpose(1, 2, 0)
    np.savez_compressed(HERE / "inception.npz", **golden)


if __name__ == "__main__":
    main()
