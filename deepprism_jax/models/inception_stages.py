"""The stages of the Inception-v3 of FID, as data; `models.inception` runs them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Conv:
    """A convolution, with the batch norm folded in, then ReLU."""

    name: str
    out_channels: int
    kernel_size: tuple[int, int] = (1, 1)
    strides: int = 1
    same: bool = True
    """Whether zeros keep the size; else only whole windows count."""


@dataclass(frozen=True)
class AverageThenConv:
    """A mean over 3x3 places that exist, then a 1x1 convolution."""

    conv: Conv


@dataclass(frozen=True)
class Max:
    """A maximum over 3x3 places."""

    strides: int = 2


@dataclass(frozen=True)
class Fork:
    """Convolutions of one map, side by side."""

    convs: tuple[Conv, ...]


Step = Conv | AverageThenConv | Max | Fork


@dataclass(frozen=True)
class Mixed:
    """Branches of steps over one map; their results are joined along the channels."""

    name: str
    branches: tuple[tuple[Step, ...], ...]


def _a(name: str, pool: int) -> Mixed:
    return Mixed(
        name,
        (
            (Conv("branch1x1", 64),),
            (Conv("branch5x5_1", 48), Conv("branch5x5_2", 64, (5, 5))),
            (
                Conv("branch3x3dbl_1", 64),
                Conv("branch3x3dbl_2", 96, (3, 3)),
                Conv("branch3x3dbl_3", 96, (3, 3)),
            ),
            (AverageThenConv(Conv("branch_pool", pool)),),
        ),
    )


def _b(name: str) -> Mixed:
    return Mixed(
        name,
        (
            (Conv("branch3x3", 384, (3, 3), 2, same=False),),
            (
                Conv("branch3x3dbl_1", 64),
                Conv("branch3x3dbl_2", 96, (3, 3)),
                Conv("branch3x3dbl_3", 96, (3, 3), 2, same=False),
            ),
            (Max(),),
        ),
    )


def _c(name: str, width: int) -> Mixed:
    row, column = (1, 7), (7, 1)
    return Mixed(
        name,
        (
            (Conv("branch1x1", 192),),
            (
                Conv("branch7x7_1", width),
                Conv("branch7x7_2", width, row),
                Conv("branch7x7_3", 192, column),
            ),
            (
                Conv("branch7x7dbl_1", width),
                Conv("branch7x7dbl_2", width, column),
                Conv("branch7x7dbl_3", width, row),
                Conv("branch7x7dbl_4", width, column),
                Conv("branch7x7dbl_5", 192, row),
            ),
            (AverageThenConv(Conv("branch_pool", 192)),),
        ),
    )


def _d(name: str) -> Mixed:
    return Mixed(
        name,
        (
            (
                Conv("branch3x3_1", 192),
                Conv("branch3x3_2", 320, (3, 3), 2, same=False),
            ),
            (
                Conv("branch7x7x3_1", 192),
                Conv("branch7x7x3_2", 192, (1, 7)),
                Conv("branch7x7x3_3", 192, (7, 1)),
                Conv("branch7x7x3_4", 192, (3, 3), 2, same=False),
            ),
            (Max(),),
        ),
    )


def _e(name: str, pool: tuple[Step, ...]) -> Mixed:
    def fork(prefix: str) -> Fork:
        return Fork((Conv(f"{prefix}a", 384, (1, 3)), Conv(f"{prefix}b", 384, (3, 1))))

    return Mixed(
        name,
        (
            (Conv("branch1x1", 320),),
            (Conv("branch3x3_1", 384), fork("branch3x3_2")),
            (
                Conv("branch3x3dbl_1", 448),
                Conv("branch3x3dbl_2", 384, (3, 3)),
                fork("branch3x3dbl_3"),
            ),
            pool,
        ),
    )


STAGES: tuple[Conv | Max | Mixed, ...] = (
    Conv("Conv2d_1a_3x3", 32, (3, 3), 2, same=False),
    Conv("Conv2d_2a_3x3", 32, (3, 3), same=False),
    Conv("Conv2d_2b_3x3", 64, (3, 3)),
    Max(),
    Conv("Conv2d_3b_1x1", 80),
    Conv("Conv2d_4a_3x3", 192, (3, 3), same=False),
    Max(),
    _a("Mixed_5b", 32),
    _a("Mixed_5c", 64),
    _a("Mixed_5d", 64),
    _b("Mixed_6a"),
    _c("Mixed_6b", 128),
    _c("Mixed_6c", 160),
    _c("Mixed_6d", 160),
    _c("Mixed_6e", 192),
    _d("Mixed_7a"),
    _e("Mixed_7b", (AverageThenConv(Conv("branch_pool", 192)),)),
    _e("Mixed_7c", (Max(strides=1), Conv("branch_pool", 192))),
)
"""Names are those of the torch files."""
