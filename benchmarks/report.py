"""What a benchmark leaves behind: a table, a JSON file, a plot."""

import dataclasses
import importlib.util
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Report:
    """Where the figures go besides the screen."""

    json: str = ""
    """File to write the figures to."""
    plot: str = ""
    """File to draw them into, for example figures.png; needs matplotlib."""

    def check(self) -> None:
        """Stop before any work where the files could not be written at its end."""
        if self.plot and importlib.util.find_spec("matplotlib") is None:
            raise SystemExit(
                f"error: --plot {self.plot} needs matplotlib; install it by "
                "`pip install -e '.[bench]'` or `pip install matplotlib`"
            )
        for path in filter(None, (self.json, self.plot)):
            if not Path(path).absolute().parent.is_dir():
                raise SystemExit(f"error: there is no folder for {path}; make it first")

    def write_json(self, benchmark: str, **figures: Any) -> None:
        """Write the figures with what they were measured on, where a file is named."""
        if self.json:
            content = {
                "benchmark": benchmark,
                "machine": machine.facts(),
                "options": dataclasses.asdict(self),
                **figures,
            }
            Path(self.json).write_text(json.dumps(content, indent=2) + "\n")


def table(title: str, headings: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Print rows of text, the first column to the left, and the machine below them."""
    grid = Table(title=title, caption=machine.describe(machine.facts()))
    for number, heading in enumerate(headings):
        side = "right" if number else "left"
        grid.add_column(heading, justify=side, no_wrap=True)
    for row in rows:
        grid.add_row(*row)
    console = Console()
    # A file or a pipe has no width: rows stay whole there.
    (console if console.is_terminal else Console(width=160)).print(grid)
