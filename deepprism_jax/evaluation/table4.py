"""The columns of the paper's Table 4, further ones, and the paper's own two rows."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from deepprism_jax.metrics.state import Score

PARAMETERS, CODE = "parameters", "code"
"""Columns that are not measured but counted."""

WITHOUT_TIME = "parameters_without_time"
"""Of a denoiser: those of the layers that see the image."""

IMAGES = "the images"
"""Method of the row of what is measured of the images themselves."""

INCEPTION = ("inception",)
LITE0 = ("efficientnet_lite0",)
SQUEEZE = ("squeezenet1_1", "lpips_squeeze")
VGG = ("vgg16", "lpips_vgg")
ALEX = ("alexnet", "lpips_alex")


@dataclass(frozen=True)
class Column:
    """How the figures of one metric are headed and written."""

    heading: str
    decimals: int
    better: str = ""
    """`higher` or `lower`; empty where nothing says so."""
    networks: tuple[str, ...] = ()
    """The pretrained networks that it is measured by, as `weights` names them."""

    @property
    def title(self) -> str:
        """Heading with an arrow that points to where figures are better."""
        # The space does not break, so that the arrow stays with the last word.
        arrow = {"higher": "\N{NO-BREAK SPACE}↑", "lower": "\N{NO-BREAK SPACE}↓"}
        return self.heading + arrow.get(self.better, "")


# Table 4 has the first six columns in this order. PS is the paper's alone: on its scale
# of 1 to 2 it is not LPIPS, so what is measured here never stands below it.
COLUMNS: dict[str, Column] = {
    "psnr": Column("PSNR (dB)", 2, "higher"),
    "is": Column("IS", 2, "higher", INCEPTION),
    "kid": Column("KID", 4, "lower", INCEPTION),
    "ps": Column("PS", 2, "lower"),
    "ssim": Column("SSIM", 3, "higher"),
    PARAMETERS: Column("parameters", 0, "lower"),
    WITHOUT_TIME: Column("parameters without time", 0, "lower"),
    CODE: Column("numbers in the code", 0),
    "fid": Column("FID", 2, "lower", INCEPTION),
    "lpips_squeeze": Column("LPIPS (squeeze)", 3, "lower", SQUEEZE),
    "lpips_vgg": Column("LPIPS (vgg)", 3, "lower", VGG),
    "lpips_alex": Column("LPIPS (alex)", 3, "lower", ALEX),
    "precision": Column("precision", 3, "higher", INCEPTION),
    "recall": Column("recall", 3, "higher", INCEPTION),
    "ms_ssim": Column("MS-SSIM", 3, "higher"),
    "efficientnet_lite0_score": Column("EfficientNet-Lite0 score", 2, "higher", LITE0),
    "efficientnet_lite0_frechet": Column(
        "EfficientNet-Lite0 Fréchet", 3, "lower", LITE0
    ),
    "efficientnet_lite0_kernel": Column("EfficientNet-Lite0 kernel", 4, "lower", LITE0),
    "efficientnet_lite0_precision": Column(
        "EfficientNet-Lite0 precision", 3, "higher", LITE0
    ),
    "efficientnet_lite0_recall": Column(
        "EfficientNet-Lite0 recall", 3, "higher", LITE0
    ),
    # Of samples of a model of one image.
    "sifid_inception": Column("SIFID (inception)", 4, "lower", INCEPTION),
    "sifid_inception_64": Column("SIFID (inception, 64)", 4, "lower", INCEPTION),
    "sifid_squeeze": Column("SIFID (squeeze)", 1, "lower", SQUEEZE[:1]),
    "sifid_vgg": Column("SIFID (vgg)", 1, "lower", VGG[:1]),
    "sifid_alex": Column("SIFID (alex)", 1, "lower", ALEX[:1]),
    "efficientnet_lite0_sifid": Column("EfficientNet-Lite0 SIFID", 1, "lower", LITE0),
    "pixel_diversity": Column("pixel diversity", 3, "higher"),
    "lpips_diversity_squeeze": Column(
        "LPIPS diversity (squeeze)", 3, "higher", SQUEEZE
    ),
    "lpips_diversity_vgg": Column("LPIPS diversity (vgg)", 3, "higher", VGG),
    "lpips_diversity_alex": Column("LPIPS diversity (alex)", 3, "higher", ALEX),
}
"""Every known metric by name, in the order of the table."""

KERNELS = ("kid", "efficientnet_lite0_kernel")
"""Means over subsets, whose size matters."""

COMPARED = (
    *("fid", "precision", "recall", *KERNELS),
    *(f"efficientnet_lite0_{role}" for role in ("frechet", "precision", "recall")),
)
"""Metrics that compare a distribution of images with another."""


@dataclass(frozen=True)
class Row:
    """What one method reaches, and what it needs for it."""

    method: str
    scores: Mapping[str, Score]
    parameters: int | None
    """Numbers that encoding and decoding need, whatever the image; None if unknown."""
    code: int | None
    """Numbers that an image becomes; None if unknown."""
    printed: Mapping[str, str] = field(default_factory=dict)
    """Cells of the table as the source prints them, where it rounds more."""


def column(name: str) -> Column:
    """Return the column of a metric; an unknown one is headed by its name."""
    return COLUMNS.get(name, Column(name, 4))


def columns_of(rows: Iterable[Row]) -> list[str]:
    """Return the columns that some row has a figure for, in the order of the table.

    Metrics that are not known come last, in the order of their first occurrence.
    """
    rows = list(rows)
    there = dict.fromkeys(name for row in rows for name in row.scores)
    if any(row.parameters is not None for row in rows):
        there[PARAMETERS] = None
    if any(row.code is not None for row in rows):
        there[CODE] = None
    known = [name for name in COLUMNS if name in there]
    return known + [name for name in there if name not in COLUMNS]


def format_value(name: str, value: float) -> str:
    """Return a figure of a metric with as many decimals as its column has."""
    return f"{value:,.{column(name).decimals}f}"


def format_score(name: str, score: Score | None) -> str:
    """Return `24.10 ± 2.50`, the value alone where there is no spread, or a dash."""
    if score is None:
        return "-"
    value = format_value(name, score.value)
    return value if score.std is None else f"{value} ± {format_value(name, score.std)}"


def cell(row: Row, name: str) -> str:
    """Return what stands in one column of a row."""
    if name in row.printed:
        return row.printed[name]
    if name in (PARAMETERS, CODE):
        number = row.parameters if name == PARAMETERS else row.code
        return "-" if number is None else f"{number:,}"
    return format_score(name, row.scores.get(name))


def _printed(value: float, std: float) -> Score:
    """A figure of the paper; a count of 0 says that it does not tell the sample."""
    return Score(value, std, 0, "")


PAPER = (
    Row(
        "paper: dense, C = 256",
        {
            "psnr": _printed(18.8, 2.4),
            "is": _printed(5.99, 0.12),
            "kid": _printed(0.0146, 0.0011),
            "ps": _printed(2.07, 0.49),
            "ssim": _printed(0.609, 0.106),
        },
        parameters=25_300_000,
        code=None,
        printed={"psnr": "18.8 ± 2.4", PARAMETERS: "25.3M"},
    ),
    Row(
        "paper: DeepPrism, C = 256",
        {
            "psnr": _printed(24.1, 2.5),
            "is": _printed(6.08, 0.15),
            "kid": _printed(0.0179, 0.0011),
            "ps": _printed(1.03, 0.27),
            "ssim": _printed(0.850, 0.053),
        },
        parameters=57_800,
        code=None,
        printed={"psnr": "24.1 ± 2.5", PARAMETERS: "57.8K"},
    ),
)
"""Table 4 of Fu and Cohen, VSIP 2023 (doi:10.1145/3638682.3638709): CIFAR-10."""
