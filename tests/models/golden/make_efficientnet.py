"""Write efficientnet.npz: what torch's EfficientNet-Lite0 computes.

Its weights are generated. Needs torch and efficientnet-lite-pytorch (made with 2.14.1
and 0.1.0), on a CPU:

    python tests/models/golden/make_efficientnet.py
"""

import sys
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import efficientnet_weights  # noqa: E402
import inception_weights  # noqa: E402


def network() -> EfficientNet:
    """The module with every one of its tensors replaced."""
    module = EfficientNet.from_name("efficientnet-lite0").eval()
    counts = {n: t for n, t in module.state_dict().items() if t.ndim == 0}
    shapes = {
        name: tuple(tensor.shape)
        for name, tensor in module.state_dict().items()
        if name not in counts
    }
    state = efficientnet_weights.state_dict(shapes)
    module.load_state_dict({n: torch.tensor(t) for n, t in state.items()} | counts)
    return module


def prepare(images: np.ndarray) -> torch.Tensor:
    """Resize in floats, by the bicubic kernel that Pillow has, and scale."""
    x = torch.tensor(images.transpose(0, 3, 1, 2).copy()).float()
    x = torch.nn.functional.interpolate(x, (224, 224), mode="bicubic", antialias=True)
    return (x - 127) / 128


@torch.no_grad()
def main() -> None:
    golden = {}
    module = network()
    for size in efficientnet_weights.SIZES:
        x = prepare(inception_weights.images(size)[:2])
        golden[f"{size}.pool"] = module.extract_features(x).mean((2, 3)).numpy()
        golden[f"{size}.logits"] = module(x).numpy()
    np.savez_compressed(HERE / "efficientnet.npz", **golden)


if __name__ == "__main__":
    main()
