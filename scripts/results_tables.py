"""Tables of the page of results, in Markdown, of records and of counted numbers."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from results_records import MEASURED, RESULTS, RecordError, Row

from deepprism_jax.analysis.table3 import PRINTED, autoencoder_parameters
from deepprism_jax.evaluation.table4 import (
    CODE,
    COLUMNS,
    PAPER,
    PARAMETERS,
    WITHOUT_TIME,
    column,
    format_value,
)

_HEADINGS = {
    "seeds": "seeds",
    "steps": "steps",
    "batch": "batch",
    "seen": "images seen",
    "minutes": "minutes",
    "processor": "minutes of a processor",
    "eval/loss": "error at the end (`eval/loss`)",
}
_LAST = "eval/"
_COUNTED = (PARAMETERS, CODE, WITHOUT_TIME)


def markdown(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table whose first column stands to the left."""
    lines = ["| " + " | ".join(headings) + " |"]
    lines.append("|---" * len(headings) + "|")
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def runs(rows: Sequence[Row], columns: Sequence[str], *, paper: bool) -> str:
    """Return the table of some rows, and below it what was measured on what.

    Rows are in the order of the first metric of `columns`: those that were trained,
    then baselines, then, with `paper`, the paper's.

    Raises:
        RecordError: there are no rows, or their figures do not compare.
    """
    if not rows:
        raise RecordError("a table has no rows; add a record, or take it away")
    measured = [name for name in columns if name in COLUMNS and name not in _COUNTED]
    if measured:
        rows = [row for row in rows if any(map(row.metric, measured))]
    leading = (measured or [*columns])[0]
    ordered = sorted(
        rows, key=lambda row: (row.first.kind != "model", _rank(row, leading))
    )
    cells = [
        [row.first.label, *(_cell(row, name, leading) for name in columns)]
        for row in ordered
    ]
    if paper:
        cells += [[one.method, *(_printed(one, x) for x in columns)] for one in PAPER]
    headings = [_heading(name, ordered) for name in columns]
    parts = [markdown(["method", *headings], cells)]
    if measured:
        parts.append(_legend(rows, measured))
    return "\n\n".join(parts)


def _rank(row: Row, name: str) -> float:
    if found := row.metric(name):
        best = column(name).better == "higher"
        return -found["value"] if best else found["value"]
    return (row.last(name) or 0.0) if name.startswith(_LAST) else 0.0


def _heading(name: str, rows: Sequence[Row]) -> str:
    if name == "seeds" and any(len(row.records) > 1 for row in rows):
        return "seeds (± over them)"
    if name in _HEADINGS:
        return _HEADINGS[name]
    return column(name).title if name in COLUMNS else _words(name)


def _words(name: str) -> str:
    """Return `learning rate` of `optimizer.learning_rate`, group where it is a name."""
    group, _, field = name.rpartition(".")
    return group if field == "name" else field.replace("_", " ")


def _cell(row: Row, name: str, leading: str) -> str:
    first = row.first
    if name in (PARAMETERS, CODE):
        number = getattr(first, name)
        return "" if number is None else f"{number:,}"
    if name == "seeds":
        found = row.metric(leading)
        spread = found["seeds_std"] if found else None
        count = len(row.records) if first.kind == "model" else 0
        more = f" (± {format_value(leading, spread)})" if spread is not None else ""
        return f"{count}{more}" if count else ""
    if name in ("steps", "batch", "seen"):
        numbers = {"steps": first.steps, "batch": first.batch_size}
        seen = first.steps and first.batch_size and first.steps * first.batch_size
        value = numbers.get(name, seen)
        return "" if value is None else f"{value:,}"
    if name in ("minutes", "processor"):
        key = "seconds" if name == "minutes" else "processor_seconds"
        spent = row.mean(key)
        return "" if spent is None else _minutes(spent)
    if name.startswith(_LAST):
        last = row.last(name)
        return "" if last is None else f"{last:.3f}"
    if "." in name:
        group, _, key = name.partition(".")
        return str(first.config.get(group, {}).get(key, ""))
    found = row.metric(name)
    return score(name, found) if found else ""


def score(name: str, found: Mapping[str, Any]) -> str:
    """Return `25.45 ± 2.55`, or the figure alone where it has no spread."""
    value, std = format_value(name, found["value"]), found["std"]
    return value if not std else f"{value} ± {format_value(name, std)}"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:,.0f}" if seconds >= 600 else f"{seconds / 60:.1f}"


def _printed(row: Any, name: str) -> str:
    if name in row.printed:
        return row.printed[name]
    found = row.scores.get(name)
    return score(name, found._asdict()) if found else ""


def _legend(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """Say what the figures were measured on, over what ± runs, and by which networks.

    Raises:
        RecordError: the figures do not compare.
    """
    facts = [row.first.measured_on for row in rows if row.first.measured_on]
    for key in MEASURED:
        if len({json.dumps(one.get(key)) for one in facts}) > 1:
            names = ", ".join(row.first.name for row in rows)
            raise RecordError(
                f"{names} differ in {key}, so their figures do not compare"
            )
    parts = [_subject(facts[0])] if facts else []
    spreads: dict[str, list[str]] = {}
    networks: dict[str, str] = {}
    for name in columns:
        found = next(filter(None, (row.metric(name) for row in rows)), None)
        if name not in COLUMNS or not found:
            continue
        for one in column(name).networks:
            used = (fact.get("networks", {}).get(one) for fact in facts)
            if there := next(filter(None, used), None):
                networks[one] = f"{there['name']}, weights {there['weights']}"
        if found["std"]:
            over = f"{found['count']:,} {found['over']}"
            spreads.setdefault(over, []).append(column(name).heading)
    parts += [f"± over {over}: {', '.join(names)}" for over, names in spreads.items()]
    parts += networks.values()
    return "*" + "; ".join(parts) + ".*" if parts else ""


def _subject(facts: Mapping[str, Any]) -> str:
    if "split" not in facts:  # samples of a model of one image
        return str(facts.get("subject", f"{facts['images']:,} images"))
    size = "x".join(map(str, facts["image_size"]))
    what = f"{facts['images']:,} images of {size}"
    if "real_images" in facts:
        what += f", drawn, beside {facts['real_images']:,}"
    return f"{what}, {facts['source']}, split `{facts['split']}`"


def history(rows: Sequence[Row], name: str, decimals: int) -> str:
    """Return the curve of every row, images seen (of the wall's minutes): figure."""
    cells = []
    for row in rows:
        batch = row.first.batch_size or 1
        points = [
            f"{step * batch:,} ({_minutes(seconds)}): {value:.{decimals}f}"
            for step, value, seconds in row.first.curve.get(name, ())
            if step
        ]
        cells.append([row.first.label, " · ".join(points)])
    headings = ["method", f"images seen (minutes): `{name}`"]
    return markdown(headings, cells)


def commands(rows: Iterable[Row]) -> str:
    """Return every trained row's commands, seeds, steps, time and hardware."""
    cells = []
    for row in rows:
        first = row.first
        if first.kind != "model":
            continue
        seeds = ", ".join(str(one.seed) for one in row.records)
        length = f"{first.steps:,} x {first.batch_size}" if first.steps else ""
        lines = [f"`{line}`" for line in (first.command, first.evaluation) if line]
        times = [_cell(row, name, "") for name in ("minutes", "processor")]
        cells.append(
            [first.name, seeds, length, *times, first.hardware, "<br>".join(lines)]
        )
    headings = ["row", "seeds", "steps x batch", "minutes", "of a processor"]
    return markdown([*headings, "hardware", "commands"], cells)


def table3() -> str:
    """Return the paper's Table 3, counted, beside what it prints."""
    cells = []
    for width, (dense, prism, ratio) in PRINTED.items():
        exact = [autoencoder_parameters(width, kind) for kind in ("dense", "deepprism")]
        printed = [_short(dense), _short(prism), f"{ratio:,.0f}"]
        counted = [f"{exact[0]:,}", f"{exact[1]:,}", f"{exact[0] / exact[1]:.1f}"]
        pairs = zip(counted, printed, strict=True)
        cells.append([str(width), *(cell for pair in pairs for cell in pair)])
    headings = ["C", "dense", "printed", "DeepPrism", "printed", "ratio", "printed"]
    return markdown(headings, cells)


def _short(number: float) -> str:
    for unit, name in ((1e6, "M"), (1e3, "K")):
        if number >= unit:
            return f"{number / unit:.3g}{name}"
    return f"{number:g}"


def plain(name: str) -> str:
    """Return a table of `results/tables`: columns, rows, and where they come from.

    A cell is a number, a pair (value, ±), text, or null; a column has its decimals.

    Raises:
        RecordError: a row is not as long as the list of columns.
    """
    content = json.loads((RESULTS / "tables" / f"{name}.json").read_text("utf-8"))
    columns = content["columns"]
    cells = []
    for row in content["rows"]:
        if len(row) != len(columns):
            raise RecordError(
                f"{name}: {row[0]} has {len(row)} of {len(columns)} cells"
            )
        cells.append(
            [
                _number(x, one.get("decimals"))
                for x, one in zip(row, columns, strict=True)
            ]
        )
    parts = [markdown([one["name"] for one in columns], cells)]
    if source := "; ".join(filter(None, map(content.get, ("command", "hardware")))):
        parts.append(f"*{source}.*")
    return "\n\n".join(parts)


def _number(value: Any, decimals: int | None) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return " ± ".join(_number(one, decimals) for one in value)
    return f"{value:,.{decimals or 0}f}"
