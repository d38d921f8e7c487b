"""The page of results, docs/results.md, from the records in results/.

    python scripts/results.py                       # write the page and its plots
    python scripts/results.py --check               # is the page that of the records?
    python scripts/results.py add RUN --name NAME --label LABEL --group GROUP
    python scripts/results.py keep FILE.json --name NAME

`results/template.md` holds the sentences; every table, plot and number in braces comes
from a record: `results/runs` (a run and seed a file, written by `add` from what
train.py and eval.py left in RUN), `results/benchmarks` (what benchmarks/ wrote by
`--json`, put there by `keep`), `results/tables` (trials whose runs were not kept).
Drawing needs the extra `bench`, checking does not.
"""

import argparse
import re
import shlex
import sys
from collections.abc import Sequence

import results_benchmarks as benchmarks
import results_plots as plots
import results_tables as tables
from results_records import RESULTS, ROOT, RecordError, Row, read, write

PAGE = ROOT / "docs" / "results.md"
TEMPLATE = RESULTS / "template.md"
_NOTE = (
    "<!-- Written by scripts/results.py from results/; edit results/template.md. -->\n"
)


class Page:
    """What the directives of the template mean: `{{name words key=value}}`."""

    def __init__(self, rows: dict[str, Row]):
        self.rows = rows
        self.plots: dict[str, plots.Plot] = {}
        """Plots that the page shows, by the path below docs/."""

    def render(self, template: str) -> str:
        """Return the template with every directive replaced."""
        return _NOTE + re.sub(r"\{\{(.+?)\}\}", self._directive, template, flags=re.S)

    def _directive(self, match: re.Match[str]) -> str:
        name, *words = shlex.split(match[1])
        options = dict(word.split("=", 1) for word in words if "=" in word)
        names = [word for word in words if "=" not in word]
        try:
            return getattr(self, f"on_{name}")(*names, **options)
        except RecordError as error:
            raise RecordError(f"{match[0]}: {error}") from None
        except (AttributeError, KeyError, TypeError) as error:
            raise RecordError(f"{match[0]} means nothing ({error!r})") from None

    def _group(self, names: Sequence[str], seed: str = "") -> list[Row]:
        """Return rows of groups, and of names, in that order, of all seeds or one."""
        known = {row.first.group for row in self.rows.values()} | set(self.rows)
        if unknown := [name for name in names if name not in known]:
            raise RecordError(f"no record or group is called {', '.join(unknown)}")
        return [
            row.of_seed(int(seed)) if seed else row
            for name in names
            for row in self.rows.values()
            if name in (row.first.group, row.first.name)
        ]

    def on_runs(
        self, *names: str, columns: str, paper: str = "", seed: str = ""
    ) -> str:
        """Table of runs, by group or name; with `seed` of that one alone."""
        rows = self._group(names, seed)
        return tables.runs(rows, columns.split(","), paper=bool(paper))

    def on_value(self, name: str, metric: str) -> str:
        """One figure of a row, for a sentence."""
        row = self.rows[name]
        if metric == "parameters":
            return f"{row.first.parameters:,}"
        if metric.startswith("eval/"):
            return f"{row.last(metric):.3f}"
        found = row.metric(metric)
        if found is None:
            raise RecordError(f"{name} has no {metric}")
        return tables.format_value(metric, found["value"])

    def on_commands(self) -> str:
        """Every trained row: commands, seeds, steps, time, hardware."""
        return tables.commands(self.rows.values())

    def on_table(self, name: str) -> str:
        """Table of `results/tables`."""
        return tables.plain(name)

    def on_table3(self) -> str:
        """The paper's Table 3, counted."""
        return tables.table3()

    def on_operators(self, name: str, base: str, skip: str = "") -> str:
        """Times of operators."""
        return benchmarks.operators(name, base, skip.split(";"))

    def on_steps(self, *names: str) -> str:
        """Times of training steps."""
        return benchmarks.training_steps(names)

    def on_denoisers(self, *names: str) -> str:
        """Times of denoisers."""
        return benchmarks.denoisers(names)

    def on_complexity(self, name: str) -> str:
        """Exponents of Table 2."""
        return benchmarks.complexity(name)

    def on_rates(self, name: str) -> str:
        """Bits a pixel and quality of codecs."""
        return benchmarks.rate_distortion(name)

    def on_equal_bytes(self, name: str) -> str:
        """Quality of codecs at the bytes of the latent."""
        return benchmarks.equal_bytes(name)

    def on_fact(self, name: str, key: str) -> str:
        """One number of a benchmark, for a sentence."""
        return benchmarks.fact(name, key)

    def on_curves(self, *names: str, of: str, title: str, label: str) -> str:
        """Plot of a figure of training over the images seen."""
        rows = self._group(names)
        return self._show(names[0], plots.curves(rows, of, title, label))

    def on_history(self, *names: str, of: str, decimals: str) -> str:
        """Table of a figure of training by images seen and minutes."""
        return tables.history(self._group(names), of, int(decimals))

    def on_quality(self, *names: str, of: str, title: str, seed: str = "") -> str:
        """Plot of quality over parameters, Figure 1; with `seed` of that one alone."""
        rows = self._group(names, seed)
        return self._show(f"figure1_{of}", plots.quality(rows, of, title))

    def on_time_over_channels(self, name: str, row: str) -> str:
        """Plot of Table 2's times over channels."""
        plot = plots.time_over_channels(benchmarks.read(name), row)
        return self._show(f"table2_{row}", plot)

    def on_rate_distortion(self, name: str) -> str:
        """Plot of PSNR over bits a pixel."""
        plot = plots.rate_distortion(benchmarks.read(name))
        return self._show("rate_distortion", plot)

    def _show(self, name: str, plot: plots.Plot) -> str:
        path = f"results/plot_{name}.png"
        if path in self.plots:
            raise RecordError(f"two plots are called {path}")
        self.plots[path] = plot
        return f"![{plot.title}: {plot.y_label} over {plot.x_label}]({path})"


def check(page: Page, text: str) -> list[str]:
    """Return what is not up to date: the page, or plots of other figures."""
    stale = [] if PAGE.is_file() and PAGE.read_text("utf-8") == text else ["results.md"]
    return stale + [
        path
        for path, plot in page.plots.items()
        if not plot.is_drawn(PAGE.parent / path)
    ]


def save(page: Page, text: str) -> None:
    """Write the page, and the plots that show other figures."""
    from deepprism_jax.files import write_text

    for path, plot in page.plots.items():
        if not plot.is_drawn(PAGE.parent / path):
            plot.draw(PAGE.parent / path)
            print(f"drew docs/{path}")
    write_text(PAGE, text)
    print(f"wrote {PAGE.relative_to(ROOT)}: {len(page.rows)} rows of runs")


def add(options: argparse.Namespace) -> None:
    """Write the record of a run."""
    sys.path.insert(0, str(ROOT))  # for configs/, where this is not the folder
    from results_add import from_run
    from results_records import agree

    record = from_run(options)
    path = RESULTS / "runs" / record.path
    if path.exists() and not options.replace:
        raise RecordError(
            f"{path.name} is there already; --replace it, or --name another"
        )
    others = read().get(record.name)
    for other in others.records if others else ():
        if other.path != record.path:
            agree(other, record)
    print(f"wrote {write(record).relative_to(ROOT)}; now python scripts/results.py")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Raw)
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.set_defaults(run="", file="")
    commands = parser.add_subparsers()
    keeping = commands.add_parser("keep", help="what a benchmark wrote by --json")
    keeping.add_argument("file")
    keeping.add_argument("--name", required=True, help="in results/benchmarks")
    adding = commands.add_parser("add", help="a record of a run")
    adding.add_argument("run", help="work directory of train.py")
    adding.add_argument("--name", required=True, help="the same for all seeds")
    adding.add_argument("--label", default="", help="first cell of the row")
    adding.add_argument("--group", required=True, help="the tables that it is for")
    adding.add_argument("--evaluation", default="", help="folder of metrics.json")
    adding.add_argument(
        "--no-evaluation", action="store_true", help="of the curve only"
    )
    adding.add_argument("--method", default="", help="row of metrics.json (the first)")
    adding.add_argument("--baseline", action="store_true", help="that was not trained")
    adding.add_argument("--without", nargs="*", default=[], help="metrics to leave out")
    adding.add_argument("--experiment", default="", help="of configs/ (the nearest)")
    adding.add_argument("--workdir", default="", help="in commands (runs/NAME)")
    adding.add_argument("--hardware", default="", help="where it was trained")
    adding.add_argument("--processor-seconds", type=float, help="by `time`")
    adding.add_argument("--unfinished", action="store_true", help="stopped early")
    adding.add_argument("--replace", action="store_true", help="a record that is there")
    return parser.parse_args(argv)


class _Raw(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the description."""


def main(argv: Sequence[str]) -> int:
    """Do what the command line asks for, and return the exit code."""
    options = parse(argv)
    try:
        if options.run:
            add(options)
            return 0
        if options.file:
            print(f"wrote {benchmarks.keep(options.file, options.name).name}")
            return 0
        page = Page(read())
        text = page.render(TEMPLATE.read_text(encoding="utf-8"))
        if not options.check:
            save(page, text)
            return 0
        stale = check(page, text)
    except (RecordError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name in stale:
        print(f"docs/{name} is not that of results/; run python scripts/results.py")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
