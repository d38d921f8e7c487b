"""Folders of diffusers' AutoencoderKL with generated weights.

Raw bits of PCG64, whose stream NumPy guarantees: golden files hold outputs, and the
names and shapes of diffusers' own module, but no weights.
"""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

CONFIGS = {
    "levels": {
        "block_out_channels": [8, 16, 16],
        "down_block_types": ["DownEncoderBlock2D"] * 3,
        "up_block_types": ["UpDecoderBlock2D"] * 3,
        "layers_per_block": 1,
        "latent_channels": 4,
        "norm_num_groups": 4,
        "sample_size": 16,
    },
    # Of Flux the ends, of no one the middle.
    "ends": {
        "in_channels": 1,
        "out_channels": 1,
        "block_out_channels": [12, 8],
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
        "layers_per_block": 2,
        "latent_channels": 5,
        "norm_num_groups": 4,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "mid_block_add_attention": False,
        "scaling_factor": 0.3611,
        "shift_factor": 0.1159,
    },
}


def images(channels: int) -> np.ndarray:
    """Two images [2, 16, 24, channels] in [-1, 1]: noise."""
    return _uniform(np.random.PCG64(1), (2, 16, 24, channels), -1.0, 1.0)


def state_dict(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Tensors that keep activations of order 1."""
    stream = np.random.PCG64(0)
    state = {}
    for name, shape in sorted(shapes.items()):
        if len(shape) > 1:
            bound = np.sqrt(3 / np.prod(shape[1:]))
            low, high = -bound, bound
        else:
            low, high = (-0.3, 0.3) if name.endswith("bias") else (0.5, 1.5)
        state[name] = _uniform(stream, shape, low, high)
    return state


def _uniform(stream, shape, low, high) -> np.ndarray:
    bits = stream.random_raw(int(np.prod(shape)))
    unit = (bits >> np.uint64(40)) / 2**24
    return (low + (high - low) * unit).astype(np.float32).reshape(shape)


def write(folder: Path, config: dict, state: dict, name: str = "") -> Path:
    """Write what diffusers would, the weights under another name if there is one."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(state, folder / (name or "diffusion_pytorch_model.safetensors"))
    return folder
