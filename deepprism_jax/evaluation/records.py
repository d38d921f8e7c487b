"""Scores for other programs: `metrics.json`, which is read again, and `metrics.csv`."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deepprism_jax.evaluation.table4 import (
    CODE,
    COMPARED,
    IMAGES,
    KERNELS,
    PARAMETERS,
    Row,
    column,
    columns_of,
)
from deepprism_jax.files import write_text
from deepprism_jax.metrics.state import Score

FORMAT = 2
"""Of `metrics.json`; 1 had no such number, and no networks."""

FIELDS = (
    *("method", "metric", "value", "std", "count", "over", "images"),
    *("network", "weights", "resize"),
    *("reference", "kid_subset"),
    *("source", "name", "split", "image_size", "step", "deepprism_jax"),
)
"""Header of `metrics.csv`."""


SUBJECT = ("images", "image_size")
"""Facts without which figures cannot stand beside others."""


class Report(NamedTuple):
    """What one evaluation has written: its rows, and what they were measured on."""

    rows: list[Row]
    facts: dict[str, Any]


def networks_of(metric: str, facts: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the networks behind a metric, of those in `facts["networks"]`, by name."""
    there = facts.get("networks") or {}
    return {name: there[name] for name in column(metric).networks if name in there}


def write_json(path: str | Path, rows: Sequence[Row], facts: Mapping[str, Any]) -> None:
    """Write every figure in full, with what it was measured on and by.

    Numbers that are not finite become null, for JSON has none.

    Raises:
        OSError: the file cannot be written; what was there before is intact.
    """
    methods = [
        {
            "method": row.method,
            **{name: score._asdict() for name, score in row.scores.items()},
            "parameters": row.parameters,
            "code": row.code,
        }
        for row in rows
    ]
    report = {"format": FORMAT, "provenance": facts, "methods": methods}
    text = json.dumps(_plain(report), indent=2, allow_nan=False, ensure_ascii=False)
    write_text(path, text + "\n")


def write_csv(path: str | Path, rows: Sequence[Row], facts: Mapping[str, Any]) -> None:
    """Write one line a method and metric, each with all that it was measured with.

    Parameters and the length of the code are lines too. Numbers are in full; a field
    that does not apply is empty.

    Raises:
        OSError: the file cannot be written; what was there before is intact.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
    writer.writeheader()
    same: dict[str, Any] = {name: facts.get(name) for name in FIELDS[-6:]}
    if same["image_size"]:
        same["image_size"] = "x".join(map(str, same["image_size"]))
    for row in rows:
        for name in columns_of([row]):
            score = row.scores.get(name)
            if score is None:  # it is counted, not measured
                number = row.parameters if name == PARAMETERS else row.code
                line = {"method": row.method, "metric": name, "value": number}
                writer.writerow({**same, **line})
                continue
            used = networks_of(name, facts)
            line = {"method": row.method, "metric": name, **score._asdict()}
            if score.over in ("images", "samples"):
                line["images"] = score.count
            if name in COMPARED:
                line["reference"] = facts.get("reference") or IMAGES
            if name in KERNELS:
                line["kid_subset"] = facts.get("kid_subset")
            line["weights"] = "+".join(str(n.get("weights", "")) for n in used.values())
            # One of a metric's networks sees images, the others its features.
            resizes = (n.get("resize") for n in used.values())
            line["resize"] = next(filter(None, resizes), "")
            writer.writerow({**same, **line, "network": "+".join(used)})
    write_text(path, text.getvalue())


def read_json(path: str | Path) -> Report:
    """Return what `write_json` wrote; null figures are NaN again.

    Raises:
        ValueError: the file cannot be read, or is of another format.
    """
    remedy = "evaluate the run again with eval.py"
    try:
        report = json.loads(Path(path).read_text(encoding="utf-8"))
        version = report.get("format", 1)
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read ({_line(error)}); {remedy}") from None
    if version != FORMAT:
        raise ValueError(f"{path} has format {version}, not {FORMAT}; {remedy}")
    try:
        rows = [_row(method) for method in report["methods"]]
        facts = dict(report["provenance"])
        if not rows:
            raise ValueError("it has no methods")
        if missing := [name for name in SUBJECT if facts.get(name) is None]:
            raise ValueError(f"its provenance lacks {', '.join(missing)}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        # A KeyError's text is the key alone.
        problem = f"no {error}" if isinstance(error, KeyError) else _line(error)
        raise ValueError(f"{path} is damaged ({problem}); {remedy}") from None
    return Report(rows, facts)


def _row(method: Mapping[str, Any]) -> Row:
    # What is an object is a score, whatever its name.
    scores = {
        name: Score(**{**score, "value": _number(score["value"])})
        for name, score in method.items()
        if isinstance(score, Mapping)
    }
    parameters, code = (
        None if method[name] is None else int(method[name])
        for name in (PARAMETERS, CODE)
    )
    return Row(str(method["method"]), scores, parameters, code)


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _plain(value: Any) -> Any:
    """Return what JSON can hold: no tuples, paths, numbers of NumPy, NaN, infinity."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
