"""Scores of several methods as a table to read and as JSON to keep."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from deepprism_jax.metrics.state import Score

HEADINGS = {"psnr": ("PSNR (dB)", 2), "ssim": ("SSIM", 3)}
"""Heading of a metric's column, and how many decimals its figures have there."""


@dataclass(frozen=True)
class Row:
    """What one method reaches, and what it needs for it."""

    method: str
    scores: Mapping[str, Score]
    parameters: int
    """Numbers that encoding and decoding need, whatever the image."""
    code: int
    """Numbers that an image becomes."""


def table(rows: Sequence[Row]) -> Table:
    """Return mean ± standard deviation of every metric, one row a method."""
    metrics = list(dict.fromkeys(name for row in rows for name in row.scores))
    result = Table("method")
    for name in metrics:
        result.add_column(HEADINGS.get(name, (name, 4))[0], justify="right")
    result.add_column("parameters", justify="right")
    result.add_column("numbers in the code", justify="right")
    for row in rows:
        cells = [format_score(name, row.scores.get(name)) for name in metrics]
        result.add_row(row.method, *cells, f"{row.parameters:,}", f"{row.code:,}")
    return result


def format_score(name: str, score: Score | None) -> str:
    """Return `24.10 ± 2.50`, the value alone where there is no spread, or a dash."""
    if score is None:
        return "-"
    decimals = HEADINGS.get(name, (name, 4))[1]
    value = f"{score.value:.{decimals}f}"
    return value if score.std is None else f"{value} ± {score.std:.{decimals}f}"


def write_json(
    path: str | Path, rows: Sequence[Row], provenance: Mapping[str, Any]
) -> None:
    """Write every figure in full, with what it was measured on and by."""
    methods = [
        {
            "method": row.method,
            **{name: score._asdict() for name, score in row.scores.items()},
            "parameters": row.parameters,
            "code": row.code,
        }
        for row in rows
    ]
    report = {"provenance": dict(provenance), "methods": methods}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n")
