"""Plots of figures, by matplotlib where it is installed."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Curve(NamedTuple):
    """What one subject measured at several sizes; the same number, the same colour."""

    number: int
    label: str
    x: Sequence[float]
    y: Sequence[float]


class Panel(NamedTuple):
    """Curves over one variable, on logarithmic axes."""

    title: str
    x_label: str
    y_label: str
    curves: Sequence[Curve]


def draw_panels(path: str, title: str, panels: Sequence[Panel], columns: int) -> None:
    """Draw panels in rows of so many."""
    rows = -(-len(panels) // columns)
    figure, grid = _figure(title, (5.4 * columns, 3.2 * rows), rows, columns)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    for axes, panel in zip(grid, panels, strict=False):
        for curve in panel.curves:
            axes.loglog(
                curve.x,
                curve.y,
                "o-",
                color=f"C{curve.number}",
                label=curve.label,
                markersize=3,
            )
        axes.set(title=panel.title, xlabel=panel.x_label, ylabel=panel.y_label)
        ticks = sorted({x for curve in panel.curves for x in curve.x})
        axes.set_xticks(ticks, [f"{x:g}" for x in ticks], rotation=45, fontsize=7)
        axes.set_xticks([], minor=True)
        axes.set_ylim(*_at_least_a_decade(*axes.get_ylim()))
        axes.grid(True, alpha=0.3)
        axes.legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1))
    _save(figure, path)


def _at_least_a_decade(low: float, high: float) -> tuple[float, float]:
    """Limits of an axis on which noise about a constant does not look like a slope."""
    middle = (low * high) ** 0.5
    return min(low, middle / 10**0.5), max(high, middle * 10**0.5)


def draw_bars(path: str, title: str, groups: Mapping[str, Mapping[str, float]]) -> None:
    """Draw one panel of bars a group, on a logarithmic axis, the value at each."""
    most = max(len(bars) for bars in groups.values())
    size = (6.0 * len(groups), 1.0 + 0.32 * most)
    figure, grid = _figure(title, size, 1, len(groups))
    for axes, (name, bars) in zip(grid, groups.items(), strict=True):
        drawn = axes.barh(list(bars), list(bars.values()))
        axes.bar_label(drawn, fmt="%.3g", padding=3, fontsize="small")
        axes.set(title=name, xscale="log")
        axes.margins(x=0.2)
        axes.invert_yaxis()
    _save(figure, path)


def _figure(title: str, size: tuple[float, float], rows: int, columns: int):
    from matplotlib.backends.backend_agg import (  # pyright: ignore[reportMissingImports]
        FigureCanvasAgg,
    )
    from matplotlib.figure import Figure  # pyright: ignore[reportMissingImports]

    figure: Any = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    return figure, figure.subplots(rows, columns, squeeze=False).ravel()


def _save(figure: Any, path: str) -> None:
    figure.savefig(path, dpi=120)
    print(f"plot: {path}")
