"""Table 2 of the paper, measured: how each operator grows with each size.

    python benchmarks/complexity.py --plot complexity.png
    python benchmarks/complexity.py --operators Conv Prism --variables C

Every operator runs at several sizes of one variable while the others stay: B images,
C channels, N = H W positions, G groups, P heads. Measured are the parameters, the time
of a forward pass of one image, the time of forward and backward, and what these hold in
memory by the compiler's account, without parameters and their gradients. The slope on
logarithmic axes stands beside the exponent that is left at large sizes, the slope of
the paper's formula at these very sizes, and that of the formula as it is counted
(`table2.py`): the columns `large`, `paper` and `counted`. Where the paper's is off by
more than the tolerance, the row says so, and whether the count holds.
"""

from dataclasses import dataclass
from typing import NamedTuple, get_args

import tyro
from formulas import leading_exponent, parse, predicted_slope, slope
from plotting import Curve, Panel, draw_panels
from report import Report, table
from table2 import TABLE2, VARIABLES, Operator, Row
from table2_subjects import Subject
from timing import Timing, interleave

from deepprism_jax.training.allocator import keep_memory

_WITHOUT = (("B", "parameters"), ("N", "parameters"), ("B", "inference"))
"""Variables that a row does not have."""


@dataclass(frozen=True)
class Options(Timing, Report):
    """What to measure."""

    operators: tuple[str, ...] = tuple(TABLE2)
    """Columns of the table."""
    variables: tuple[str, ...] = ("C", "N", "B", "G", "P")
    """What to vary."""
    rows: tuple[Row, ...] = get_args(Row)
    """Rows of the table."""
    points: int = 0
    """Sizes of a variable, the smallest first; 0 takes all."""
    shrink: int = 1
    """Divide channels and sides by this, for a quick look; slopes then mean little."""
    tolerance: float = 0.25
    """Difference of slopes that is pointed out."""
    seconds: float = 0.02
    bursts: int = 5


class Found(NamedTuple):
    """One cell of the table against one variable."""

    operator: str
    row: Row
    variable: str
    sizes: list[int]
    values: list[float]
    slope: float
    leading: float
    paper: float
    counted: float
    printed: str

    def remark(self, tolerance: float) -> str:
        """Whether the print holds, and if not, whether the count does."""
        if abs(self.slope - self.paper) <= tolerance:
            return ""
        explained = abs(self.slope - self.counted) <= tolerance
        return "print off, " + ("count holds" if explained else "count off")


def measure(name: str, variable: str, options: Options) -> list[Found]:
    """Measure all rows of an operator against one variable."""
    operator = TABLE2[name]
    subjects = [Subject(name, sizes) for sizes in _sizes(operator, variable, options)]
    found = []
    for row, entry in operator.entries.items():
        if row not in options.rows or (variable, row) in _WITHOUT:
            continue
        if row in ("parameters", "space"):
            values = [float(getattr(one, row)) for one in subjects]
        else:
            runs = {n: getattr(one, row)() for n, one in enumerate(subjects)}
            values = list(interleave(runs, options).values())
        sizes = [one.sizes for one in subjects]
        formulas = {kind: parse(text) for kind, text in entry._asdict().items()}
        predicted = {
            kind: predicted_slope(formula, variable, sizes)
            for kind, formula in formulas.items()
        }
        found.append(
            Found(
                operator=name,
                row=row,
                variable=variable,
                sizes=[one[variable] for one in sizes],
                values=values,
                slope=slope([one[variable] for one in sizes], values),
                leading=float(leading_exponent(formulas["paper"], variable)),
                **predicted,
                printed=entry.paper,
            )
        )
    return found


def _sizes(operator: Operator, variable: str, options: Options) -> list[dict[str, int]]:
    key = "side" if variable == "N" else variable
    values = operator.ranges[key][: options.points or None]
    base = operator.base | operator.instead.get(key, {})
    shrunk = {"C", "side"}
    return [
        {
            name: max(size // options.shrink, 1) if name in shrunk else size
            for name, size in {**base, key: value}.items()
        }
        for value in values
    ]


def show(found: list[Found], tolerance: float) -> None:
    """Print the table, then the slopes that the paper is about."""
    rows = [
        (
            one.operator,
            one.row,
            one.variable,
            f"{one.sizes[0]} to {one.sizes[-1]}",
            *(
                f"{round(x, 2) + 0.0:.2f}"
                for x in (one.slope, one.leading, one.paper, one.counted)
            ),
            one.remark(tolerance),
        )
        for one in found
    ]
    headings = ("operator", "row", "over", "sizes", "measured")
    headings += ("large", "paper", "counted", "")
    table("Table 2, measured: slopes on logarithmic axes", headings, rows)
    for row in ("training", "inference"):
        slopes = {
            one.operator: f"C^{one.slope:.2f}"
            for one in found
            if (one.row, one.variable) == (row, "C")
        }
        if {"Prism", "Conv"} <= set(slopes):
            print(
                f"{row} time over channels: DeepPrism {slopes['Prism']}, "
                f"dense {slopes['Conv']}"
            )


def draw(path: str, found: list[Found]) -> None:
    """One panel a row and variable, one curve an operator."""
    panels: dict[tuple[str, str], list[Curve]] = {}
    for one in found:
        if one.row != "parameters":
            label = f"{one.operator}: {round(one.slope, 2) + 0.0:.2f}"
            number = list(TABLE2).index(one.operator)
            curve = Curve(number, label, one.sizes, one.values)
            panels.setdefault((one.variable, one.row), []).append(curve)
    units = {"training": "ms", "inference": "ms", "space": "bytes"}
    drawn = [
        Panel(row, f"{variable} ({VARIABLES[variable]})", units[row], curves)
        for (variable, row), curves in panels.items()
    ]
    draw_panels(path, "Table 2, measured: slopes beside the names", drawn, 3)


def main(options: Options) -> None:
    """Measure, print, and write what is asked for."""
    options.check()
    for given, known in ((options.operators, TABLE2), (options.variables, "CNBGP")):
        for name in given:
            if name not in known:
                raise SystemExit(f"error: {name} is unknown; choose from {[*known]}")
    keep_memory()
    found = []
    for variable in options.variables:
        for name in options.operators:
            if ("side" if variable == "N" else variable) in TABLE2[name].ranges:
                found += measure(name, variable, options)
    show(found, options.tolerance)
    cells = [
        {**one._asdict(), "remark": one.remark(options.tolerance)} for one in found
    ]
    options.write_json("complexity", clock=options.clock_used, cells=cells)
    if options.plot:
        draw(options.plot, found)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
