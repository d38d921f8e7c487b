"""Feature networks of torch packages, with given weights, as subjects to be timed."""

import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import cores
from torch import nn
from torch.nn.functional import interpolate

Tensors = dict[str, torch.Tensor]


def run(
    network: str,
    state: dict[str, np.ndarray],
    inputs: Sequence[np.ndarray],
    layout: str,
) -> Callable[[], Sequence[Any]]:
    """Return a call that takes 8-bit images to distances or features.

    Args:
        network: `lpips`, `inception` or `efficientnet_lite0`.
        state: its weights by torch's names.
        inputs: images [b, h, w, 3], two batches of them for `lpips`.
        layout: of memory, `contiguous` or `channels_last`.
    """
    torch.set_num_threads(cores())
    tensors = {name: torch.from_numpy(value) for name, value in state.items()}
    build = {
        "lpips": lpips_squeeze,
        "inception": inception,
        "efficientnet_lite0": efficientnet_lite0,
    }[network]
    memory_format = {
        "contiguous": torch.contiguous_format,
        "channels_last": torch.channels_last,
    }[layout]
    module = build(tensors).eval()
    module = module.to(memory_format=memory_format)  # pyright: ignore[reportCallIssue]
    images = [
        torch.from_numpy(image.transpose(0, 3, 1, 2)).contiguous(
            memory_format=memory_format
        )
        for image in inputs
    ]

    def call() -> Sequence[Any]:
        with torch.inference_mode():
            return [value.numpy() for value in module(*images)]

    return call


class Distance(nn.Module):
    """The lpips package's module on 8-bit images."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, *images: torch.Tensor) -> tuple[torch.Tensor]:
        x, y = (image / 127.5 - 1 for image in images)
        return (self.module(x, y).ravel(),)


def lpips_squeeze(tensors: Tensors) -> nn.Module:
    """LPIPS of SqueezeNet."""
    import lpips

    with warnings.catch_warnings():  # it asks torchvision for weights in an old way
        warnings.simplefilter("ignore")
        module = lpips.LPIPS(
            net="squeeze", pretrained=False, pnet_rand=True, verbose=False
        )
    # It names a layer slice{n}.{i}.*: i is its place in torchvision's features.
    names = {
        name: f"features.{name.split('.', 1)[1]}" for name in module.net.state_dict()
    }
    module.net.load_state_dict({name: tensors[names[name]] for name in names})
    for layer, head in enumerate(module.lins):
        head.load_state_dict({"model.1.weight": tensors[f"lin{layer}.model.1.weight"]})
    return Distance(module)


def inception(tensors: Tensors) -> nn.Module:
    """torch-fidelity's Inception-v3, which resizes by itself and reads a file."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    counts = {
        name.replace("running_var", "num_batches_tracked"): torch.tensor(0)
        for name in tensors
        if name.endswith("running_var")
    }
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "weights.pth")
        torch.save(tensors | counts, path)
        return FeatureExtractorInceptionV3(
            "inception",
            ["2048", "logits_unbiased"],
            feature_extractor_weights_path=path,
        )


class Features(nn.Module):
    """EfficientNet's pooled features and logits of 8-bit images."""

    def __init__(self, module: Any):
        super().__init__()
        self.module = module

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = interpolate(images.float(), (224, 224), mode="bicubic", antialias=True)
        pool = self.module.extract_features((x - 127) / 128).mean((2, 3))
        return pool, self.module._fc(pool)


def efficientnet_lite0(tensors: Tensors) -> nn.Module:
    """EfficientNet-Lite0 of efficientnet-lite-pytorch."""
    from efficientnet_lite_pytorch import EfficientNet

    module = EfficientNet.from_name("efficientnet-lite0")
    counts = {n: t for n, t in module.state_dict().items() if t.ndim == 0}
    module.load_state_dict(tensors | counts)
    return Features(module)
