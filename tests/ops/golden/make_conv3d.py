"""Make conv3d.npz: the paper's snippet run by PyTorch, with its gradients.

    pip install torch && python make_conv3d.py

The layer of section 3.5 is `Conv3d(1, 1, 3, padding=1)` on the channels as depth:
zeros around all three axes. For the other topologies of Table 1 only the channel axis
is padded otherwise. Arrays are turned to the package's order: x, y [B, H, W, C], kernel
[K_H, K_W, K_C]; y = layer(x), and dx, dkernel are the gradients of sum(g * y).
"""

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

CHANNELS = (1, 2, 3, 8)
HEIGHT, WIDTH = 5, 4
PADDING = {"zero": "constant", "replicate": "replicate", "circular": "circular"}


class DeepPrism(torch.nn.Conv3d):
    """The layer as the paper prints it."""

    def __init__(self, **kwargs):
        super().__init__(in_channels=1, out_channels=1, **kwargs)

    def forward(self, input):
        return super().forward(input.unsqueeze(1)).squeeze(1)


def other_topology(layer, x, mode):
    """The same layer with the channel axis, and only it, padded by `mode`."""
    padded = functional.pad(x.unsqueeze(1), (0, 0, 0, 0, 1, 1), mode=mode)
    y = functional.conv3d(padded, layer.weight, layer.bias, padding=(0, 1, 1))
    return y.squeeze(1)


def main():
    torch.manual_seed(0)
    arrays = {}
    for channels in CHANNELS:
        layer = DeepPrism(kernel_size=(3, 3, 3), padding=1).double()
        x = torch.randn(2, channels, HEIGHT, WIDTH).double().requires_grad_()
        g = torch.randn(2, channels, HEIGHT, WIDTH).double()
        # Float32 numbers, so that the other side starts from the same ones.
        with torch.no_grad():
            layer.weight.copy_(layer.weight.float().double())
            layer.bias.copy_(layer.bias.float().double())
        name = f"c{channels}"
        arrays[f"{name}/x"] = x.detach().permute(0, 2, 3, 1)
        arrays[f"{name}/g"] = g.permute(0, 2, 3, 1)
        arrays[f"{name}/kernel"] = layer.weight.detach()[0, 0].permute(1, 2, 0)
        arrays[f"{name}/bias"] = layer.bias.detach()
        for padding, mode in PADDING.items():
            y = other_topology(layer, x, mode)
            if padding == "zero":
                torch.testing.assert_close(y, layer(x), rtol=1e-12, atol=1e-12)
                y = layer(x)
            dx, dweight = torch.autograd.grad(y, (x, layer.weight), g)
            arrays[f"{name}/{padding}/y"] = y.detach().permute(0, 2, 3, 1)
            arrays[f"{name}/{padding}/dx"] = dx.permute(0, 2, 3, 1)
            arrays[f"{name}/{padding}/dkernel"] = dweight[0, 0].permute(1, 2, 0)
    arrays = {
        name: np.ascontiguousarray(array.numpy().astype(np.float32))
        for name, array in arrays.items()
    }
    np.savez_compressed(Path(__file__).with_name("conv3d.npz"), **arrays)


if __name__ == "__main__":
    main()
