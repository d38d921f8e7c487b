"""Write unet.npz: what diffusers' `UNet2DModel` computes with generated weights.

Needs torch and diffusers (made with 2.14.1 and 0.42.1), on a CPU:

    python tests/models/golden/make_unet.py
"""

import sys
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DModel

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import unet_weights  # noqa: E402


@torch.no_grad()
def predict(norm: str) -> np.ndarray:
    """The prediction [2, 6, 10, 3] of a U-Net with that kind of condition."""
    network = UNet2DModel(
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        norm_eps=1e-6,
        attn_norm_num_groups=4,
        attention_head_dim=8,
        freq_shift=1,
        flip_sin_to_cos=False,
        downsample_padding=1,
        num_class_embeds=3,
        resnet_time_scale_shift=norm,
    ).eval()
    state = {
        name: torch.tensor(unet_weights.tensor(name, tuple(value.shape)))
        for name, value in network.state_dict().items()
    }
    network.load_state_dict(state)
    x, t, labels = unet_weights.inputs()
    x = torch.tensor(x.transpose(0, 3, 1, 2).copy())
    y = network(x, torch.tensor(t), class_labels=torch.tensor(labels)).sample
    return y.numpy().transpose(0, 2, 3, 1)


def main() -> None:
    golden = {norm: predict(norm) for norm in ("default", "scale_shift")}
    np.savez_compressed(HERE / "unet.npz", **golden)


if __name__ == "__main__":
    main()
