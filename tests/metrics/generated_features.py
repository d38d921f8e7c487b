"""Features and images that are the same numbers on every machine.

Raw bits of PCG64, whose stream NumPy guarantees, and arithmetic that IEEE 754 rounds
one way only, so that golden files need to hold only outputs.
"""

import numpy as np

CASES = {
    "many": {"real": 400, "generated": 400, "size": 16, "subset": 100},
    "more-real": {"real": 300, "generated": 200, "size": 12, "subset": 60},
    "singular": {"real": 24, "generated": 30, "size": 40, "subset": 20},
    "nearly-equal": {"real": 250, "generated": 250, "size": 8, "subset": 50},
}
"""Numbers of images of both sides and of features, and images of a KID subset."""

SHIFTS = {"many": 0.125, "more-real": 0.25, "singular": 0.125, "nearly-equal": 0.03125}
"""How far from the real features the generated ones are moved."""

SUBSETS = 7

PAIRS = {"gray": (192, 176, 1), "odd": (161, 250, 3)}
"""Heights, widths and channels of image pairs."""


def uniform(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Float32 numbers in [-1, 1)."""
    bits = np.random.PCG64(seed).random_raw(int(np.prod(shape)))
    return ((bits >> np.uint64(40)) / 2**23 - 1).astype(np.float32).reshape(shape)


def features(seed: int, count: int, size: int, shift: float = 0.0) -> np.ndarray:
    """Rows of numbers that are not negative, correlated, and of unlike spread."""
    common = uniform(seed, (count, 1)) * uniform(1, (1, size))
    spread = 0.25 + np.abs(uniform(2, (1, size)))
    rows = uniform(seed + 1, (count, size)) * spread + common
    return rows * rows + np.float32(shift) * spread


def case(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Real and generated features, and logits of the generated images."""
    real, generated, size, _ = CASES[name].values()
    logits = 3 * uniform(40, (generated, 10)) + uniform(41, (1, 10))
    return (
        features(10, real, size),
        features(20, generated, size, SHIFTS[name]),
        logits,
    )


def image_pair(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Two batches [2, h, w, c] of 8-bit images: patches, and the same with noise."""
    height, width, channels = PAIRS[name]
    coarse = (uniform(50, (2, height // 8 + 1, width // 8 + 1, channels)) + 1) * 96
    smooth = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]
    strength = np.float32([10.0, 70.0]).reshape(2, 1, 1, 1)
    images = np.clip(smooth + 8 * uniform(51, smooth.shape), 0, 255)
    noisy = np.clip(smooth + strength * uniform(52, smooth.shape) + 9, 0, 255)
    return images.astype(np.uint8), noisy.astype(np.uint8)
