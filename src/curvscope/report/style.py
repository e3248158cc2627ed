"""One look for all figures: readable at column width, safe for colour-blind readers, sharp at any zoom."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito (2008): distinct under all common kinds of colour blindness.
BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#6b7280"
CYCLE = (BLUE, ORANGE, GREEN, VERMILION, "#CC79A7", "#56B4E9")

_SETTINGS = {
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


@contextmanager
def figure(columns: int = 1, *, width: float = 8.0, height: float = 3.6, **axes: object) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure with a row of axes, in our style; for use in a ``with`` statement."""
    with rc_context(_SETTINGS):
        sheet = Figure(figsize=(width, height), layout="constrained")
        panels = sheet.subplots(1, columns, squeeze=False, **axes)
        yield sheet, list(panels[0])


def to_svg(sheet: Figure) -> str:
    """The figure as SVG text; the same figure gives the same text."""
    with rc_context(_SETTINGS):
        buffer = io.StringIO()
        sheet.savefig(buffer, format="svg", metadata={"Date": None, "Creator": "curvscope"})
    return buffer.getvalue()
