"""Scores of several methods to read: on the console, and as `metrics.md`.

The figures are those of `evaluation.records`; here they are rounded, and lines below
the table say what they were measured on and by.
"""

import io
import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.table import Table
from rich.text import Text

from deepprism_jax.evaluation.legend import lines
from deepprism_jax.evaluation.records import write_csv, write_json
from deepprism_jax.evaluation.table4 import (
    Row,
    cell,
    column,
    columns_of,
    format_score,
)
from deepprism_jax.files import write_text

__all__ = [
    "Marks",
    "Row",
    "ScoreTable",
    "format_score",
    "markdown",
    "show",
    "table",
    "write_json",
    "write_report",
]

Marks = Collection[tuple[int, str]]
"""Number of the row and name of the column of figures to mark."""

MARK = " *"
"""Follows a marked figure on the console, which may have no bold type."""

_FRAME = 3
"""Blanks and rule beside the text of a column."""


class _Block(NamedTuple):
    heading: str
    cells: list[str]
    width: int


@dataclass(frozen=True)
class ScoreTable:
    """One row a method, one column a metric, for `rich` to print.

    Columns that do not fit the console go on in a further table, for a figure that is
    cut, or broken over lines, cannot be read.
    """

    rows: Sequence[Row]
    marks: Marks = ()

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[Table]:
        """Lay the columns out in as few tables as the console is wide enough for."""
        methods = [row.method for row in self.rows]
        longest = max(cell_len(text) for text in ("method", *methods))
        width = min(longest, max(options.max_width // 3, len("method")))
        for blocks in _packed(self._blocks(), options.max_width - width - _FRAME - 1):
            result = Table()
            result.add_column("method", width=width, overflow="fold")
            for block in blocks:
                result.add_column(block.heading, justify="right", width=block.width)
            for number, method in enumerate(methods):
                cells = [method, *(block.cells[number] for block in blocks)]
                result.add_row(*map(Text, cells))  # not markup, whatever its name
            yield result

    def _blocks(self) -> Iterator[_Block]:
        for name in columns_of(self.rows):
            cells = [self._cell(number, name) for number in range(len(self.rows))]
            width = max(map(cell_len, cells))
            # Headings are broken at words before they make a column wider.
            title = textwrap.wrap(
                column(name).title, max(width, 13), break_long_words=False
            )
            width = max(width, *map(cell_len, title))
            yield _Block("\n".join(title), cells, width)

    def _cell(self, number: int, name: str) -> str:
        """Return a figure with its mark, or blanks where others of its column have."""
        figure = cell(self.rows[number], name)
        if (number, name) in self.marks:
            return figure + MARK
        marked = any(name == other for _, other in self.marks)
        return figure + " " * (len(MARK) * marked)


def _packed(blocks: Iterator[_Block], room: int) -> Iterator[list[_Block]]:
    """Put as many columns in a table as fit, at least one."""
    group: list[_Block] = []
    left = room
    for block in blocks:
        if group and block.width + _FRAME > left:
            yield group
            group, left = [], room
        group.append(block)
        left -= block.width + _FRAME
    if group:
        yield group


def table(rows: Sequence[Row], marks: Marks = ()) -> ScoreTable:
    """Return the scores for `Console.print`, the best or otherwise chosen marked."""
    return ScoreTable(rows, marks)


def show(
    console: Console, rows: Sequence[Row], below: Sequence[str] = (), marks: Marks = ()
) -> None:
    """Print a table, marked figures with an asterisk, and lines below it."""
    console.print(table(rows, marks))
    for line in below:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def text(
    rows: Sequence[Row],
    below: Sequence[str] = (),
    marks: Marks = (),
    *,
    width: int = 100,
) -> str:
    """Return what `show` prints on a console of this many columns."""
    file = io.StringIO()
    show(Console(file=file, width=width), rows, below, marks)
    return file.getvalue()


def markdown(rows: Sequence[Row], below: Sequence[str] = (), marks: Marks = ()) -> str:
    """Return a table in Markdown, marked figures bold, and a list of lines below."""
    names = columns_of(rows)
    made = [["method", *(column(name).title for name in names)]]
    made.append(["---", *("---:" for _ in names)])
    for number, row in enumerate(rows):
        figures = [
            f"**{cell(row, name)}**" if (number, name) in marks else cell(row, name)
            for name in names
        ]
        made.append([_escape(row.method), *figures])
    result = "".join(f"| {' | '.join(cells)} |\n" for cells in made)
    items = "".join(f"* {_escape(line)}\n" for line in below)
    return f"{result}\n{items}" if items else result


def _escape(text: str) -> str:
    for character in "\\|*<`":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())


def write_report(
    directory: str | Path, rows: Sequence[Row], facts: Mapping[str, Any]
) -> list[str]:
    """Write `metrics.json`, `metrics.md` and `metrics.csv`; return their names.

    Raises:
        OSError: a file cannot be written; what it held before is intact.
    """
    directory = Path(directory)
    write_json(directory / "metrics.json", rows, facts)
    write_text(directory / "metrics.md", markdown(rows, lines(rows, facts)))
    write_csv(directory / "metrics.csv", rows, facts)
    return ["metrics.json", "metrics.md", "metrics.csv"]
