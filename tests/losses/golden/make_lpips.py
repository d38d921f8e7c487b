"""Write lpips.npz: what the lpips package computes with generated weights.

Needs torch, torchvision and lpips (made with 2.14.1, 0.29.1 and 0.1.4), on a CPU:

    python tests/losses/golden/make_lpips.py
"""

import sys
from pathlib import Path

import lpips
import numpy as np
import torch
import torchvision

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import generated_weights  # noqa: E402

# Odd and even sizes, where poolings round differently, and the smallest possible.
SIZES = {
    "squeeze": [(47, 58), (17, 19)],
    "vgg": [(37, 50), (16, 17)],
    "alex": [(75, 58), (31, 33)],
}
TORCHVISION = {"squeeze": "squeezenet1_1", "vgg": "vgg16", "alex": "alexnet"}


def model(net: str) -> torch.nn.Module:
    """The lpips package's own module with generated trunk and heads."""
    trunk = getattr(torchvision.models, TORCHVISION[net])(weights=None)
    shapes = {
        name: tuple(tensor.shape)
        for name, tensor in trunk.state_dict().items()
        if name.startswith("features.")
    }
    state = generated_weights.state_dict(shapes)
    metric = lpips.LPIPS(net=net, pretrained=False, pnet_rand=True, verbose=False)
    used = metric.net.state_dict()
    # lpips names a layer slice{n}.{i}.*: i is its place in torchvision's features.
    metric.net.load_state_dict(
        {
            name: torch.tensor(state["features." + name.split(".", 1)[1]])
            for name in used
        }
    )
    for lin, head in zip(
        metric.lins, generated_weights.heads(metric.chns), strict=True
    ):
        lin.model[1].weight.data = torch.tensor(head).reshape(1, -1, 1, 1)
    return metric.eval()


def key_of(net: str, size: tuple[int, int]) -> str:
    return f"{net}.{size[0]}x{size[1]}"


def main() -> None:
    golden = {}
    for net, sizes in SIZES.items():
        metric = model(net)
        for height, width in sizes:
            pair = generated_weights.image_pair(height, width)
            x, y = (torch.tensor(image.transpose(0, 3, 1, 2).copy()) for image in pair)
            x.requires_grad_()
            total, layers = metric(x, y, retPerLayer=True)
            total.sum().backward()
            key = key_of(net, (height, width))
            golden[f"{key}.layers"] = torch.stack(layers).detach().numpy()[..., 0, 0, 0]
            if key == "squeeze.47x58":
                gradient = x.grad.numpy().transpose(0, 2, 3, 1)
                golden[f"{key}.gradient"] = gradient[:, ::5, ::5]
        pair = generated_weights.pixel_pair(*sizes[0])
        with torch.no_grad():
            # The package's own way from 8 bits to [-1, 1], for a batch.
            x, y = (
                torch.cat([lpips.im2tensor(image) for image in images])
                for images in pair
            )
            golden[f"{key_of(net, sizes[0])}.pixels"] = metric(x, y).numpy().ravel()
    np.savez_compressed(HERE / "lpips.npz", **golden)


if __name__ == "__main__":
    main()
