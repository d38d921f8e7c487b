"""Plots of the page of results, by matplotlib; each knows which figures it shows."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from results_records import Row

_DIGEST = "Figures"
"""Name of the text in the PNG that tells the figures that it was drawn from."""


@dataclass(frozen=True)
class Series:
    """Points of one colour."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    style: str = "o-"


@dataclass(frozen=True)
class Plot:
    """One panel, of which everything that is drawn is known."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    log: str = ""
    """Logarithmic axes: some of `x` and `y`."""
    lines: Sequence[tuple[str, float]] = ()
    """Horizontal lines, with their names."""

    @property
    def digest(self) -> str:
        """A fingerprint of what is drawn."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:16]

    def is_drawn(self, path: Path) -> bool:
        """Whether the file shows these figures; no matplotlib is needed."""
        from PIL import Image

        if not path.is_file():
            return False
        with Image.open(path) as image:
            return image.info.get(_DIGEST) == self.digest

    def draw(self, path: Path) -> None:
        """Write it as PNG, whole or not at all."""
        from matplotlib.backends.backend_agg import (  # pyright: ignore[reportMissingImports]
            FigureCanvasAgg,
        )
        from matplotlib.figure import Figure  # pyright: ignore[reportMissingImports]

        from deepprism_jax.files import replacing

        figure: Any = Figure(figsize=(7.2, 4.2), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        for one in self.series:
            axes.plot(one.x, one.y, one.style, label=one.label, markersize=5)
        for name, value in self.lines:
            axes.axhline(value, color="0.5", linestyle="--", linewidth=1)
            axes.annotate(
                name,
                (0.99, value),
                (0, 2),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                ha="right",
                fontsize=7,
            )
        axes.set(title=self.title, xlabel=self.x_label, ylabel=self.y_label)
        if "x" in self.log:
            axes.set_xscale("log")
        if "y" in self.log:
            axes.set_yscale("log")
        axes.grid(True, alpha=0.3)
        axes.legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1))
        with replacing(path) as part:
            metadata = {_DIGEST: self.digest}
            figure.savefig(part, dpi=110, format="png", metadata=metadata)


def curves(rows: Sequence[Row], name: str, title: str, y_label: str) -> Plot:
    """A figure of training over the images seen, one line a row (its first seed)."""
    series = []
    for row in rows:
        if points := row.first.curve.get(name):
            batch = row.first.batch_size or 1
            seen = [step * batch for step, *_ in points if step]
            values = [value for step, value, *_ in points if step]
            label = row.first.label.replace("`", "")
            series.append(Series(label, seen, values))
    return Plot(title, "images seen", y_label, series, log="x")


def quality(rows: Sequence[Row], metric: str, title: str) -> Plot:
    """The paper's Figure 1: quality over parameters, a series a kind and its fields."""
    from deepprism_jax.evaluation.table4 import PAPER, column

    found: dict[str, list[tuple[float, float]]] = {}
    lines = []
    for row in rows:
        score = row.metric(metric)
        if not score:
            continue
        if row.first.kind != "model":
            lines.append((row.first.label, score["value"]))
            continue
        model = row.first.config["model"]
        kind = model["conv"]
        if kind == "deepprism":
            fields = model["fields"]
            kind += f", {fields} field{'s' if fields > 1 else ''}"
        point = (float(row.first.parameters or 0), score["value"])
        found.setdefault(kind, []).append(point)
    series = [_line(kind, points) for kind, points in sorted(found.items())]
    for one in PAPER:
        if (score := one.scores.get(metric)) and one.parameters:
            point = [(float(one.parameters), score.value)]
            series.append(_line(one.method, point, "*"))
    heading = column(metric).heading
    return Plot(title, "parameters", heading, series, log="x", lines=lines)


def _line(label: str, points: list[tuple[float, float]], style: str = "o-") -> Series:
    points = sorted(points)
    return Series(label, [x for x, _ in points], [y for _, y in points], style)


def time_over_channels(content: dict[str, Any], row: str) -> Plot:
    """Table 2's times over C, with the slope beside each name."""
    series = [
        Series(f"{one['operator']}: C^{one['slope']:.2f}", one["sizes"], one["values"])
        for one in content["cells"]
        if (one["row"], one["variable"]) == (row, "C")
    ]
    return Plot(f"Table 2: {row} over channels", "C", "ms", series, log="xy")


def rate_distortion(content: dict[str, Any]) -> Plot:
    """PSNR over bits a pixel, a series a codec."""
    series = []
    for codec in content["codecs"]:
        mine = [row for row in content["rows"] if row["codec"] == codec]
        points = [(row["bits_per_pixel"], row["psnr"]) for row in mine]
        series.append(_line(codec, points))
    return Plot("Kodak, 24 images", "bits a pixel", "PSNR (dB)", series, log="x")
