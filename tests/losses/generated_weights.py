"""Weights, heads and images that are the same numbers on every machine.

Raw bits of PCG64, whose stream NumPy guarantees, so that golden files need to hold only
outputs.
"""

import numpy as np


def uniform(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Float32 numbers in [-1, 1)."""
    bits = np.random.PCG64(seed).random_raw(int(np.prod(shape)))
    return ((bits >> np.uint64(40)) / 2**23 - 1).astype(np.float32).reshape(shape)


def state_dict(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Tensors in torchvision's layout (OIHW) that keep the variance through ReLU."""
    state = {}
    for seed, (name, shape) in enumerate(sorted(shapes.items())):
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 100
        state[name] = uniform(seed, shape) * np.float32(np.sqrt(6 / fan_in))
    return state


def heads(channels: tuple[int, ...]) -> list[np.ndarray]:
    """LPIPS heads: one non-negative number a channel."""
    return [np.abs(uniform(100 + layer, (c,))) for layer, c in enumerate(channels)]


def image_pair(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Two batches [2, h, w, 3] in [-1, 1]: smooth images and disturbed ones."""
    y, x = np.mgrid[:height, :width].astype(np.float32) / 8
    waves = [np.sin(x + 2 * y + c) * np.cos(3 * y - x * c) for c in range(3)]
    image = np.stack([np.stack(waves, -1), np.stack(waves[::-1], -1)[::-1]])
    other = np.clip(image + 0.4 * uniform(200, image.shape), -1, 1)
    return image.astype(np.float32), other.astype(np.float32)


def pixel_pair(height: int, width: int) -> list[np.ndarray]:
    """The same as 8-bit images."""
    pair = image_pair(height, width)
    return [np.round((image + 1) * 127.5).astype(np.uint8) for image in pair]
