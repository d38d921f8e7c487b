"""Several evaluated runs in one table, with the paper's rows and with the baselines.

It says which figures do not compare, because the runs were measured on other images or
by other networks, and marks the best of those that do.
"""

import math
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from rich.console import Console

from deepprism_jax.evaluation.comparable import (
    Named,
    differences,
    has_papers_kind,
    incomparable,
    is_papers,
)
from deepprism_jax.evaluation.legend import (
    meanings,
    measures,
    remarks,
    settings,
    subject,
)
from deepprism_jax.evaluation.records import Report, read_json
from deepprism_jax.evaluation.report import Marks, markdown, show
from deepprism_jax.evaluation.table4 import (
    IMAGES,
    PAPER,
    PARAMETERS,
    Row,
    column,
    columns_of,
    format_score,
    format_value,
)
from deepprism_jax.training.preflight import PreflightError, refusing

METRICS = "metrics.json"


@dataclass(frozen=True)
class SideBySide:
    """Rows of the paper, of runs and of baselines, in this order."""

    rows: list[Row]
    best: Marks
    """The best figures of columns whose figures compare."""
    lines: list[str]
    """What to say below the table; first of all what does not compare."""

    def show(self, console: Console) -> None:
        """Print the table and its lines; the best figures carry an asterisk."""
        show(console, self.rows, self.lines, self.best)

    def markdown(self) -> str:
        """Return table and lines in Markdown; the best figures are bold."""
        return markdown(self.rows, self.lines, self.best)


def load(runs: Sequence[str | Path]) -> SideBySide:
    """Put the models of runs beside each other, the paper's rows and the baselines.

    The paper has no figures of models of one image; their runs stand by themselves.

    Args:
        runs: work directories, exports, directories of results, or `metrics.json`s.

    Raises:
        PreflightError: a run is named twice, is not evaluated, or its report cannot be
            read; one line each.
    """
    reports = read_runs(runs)
    differing = differences(reports)
    paper = PAPER if has_papers_kind(reports) else ()
    own = [replace(report.rows[0], method=name) for name, report in reports.items()]
    rows = [*paper, *own, *_baselines(reports, merge=not differing)]
    lines = [f"no figures compare: {line}" for line in differing]
    best: set[tuple[int, str]] = set()
    like_paper = False
    if not differing:
        apart, lines = incomparable(reports)
        like_paper = is_papers(next(iter(reports.values())).facts)
        first = 0 if like_paper else len(paper)
        # What stands below single-image runs are parts of them, and not other methods.
        last = len(rows) if paper else len(own)
        best = _best(rows[:last], range(first, last), apart)
    best |= _smallest([*paper, *own])
    lines.append("marked: the best figures of a column, of those that compare")
    if paper and not like_paper:
        lines.append(
            "the paper's rows do not compare with others: they are of CIFAR-10's "
            "10,000 test images"
        )
    if paper:
        lines.append(
            "the paper's rows are as printed in its Table 4, not measured here; its "
            "perceptual score PS is not LPIPS"
        )
    legend = _legend(rows, rows[len(paper) :], reports)
    return SideBySide(rows, best, [*lines, *legend])


def read_runs(runs: Sequence[str | Path]) -> dict[str, Report]:
    """Return the report of every run, by the shortest name that tells them apart.

    Raises:
        PreflightError: as `load`.
    """
    if not runs:
        raise PreflightError(
            "no run is named; give work directories that are evaluated"
        )
    problems: list[str] = []
    found: dict[Path, Report] = {}
    for run in runs:
        try:
            with refusing():
                path = find_report(run).resolve()
                if path in found:
                    raise ValueError(f"{run} is named twice; name every run once")
                found[path] = read_json(path)
        except PreflightError as error:
            problems += error.problems
    if problems:
        raise PreflightError(*problems)
    return dict(zip(_names(list(found)), found.values(), strict=True))


def find_report(run: str | Path) -> Path:
    """Return the `metrics.json` of a run.

    Raises:
        ValueError: there is none.
    """
    run = Path(run)
    if run.is_file():
        return run
    if not run.is_dir():
        raise ValueError(f"{run} is not there; give the work directory of a run")
    beside = run.absolute().with_name(f"{run.absolute().name}-eval")
    for directory in (run, beside):
        if (directory / METRICS).is_file():
            return directory / METRICS
    raise ValueError(
        f"{run} is not evaluated: it has no {METRICS}; first run "
        f"python eval.py {shlex.quote(str(run))}"
    )


def _names(paths: Sequence[Path]) -> list[str]:
    """Name runs by their directories, with as many parents as keep them apart."""
    parts = []
    for path in paths:
        directory = path.parent if path.name == METRICS else path.with_suffix("")
        *parents, last = directory.parts
        parts.append((*parents, last.removesuffix("-eval")))
    for depth in range(1, max(map(len, parts))):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def _baselines(reports: Named, *, merge: bool) -> list[Row]:
    """Return the baselines, those with the same figures once.

    Args:
        reports: of all runs.
        merge: the images are the same, so that baselines with the same name are one
            method, unless their figures say otherwise.
    """
    rows: dict[str, list[tuple[str, Row]]] = {}
    for run, report in reports.items():
        for row in report.rows[1:]:
            alike = rows.setdefault(row.method, [])
            for number, (first, other) in enumerate(alike):
                if merge and _agree(row, other):
                    scores = {**row.scores, **other.scores}
                    alike[number] = (first, replace(other, scores=scores))
                    break
            else:
                alike.append((run, row))
    return [
        row if merge and len(alike) == 1 else replace(row, method=f"{method} ({run})")
        for method, alike in rows.items()
        for run, row in alike
    ]


def _agree(row: Row, other: Row) -> bool:
    shared = row.scores.keys() & other.scores.keys()
    return (row.parameters, row.code) == (other.parameters, other.code) and all(
        format_score(name, row.scores[name]) == format_score(name, other.scores[name])
        for name in shared
    )


def _best(
    rows: Sequence[Row], competing: Iterable[int], apart: set[str]
) -> set[tuple[int, str]]:
    """Return where the best figures stand; equal as written is equally good.

    Args:
        rows: of the whole table.
        competing: numbers of the rows whose figures compare.
        apart: metrics whose figures do not.
    """
    best: set[tuple[int, str]] = set()
    for name in columns_of(rows):
        better = column(name).better
        if name in apart or not better:
            continue
        most = max((r.scores[name].count for r in rows if name in r.scores), default=0)
        values = {
            n: float(format_value(name, rows[n].scores[name].value).replace(",", ""))
            for n in competing
            if name in rows[n].scores
            and not rows[n].method.startswith(IMAGES)
            and math.isfinite(rows[n].scores[name].value)
            # Of fewer images, since others were no numbers; 0 does not tell.
            and rows[n].scores[name].count in (0, most)
        }
        if len(values) > 1:  # one alone is not the best of anything
            top = (max if better == "higher" else min)(values.values())
            best |= {(n, name) for n, value in values.items() if value == top}
    return best


def _smallest(networks: Sequence[Row]) -> set[tuple[int, str]]:
    """Return where the fewest parameters stand; methods without a network have none."""
    counts = {n: row.parameters for n, row in enumerate(networks) if row.parameters}
    return {(n, PARAMETERS) for n, c in counts.items() if c == min(counts.values())}


def _legend(
    rows: Sequence[Row], measured: Sequence[Row], reports: Named
) -> Iterator[str]:
    """Say what was measured by what; a line that runs share is said once."""
    networks: dict[str, Any] = {}
    said: dict[str, list[str]] = {}
    for run, report in reports.items():
        networks |= report.facts.get("networks") or {}
        own = (subject(report.facts), settings(report.rows, report.facts))
        for line in chain(*own, remarks(report.facts)):
            said.setdefault(line, []).append(run)
    for name in list(networks):
        seen = [
            (report.facts.get("networks") or {}).get(name)
            for report in reports.values()
        ]
        if any(other not in (None, networks[name]) for other in seen):
            del networks[name]  # which run used which is told where they differ
    yield from meanings(rows)
    yield from measures(measured, {"networks": networks})
    for line, runs in said.items():
        yield f"{', '.join(runs)}: {line}"
