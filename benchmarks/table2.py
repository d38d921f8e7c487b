"""Table 2 of the paper as data: formulas as printed, and as they are counted.

Counted are the multiply-adds of the definitions with their constants, three times as
many forward and backward as forward; of a softmax six operations a score forward and
four more backward; of space the numbers that forward and backward hold at once, to
which a dense convolution adds its kernel in another layout. Kernels
are 3x3 (Prism: DeepPrism's 3x3x3), the projections of attention 1x1 (Prism: three
taps). Where the two disagree in an exponent the print is wrong; see docs/benchmarks.md.
"""

from typing import Literal, NamedTuple

Row = Literal["parameters", "training", "space", "inference"]

VARIABLES: dict[str, str] = {
    "B": "images",
    "C": "channels",
    "N": "positions H W",
    "G": "groups",
    "P": "heads",
}


class Entry(NamedTuple):
    """One cell of the table."""

    paper: str
    counted: str


class Operator(NamedTuple):
    """One column of the table, and the sizes at which it is measured.

    `base` holds B, C, the side of a square map (N = side^2), G and P; `ranges` the
    values that one of them takes while the others stay, or have those in `instead`: the
    term that the paper is about must outweigh what grows otherwise. Maps of Prism are
    large, since on small ones caches bend the line.
    """

    entries: dict[Row, Entry]
    base: dict[str, int]
    ranges: dict[str, tuple[int, ...]]
    instead: dict[str, dict[str, int]] = {}  # noqa: RUF012


_CHANNELS = (64, 128, 256, 512)
_WIDE = (128, 256, 512, 1024)
_IMAGES = (1, 2, 4, 8)

_MAP = {"B": 1, "C": 128, "side": 32, "G": 8, "P": 1}
_ATTENDED = {"B": 1, "C": 128, "side": 32, "G": 1, "P": 1}
_SIDES = (16, 24, 32, 48)

TABLE2: dict[str, Operator] = {
    "Conv": Operator(
        {
            "parameters": Entry("C^2", "9 C^2 + C"),
            "training": Entry("B C^2 N", "27 B C^2 N"),
            "space": Entry("B C N", "4 B C N + 9 C^2"),
            "inference": Entry("C^2 N", "9 C^2 N"),
        },
        _MAP,
        {"B": _IMAGES, "C": _CHANNELS, "side": (16, 32, 64, 128)},
    ),
    "Group": Operator(
        {
            "parameters": Entry("C^2 G^-1", "9 C^2 G^-1 + C"),
            "training": Entry("B C^2 N G^-1", "27 B C^2 N G^-1"),
            "space": Entry("B C N", "4 B C N"),
            "inference": Entry("C^2 N G^-1", "9 C^2 N G^-1"),
        },
        _MAP,
        {
            "B": _IMAGES,
            "C": _CHANNELS,
            "side": (16, 32, 64, 128),
            "G": (2, 4, 8, 16, 32),
        },
    ),
    "Prism": Operator(
        {
            "parameters": Entry("1", "28"),
            "training": Entry("B C N", "81 B C N"),
            "space": Entry("B C N", "4 B C N"),
            "inference": Entry("C N", "27 C N"),
        },
        {**_MAP, "side": 256},
        {"B": _IMAGES, "C": _CHANNELS, "side": (128, 192, 256, 384)},
    ),
    "Attention": Operator(
        {
            "parameters": Entry("C^2", "4 C^2 + 4 C"),
            "training": Entry("B C N^2 + B C^2 N", "6 B C N^2 + 10 B N^2 + 12 B C^2 N"),
            "space": Entry("B N^2 + B C N", "3 B N^2 + 8 B C N"),
            "inference": Entry("C N^2 + C^2 N", "2 C N^2 + 6 N^2 + 4 C^2 N"),
        },
        _ATTENDED,
        {"B": _IMAGES, "C": _WIDE, "side": _SIDES},
    ),
    "FlashAttn": Operator(
        {
            "parameters": Entry("C^2", "4 C^2 + 4 C"),
            "training": Entry("B C N^2 + B C^2 N", "7 B C N^2 + 16 B N^2 + 12 B C^2 N"),
            "space": Entry("B C N", "8 B C N"),
            "inference": Entry("C N^2 + C^2 N", "2 C N^2 + 6 N^2 + 4 C^2 N"),
        },
        _ATTENDED,
        {"B": _IMAGES, "C": _WIDE, "side": _SIDES},
    ),
    "MultiHeadAttn": Operator(
        {
            "parameters": Entry("C^2", "4 C^2 + 4 C"),
            "training": Entry(
                "B C N^2 P^-1 + B C^2 N", "6 B C N^2 + 10 B P N^2 + 12 B C^2 N"
            ),
            "space": Entry("B N^2 P^-1 + B C N", "3 B P N^2 + 8 B C N"),
            "inference": Entry("C N^2 P^-1 + C^2 N", "2 C N^2 + 6 P N^2 + 4 C^2 N"),
        },
        {**_ATTENDED, "C": 512, "P": 2},
        {"B": _IMAGES, "C": _WIDE, "side": _SIDES, "P": (1, 2, 4, 8)},
        {"P": {"C": 1024, "side": 48}},
    ),
    "SparseAttn": Operator(
        {
            "parameters": Entry("C^2", "4 C^2 + 4 C"),
            "training": Entry(
                "B C N^3/2 + B C^2 N", "12 B C N^3/2 + 20 B N^3/2 + 12 B C^2 N"
            ),
            "space": Entry("B C N^3/2 + B C N", "6 B N^3/2 + 8 B C N"),
            "inference": Entry("C N^3/2 + C^2 N", "4 C N^3/2 + 12 N^3/2 + 4 C^2 N"),
        },
        {**_ATTENDED, "side": 64},
        {"B": _IMAGES, "C": _WIDE, "side": (32, 48, 64, 96, 128)},
        {"side": {"C": 64}},
    ),
    "PrismAttn": Operator(
        {
            "parameters": Entry("1", "16"),
            "training": Entry("B N^2 + B C N", "6 B C N^2 + 10 B N^2 + 36 B C N"),
            "space": Entry("B N^2 + B C N", "3 B N^2 + 8 B C N"),
            "inference": Entry("C N^2", "2 C N^2 + 6 N^2 + 12 C N"),
        },
        _ATTENDED,
        {"B": _IMAGES, "C": (256, 512, 1024, 2048), "side": _SIDES},
    ),
}
