"""Inception-v3 of the FID with generated weights, and images: the same everywhere.

Names and shapes are those of `weights-inception-2015-12-05`, whose numbers are not at
hand where tests run. Raw bits of PCG64, whose stream NumPy guarantees, stand in their
place, so that golden files need to hold only outputs.
"""

import numpy as np

FEATURES, CLASSES = 2048, 1008

IMAGES = {"299x299": 2, "32x32": 4, "40x56": 1}
"""Sizes of the golden images, and how many there are of each."""

Shapes = dict[str, tuple[int, ...]]


def conv_shapes() -> Shapes:
    """Return name -> OIHW of all 94 convolutions."""
    stem = {
        "Conv2d_1a_3x3": (32, 3, 3, 3),
        "Conv2d_2a_3x3": (32, 32, 3, 3),
        "Conv2d_2b_3x3": (64, 32, 3, 3),
        "Conv2d_3b_1x1": (80, 64, 1, 1),
        "Conv2d_4a_3x3": (192, 80, 3, 3),
    }
    return stem | {
        f"{block}.{name}": shape
        for block, branches in (
            ("Mixed_5b", _a(192, 32)),
            ("Mixed_5c", _a(256, 64)),
            ("Mixed_5d", _a(288, 64)),
            ("Mixed_6a", _b(288)),
            ("Mixed_6b", _c(128)),
            ("Mixed_6c", _c(160)),
            ("Mixed_6d", _c(160)),
            ("Mixed_6e", _c(192)),
            ("Mixed_7a", _d(768)),
            ("Mixed_7b", _e(1280)),
            ("Mixed_7c", _e(2048)),
        )
        for name, shape in branches.items()
    }


def state_dict(seed: int = 0) -> dict[str, np.ndarray]:
    """Tensors whose activations are of order 1 from the first layer to the last."""
    stream = np.random.PCG64(seed)
    state = _convolutions(stream, conv_shapes())
    spread = np.sqrt(3 / FEATURES)
    state["fc.weight"] = _uniform(stream, (CLASSES, FEATURES), -spread, spread)
    state["fc.bias"] = _uniform(stream, (CLASSES,), -1.0, 1.0)
    return state


def stem() -> dict[str, np.ndarray]:
    """The first tensors of `state_dict`, of all layers before the mixed ones."""
    shapes = {k: v for k, v in conv_shapes().items() if k.startswith("Conv2d")}
    return _convolutions(np.random.PCG64(0), shapes)


def images(size: str) -> np.ndarray:
    """8-bit images [b, h, w, 3] of a size such as "32x32", smooth and noisy at once."""
    height, width = (int(side) for side in size.split("x"))
    count = IMAGES.get(size, 1)
    stream = np.random.PCG64(height * 1000 + width)
    y, x = np.mgrid[:height, :width] / np.array([height, width]).reshape(2, 1, 1)
    # Coarse waves of another direction for every image and channel, and noise on top:
    # images of noise alone would all leave the network with the same means.
    turns = _uniform(stream, (count, 3, 3), 0.0, 6.0)
    waves = [
        [np.sin(a * x + b * y + c) * np.cos((c - b) * x + a) for a, b, c in image]
        for image in turns.astype(np.float64)
    ]
    smooth = np.moveaxis(np.array(waves), 1, -1)
    noise = _uniform(stream, smooth.shape, -0.3, 0.3)
    return np.clip(np.round(127.5 + 98 * (smooth + noise)), 0, 255).astype(np.uint8)


def sifid_images() -> np.ndarray:
    """A real image and three others [4, 80, 96, 3]: another one, darker, mirrored."""
    (real,), (other,) = images("80x96"), images("96x96")[:, :80]
    return np.stack([real, other, real // 2, real[::-1]])


def _convolutions(stream: np.random.PCG64, shapes: Shapes) -> dict[str, np.ndarray]:
    state = {}
    for name, shape in shapes.items():
        channels = shape[0]
        spread = np.sqrt(6 / np.prod(shape[1:]))
        state[f"{name}.conv.weight"] = _uniform(stream, shape, -spread, spread)
        for key, low, high in (
            ("weight", 0.75, 1.35),
            ("bias", -0.3, 0.3),
            ("running_mean", -0.3, 0.3),
            ("running_var", 0.6, 1.4),
        ):
            state[f"{name}.bn.{key}"] = _uniform(stream, (channels,), low, high)
        state[f"{name}.bn.num_batches_tracked"] = np.array(0, np.int64)
    return state


def _a(channels: int, pool: int) -> Shapes:
    return {
        "branch1x1": (64, channels, 1, 1),
        "branch5x5_1": (48, channels, 1, 1),
        "branch5x5_2": (64, 48, 5, 5),
        "branch3x3dbl_1": (64, channels, 1, 1),
        "branch3x3dbl_2": (96, 64, 3, 3),
        "branch3x3dbl_3": (96, 96, 3, 3),
        "branch_pool": (pool, channels, 1, 1),
    }


def _b(channels: int) -> Shapes:
    return {
        "branch3x3": (384, channels, 3, 3),
        "branch3x3dbl_1": (64, channels, 1, 1),
        "branch3x3dbl_2": (96, 64, 3, 3),
        "branch3x3dbl_3": (96, 96, 3, 3),
    }


def _c(width: int, channels: int = 768) -> Shapes:
    return {
        "branch1x1": (192, channels, 1, 1),
        "branch7x7_1": (width, channels, 1, 1),
        "branch7x7_2": (width, width, 1, 7),
        "branch7x7_3": (192, width, 7, 1),
        "branch7x7dbl_1": (width, channels, 1, 1),
        "branch7x7dbl_2": (width, width, 7, 1),
        "branch7x7dbl_3": (width, width, 1, 7),
        "branch7x7dbl_4": (width, width, 7, 1),
        "branch7x7dbl_5": (192, width, 1, 7),
        "branch_pool": (192, channels, 1, 1),
    }


def _d(channels: int) -> Shapes:
    return {
        "branch3x3_1": (192, channels, 1, 1),
        "branch3x3_2": (320, 192, 3, 3),
        "branch7x7x3_1": (192, channels, 1, 1),
        "branch7x7x3_2": (192, 192, 1, 7),
        "branch7x7x3_3": (192, 192, 7, 1),
        "branch7x7x3_4": (192, 192, 3, 3),
    }


def _e(channels: int) -> Shapes:
    return {
        "branch1x1": (320, channels, 1, 1),
        "branch3x3_1": (384, channels, 1, 1),
        "branch3x3_2a": (384, 384, 1, 3),
        "branch3x3_2b": (384, 384, 3, 1),
        "branch3x3dbl_1": (448, channels, 1, 1),
        "branch3x3dbl_2": (384, 448, 3, 3),
        "branch3x3dbl_3a": (384, 384, 1, 3),
        "branch3x3dbl_3b": (384, 384, 3, 1),
        "branch_pool": (192, channels, 1, 1),
    }


def _uniform(
    stream: np.random.PCG64, shape: tuple[int, ...], low: float, high: float
) -> np.ndarray:
    bits = stream.random_raw(int(np.prod(shape)))
    unit = (bits >> np.uint64(40)) / 2**24
    return (low + (high - low) * unit).astype(np.float32).reshape(shape)
