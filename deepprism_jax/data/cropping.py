"""Cutting an image to the size that the network sees."""

import numpy as np
from jaxtyping import UInt8


def cut(
    image: UInt8[np.ndarray, "h w c"],
    out: UInt8[np.ndarray, "height width c"],
    *,
    top: float = 0.5,
    left: float = 0.5,
    mirror: bool = False,
) -> None:
    """Copy a crop of `image` into `out`, mirrored left-right if `mirror`.

    `top` and `left` in [0, 1) choose uniformly among the possible corners; one half
    is the centre.
    """
    height, width = out.shape[:2]
    y = int(top * (image.shape[0] - height + 1))
    x = int(left * (image.shape[1] - width + 1))
    crop = image[y : y + height, x : x + width]
    out[...] = crop[:, ::-1] if mirror else crop
