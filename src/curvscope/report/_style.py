"""One look for all figures: readable at column width, safe for colour-blind readers, sharp at any zoom."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito (2008): distinct under all common kinds of colour blindness.
BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#6b7280"
CYCLE = (BLUE, ORANGE, GREEN, VERMILION, "#CC79A7", "#56B4E9")

_SETTINGS: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e7eb",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "svg.fonttype": "path",
    "svg.hashsalt": "curvscope",
}


# Journal columns: 3.4 inches for one, 7 for two, at which 8 points are what the text around has.
_PRINT: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "legend.fontsize": 7,
    "lines.linewidth": 1.3,
    "grid.linewidth": 0.5,
    "axes.linewidth": 0.7,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
}
COLUMN, PAGE = 3.4, 7.0


@contextmanager
def figure(
    columns: int = 1, rows: int = 1, *, width: float = 8.0, height: float = 3.6, printed: bool = False, **axes: Any
) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure with rows of axes, in our style; for use in a ``with`` statement.

    Args:
        columns: axes in a row.
        rows: of axes; they are listed row by row.
        width: in inches; for print, ``COLUMN`` or ``PAGE``.
        height: in inches.
        printed: with the smaller type of a journal's column.
        axes: for ``Figure.subplots``.
    """
    with rc_context(_SETTINGS | _PRINT if printed else _SETTINGS):
        sheet = Figure(figsize=(width, height), layout="constrained")
        panels = sheet.subplots(rows, columns, squeeze=False, **axes)
        yield sheet, [axes for row in panels for axes in row]


def to_svg(sheet: Figure) -> str:
    """The figure as SVG text; the same figure gives the same text."""
    with rc_context(_SETTINGS):
        buffer = io.StringIO()
        sheet.savefig(buffer, format="svg", metadata={"Date": None, "Creator": "curvscope"})
    return buffer.getvalue()
