"""Figures of the studies, from plain numbers, at the width of a journal's page or column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from curvscope.report._inline import with_interval
from curvscope.report._style import CYCLE, GREY, PAGE, figure

DASHES = ("-", "--", "-.", ":")


@dataclass(frozen=True)
class Line:
    """A line with its uncertainty.

    Attributes:
        x: abscissae.
        y: values.
        low: lower edge of the shaded band; None for none.
        high: its upper edge.
        dashed: index into the line styles; 0 is solid, None: the band alone is drawn.
        colour: None: the next of the cycle.
    """

    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    dashed: int | None = 0
    colour: str | None = None


@dataclass(frozen=True)
class Panel:
    """One set of axes: lines by label, and the chance level.

    Attributes:
        title: above it.
        lines: by label.
        chance: (x, y) of the dashed grey line; None for none.
        floor: lower limit of y; None: matplotlib's.
    """

    title: str
    lines: Mapping[str, Line]
    chance: tuple[Sequence[float], Sequence[float]] | None = None
    floor: float | None = None


def panels(  # noqa: PLR0913 -- how a figure may look, all by keyword
    content: Sequence[Panel],
    *,
    x: str,
    y: str,
    xscale: str = "log",
    yscale: str = "log",
    columns: int | None = None,
    height: float = 2.3,
    width: float = PAGE,
    legend_columns: int | None = None,
    share: bool = True,
    chance_label: str = "chance",
) -> Figure:
    """Panels with common axes and one legend below them.

    Args:
        content: the panels; a label has the same colour and style in each.
        x: label of the abscissa.
        y: label of the ordinate.
        xscale: "log" or "linear".
        yscale: likewise.
        columns: panels in a row; default all.
        height: of a row, in inches.
        width: of the figure.
        legend_columns: entries in a row of the legend; default as many as fit.
        share: whether all panels have the same ordinate.
        chance_label: for the legend.
    """
    columns = columns or len(content)
    rows = -(-len(content) // columns)
    with figure(columns, rows, width=width, height=height * rows + 0.35, printed=True, sharex=share, sharey=share) as (
        sheet,
        axes,
    ):
        handles: dict[str, Artist] = {}
        for place, panel in zip(axes, content, strict=False):
            _draw(place, panel, handles, chance_label)
            place.set(xscale=xscale, yscale=yscale, title=panel.title)
            _limits(place, content if share else [panel], logarithmic=yscale == "log")
            if xscale == "log":
                _few_decades(place)
        for place in axes[len(content) :]:
            place.set_visible(False)
        for number, place in enumerate(axes[: len(content)]):
            if not share or number + columns >= len(content):
                place.set_xlabel(x)
                place.tick_params(labelbottom=True)
            if number % columns == 0:
                place.set_ylabel(y)
        wide = legend_columns or min(6, max(1, len(handles)))
        sheet.legend(list(handles.values()), list(handles.keys()), loc="outside lower center", ncols=wide)
    return sheet


def _draw(axes: Axes, panel: Panel, handles: dict[str, Artist], chance_label: str) -> None:
    for number, (label, line) in enumerate(panel.lines.items()):
        colour = line.colour or CYCLE[number % len(CYCLE)]
        drawn: Any = None
        if line.low is not None and line.high is not None:
            drawn = axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.22, linewidth=0)
        if line.dashed is not None:
            marker = "o" if len(line.x) == 1 else ""  # a line of one point would not be seen
            (drawn,) = axes.plot(line.x, line.y, color=colour, linestyle=DASHES[line.dashed], marker=marker, label=label)
            if line.low is not None and line.high is not None:
                with_interval(drawn, line.low, line.high)
        handles.setdefault(label, drawn)
    if panel.chance is not None:
        (drawn,) = axes.plot(*panel.chance, color=GREY, linestyle=(0, (4, 2)), linewidth=1.0, zorder=1.5)
        handles.setdefault(chance_label, drawn)


def _limits(axes: Axes, content: Sequence[Panel], *, logarithmic: bool) -> None:
    """As wide as the lines, and from the floor to a little above them; the same for panels that share their axes."""
    lines = [line for panel in content for line in panel.lines.values()]
    ends = [value for line in lines for value in (line.x[0], line.x[-1])]
    if min(ends) < max(ends):
        axes.set_xlim(min(ends), max(ends))
    if (floor := content[0].floor) is not None:
        tops = [np.nanmax(line.y if line.high is None else line.high) for line in lines]
        tops += [np.nanmax(panel.chance[1]) for panel in content if panel.chance is not None]
        top = float(max(tops))
        axes.set_ylim(floor, top * 1.6 if logarithmic else floor + 1.08 * (top - floor))


def _few_decades(axes: Axes) -> None:
    """Plain numbers below a logarithmic axis of up to two decades, where matplotlib's own would run into each other."""
    low, high = axes.get_xlim()
    if high < 100 * low:
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())


def heatmaps(
    rows: Mapping[str, Sequence[np.ndarray]],
    titles: Sequence[str],
    *,
    ticks: Sequence[float],
    axis: str,
    colour: str,
    width: float = PAGE,
    lowest: float | None = None,
) -> Figure:
    """Symmetric matrices over steps as images with one colour scale: rows by label, a column for each title.

    Args:
        rows: matrices by row label, one for each title.
        titles: of the columns.
        ticks: the steps that rows and columns of each matrix stand for.
        axis: label of both axes.
        colour: label of the colour bar.
        width: of the figure, in inches.
        lowest: value of the darkest colour; default the smallest there is. The brightest is 1.
    """
    height = (width - 0.9) / len(titles) * len(rows) + 0.5
    vmin = min(float(np.min(m)) for matrices in rows.values() for m in matrices) if lowest is None else lowest
    with figure(len(titles), len(rows), width=width, height=height, printed=True, sharex=True, sharey=True) as (sheet, places):
        half = 0.5 * (ticks[-1] - ticks[0]) / max(1, len(ticks) - 1)  # the middle of a square is its step
        edges = (ticks[0] - half, ticks[-1] + half)
        for number, (label, matrices) in enumerate(rows.items()):
            for column, (title, matrix) in enumerate(zip(titles, matrices, strict=True)):
                axes = places[number * len(titles) + column]
                image = axes.imshow(
                    matrix, origin="lower", extent=(*edges, *edges), vmin=vmin, vmax=1.0, cmap="cividis", aspect="equal"
                )
                axes.grid(visible=False)
                if number == 0:
                    axes.set_title(title)
                if number == len(rows) - 1:
                    axes.set_xlabel(axis)
                if column == 0:
                    axes.set_ylabel(f"{label}\n{axis}")
        sheet.colorbar(image, ax=places, label=colour, shrink=0.75, aspect=30)
    return sheet
