"""Generated weights and inputs of a small U-Net: the same numbers on every machine.

Raw bits of PCG64, whose stream NumPy guarantees, so that golden files need to hold only
outputs. Names are those of diffusers' `UNet2DModel`.
"""

import re
import zlib

import numpy as np

NAMES = (
    (r"\bdown\.", "down_blocks."),
    (r"\bup\.", "up_blocks."),
    (r"^middle\.units\.(\d)\.res", r"mid_block.resnets.\1"),
    (r"^middle\.units\.(\d)\.attention", r"mid_block.attentions.\1"),
    (r"units\.(\d)\.res\b", r"resnets.\1"),
    (r"units\.(\d)\.attention\b", r"attentions.\1"),
    (r"(down|up)_blocks\.(\d)\.resample", r"\1_blocks.\2.\1samplers.0"),
    (r"^condition\.dense(\d)", r"time_embedding.linear_\1"),
    (r"^condition\.labels", "class_embedding.weight"),
    (r"\.condition\.", ".time_emb_proj."),
    (r"\.skip\.", ".conv_shortcut."),
    (r"attentions\.(\d)\.norm\b", r"attentions.\1.group_norm"),
    (r"attentions\.(\d)\.attention\.(q|k|v)\w+", r"attentions.\1.to_\2"),
    (r"attentions\.(\d)\.attention\.output", r"attentions.\1.to_out.0"),
    (r"^norm_out", "conv_norm_out"),
    (r"\.(kernel|scale)$", ".weight"),
)
"""What becomes of a dotted name of ours, in turn."""


def diffusers_name(name: str) -> str:
    for pattern, replacement in NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A weight in torch's layout; norms' are about 1, kernels keep energy."""
    unit = _uniform(name, shape)
    if len(shape) == 1:
        return unit * 0.3 + ("norm" in name and name.endswith("weight"))
    return unit * np.float32(np.sqrt(3 / np.prod(shape[1:])))


def inputs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Latents [2, 6, 10, 3], times and labels."""
    return _uniform("x", (2, 6, 10, 3)), np.array([7, 640]), np.array([2, 0])


def _uniform(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers in [-1, 1) that depend on the name alone."""
    bits = np.random.PCG64(zlib.crc32(name.encode())).random_raw(int(np.prod(shape)))
    unit = (bits >> np.uint64(40)) / 2**23 - 1.0
    return unit.astype(np.float32).reshape(shape)
