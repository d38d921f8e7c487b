"""Write autoencoder_kl.npz: what diffusers' AutoencoderKL computes.

Its weights are generated. Needs torch and diffusers (made with 2.14.1 and 0.42.1), on a
CPU:

    python tests/weights/golden/make_autoencoder_kl.py
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import made_up_folder  # noqa: E402


@torch.no_grad()
def main() -> None:
    golden = {}
    for name, options in made_up_folder.CONFIGS.items():
        module = AutoencoderKL(**options).eval()
        shapes = {key: tuple(x.shape) for key, x in module.state_dict().items()}
        state = made_up_folder.state_dict(shapes)
        module.load_state_dict({key: torch.tensor(x) for key, x in state.items()})
        x = made_up_folder.images(module.config.in_channels).transpose(0, 3, 1, 2)
        posterior = module.encode(torch.tensor(x.copy())).latent_dist
        config = {k: v for k, v in module.config.items() if not k.startswith("_")}
        config = {"_class_name": "AutoencoderKL", **config}
        golden |= {
            f"{name}.config": np.array(json.dumps(config)),
            f"{name}.shapes": np.array(json.dumps(shapes)),
        }
        for key, y in {
            "mean": posterior.mean,
            "logvar": posterior.logvar,
            "images": module.decode(posterior.mean).sample,
        }.items():
            golden[f"{name}.{key}"] = y.numpy().transpose(0, 2, 3, 1)
    np.savez_compressed(HERE / "autoencoder_kl.npz", **golden)


if __name__ == "__main__":
    main()
