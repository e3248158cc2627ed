"""Figures as SVG inside a page: points that answer a pointer, the page's colours, a width that fits any screen."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D

from curvscope.report._style import BLUE, to_svg

POINTS_AN_INCH = 72.0
SPACING, MOST_OF_A_LINE, MOST = 9.0, 60, 1500
"""Marked points of a line are so far apart (in points of type) that a pointer can tell them apart, and at most so many.
The last bound is for a whole figure: a mark takes about 150 bytes."""
RADIUS = 4.5
COLOURS = {"#000000": "currentColor", "#111827": "currentColor", "#ffffff": "var(--paper)", "#e5e7eb": "var(--line)"}
"""Colours of a figure that follow the page's, in the dark too."""


LONG_NUMBER = re.compile(r"(-?\d+\.\d\d)\d+")
"""Coordinates to a hundredth of a point of type, which no screen shows; a third of the bytes go."""


class Mark(NamedTuple):
    """A place in a figure that answers a pointer.

    Attributes:
        shape: an SVG element, open.
        text: what it answers.
    """

    shape: str
    text: str


def inline_svg(sheet: Figure, name: str, alternative: str) -> str:
    """A figure as an SVG element for a page.

    Args:
        sheet: the figure.
        name: prefix of the element's identifiers, which must be unique in a page.
        alternative: what it shows, for those who do not see it.
    """
    whole = to_svg(sheet)  # draws, and so lays out: the places of the marks are known after it
    body = re.sub(r"<metadata>.*?</metadata>", "", whole[whole.index("<svg") :], flags=re.DOTALL)
    opened, _, content = body.partition(">")
    content = content.removesuffix("\n").removesuffix("</svg>")
    opened = re.sub(r' (?:width|height|version|xmlns:xlink|xmlns)="[^"]*"', "", opened)
    content = content.replace("xlink:href", "href")
    content = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", content)
    content = re.sub(r' d="[^"]+"', lambda path: LONG_NUMBER.sub(r"\1", path[0]), content)
    for colour, variable in COLOURS.items():
        content = content.replace(f": {colour}", f": {variable}")
    content = content.replace(f": {BLUE.lower()}", f": var(--blue, {BLUE.lower()})")
    marks = "\n".join(map(_element, _marks(sheet)))
    return f'{opened} role="img" aria-label="{html.escape(alternative)}">{content}<g class="marks">\n{marks}\n</g></svg>'


def _element(mark: Mark) -> str:
    return f"<{mark.shape}><title>{html.escape(mark.text)}</title></{mark.shape.split()[0]}>"


def with_interval(line: Line2D, low: Any, high: Any) -> Line2D:
    """Note the uncertainty of a line's values, for those who point at them; it is drawn by the caller."""
    line.curvscope_interval = (np.asarray(low, dtype=float), np.asarray(high, dtype=float))  # type: ignore[attr-defined]
    return line


def _marks(sheet: Figure) -> list[Mark]:
    """The marks of all axes, as many of each as there may be in a figure."""
    found = [
        mark
        for axes in sheet.axes
        if axes.get_visible() and not str(axes.get_label()).startswith("<colorbar")
        for mark in [*_of_images(axes), *_of_bars(axes), *_of_lines(axes)]
    ]
    return found[:: -(-len(found) // MOST)] if len(found) > MOST else found


def _of_lines(axes: Axes) -> Iterator[Mark]:
    for line in axes.get_lines():
        x, y = map(_plain, line.get_data())
        if not line.get_visible() or (len(x) < 2 and not _shows_points(line)):
            continue
        only_x = line.get_transform() != axes.transData  # ticks along an axis: their height is no value
        places = _places(axes, line.get_transform().transform(np.column_stack([x, y])))
        for i in _spread(axes, places, within=not only_x):
            label = str(line.get_label())
            rows = [] if label.startswith("_") else [label.replace("\n", " ")]
            rows.append(f"{_name(axes.get_xlabel(), 'x')} = {_number(x[i])}")
            if not only_x:
                rows.append(f"{_name(axes.get_ylabel(), 'y')} = {_number(y[i])}{_interval(line, i)}")
            yield Mark(f'circle cx="{places[i, 0]:.1f}" cy="{places[i, 1]:.1f}" r="{RADIUS}"', "\n".join(rows))


def _of_bars(axes: Axes) -> Iterator[Mark]:
    for bars in axes.containers:
        if not isinstance(bars, BarContainer):
            continue
        for bar in bars.patches:
            if not bar.get_height() > 0:
                continue
            left, right, top = bar.get_x(), bar.get_x() + bar.get_width(), bar.get_y() + bar.get_height()
            bottom = max(bar.get_y(), axes.get_ylim()[0])
            corners = _places(axes, axes.transData.transform([(left, bottom), (right, top)]))
            label = str(bars.get_label()).replace("\n", " ")
            rows = [] if label.startswith("_") else [label]
            rows += [f"{_name(axes.get_xlabel(), 'x')} {_number(left)} to {_number(right)}"]
            rows += [f"{_name(axes.get_ylabel(), 'height')}: {_number(bar.get_height())}"]
            yield Mark(_rectangle(corners), "\n".join(rows))


def _of_images(axes: Axes) -> Iterator[Mark]:
    for image in axes.get_images():
        values = _plain(image.get_array())
        if values.ndim != 2 or values.size > MOST:
            continue
        yield from _cells(axes, image, values)


def _cells(axes: Axes, image: AxesImage, values: np.ndarray) -> Iterator[Mark]:
    """A mark for each entry of a matrix that is drawn as an image."""
    left, right, bottom, top = image.get_extent()
    if image.origin == "upper":
        bottom, top = top, bottom
    x, y = np.linspace(left, right, values.shape[1] + 1), np.linspace(bottom, top, values.shape[0] + 1)
    for row, column in np.ndindex(values.shape):
        corners = axes.transData.transform([(x[column], y[row]), (x[column + 1], y[row + 1])])
        middle = f"{_number((x[column] + x[column + 1]) / 2)}, {_number((y[row] + y[row + 1]) / 2)}"
        yield Mark(_rectangle(_places(axes, corners)), f"{middle}: {_number(float(values[row, column]))}")


def _places(axes: Axes, display: Any) -> np.ndarray:
    """Places on the canvas, in points of type from its upper left corner as in SVG."""
    sheet: Any = axes.get_figure()
    width, height = sheet.get_size_inches() * POINTS_AN_INCH
    shares = sheet.transFigure.inverted().transform(display)
    return np.column_stack([shares[:, 0] * width, (1 - shares[:, 1]) * height])


def _spread(axes: Axes, places: np.ndarray, *, within: bool) -> Iterator[int]:
    """Indices of places within the axes that are some distance apart along the line, the last one among them."""
    (left, top), (right, bottom) = _places(axes, axes.transAxes.transform([(0, 1), (1, 0)]))
    seen = np.isfinite(places).all(axis=1) & (places[:, 0] >= left - 1) & (places[:, 0] <= right + 1)
    if within:
        seen &= (places[:, 1] >= top - 1) & (places[:, 1] <= bottom + 1)
    index = np.flatnonzero(seen)
    if not len(index):
        return
    steps = np.abs(np.diff(places[index], axis=0)).max(axis=1)  # a noisy line is long, but its points lie side by side
    along = np.concatenate([[0.0], steps.cumsum()])
    spacing = max(SPACING, along[-1] / MOST_OF_A_LINE)
    kept = np.flatnonzero(np.diff(np.floor(along / spacing), prepend=-1.0) > 0)
    yield from (int(index[i]) for i in sorted({*kept.tolist(), len(index) - 1}))


def _plain(values: Any) -> np.ndarray:
    """Numbers without a mask, as float64; NaN where masked."""
    filled: np.ndarray = np.ma.filled(np.ma.asarray(values, dtype=float), np.nan)
    return filled


def _shows_points(line: Line2D) -> bool:
    return line.get_marker() not in (None, "", " ", "None")


def _interval(line: Line2D, i: int) -> str:
    interval = getattr(line, "curvscope_interval", None)
    return "" if interval is None else f" ({_number(interval[0][i])} to {_number(interval[1][i])})"


def _rectangle(corners: np.ndarray) -> str:
    (x0, y0), (x1, y1) = corners.min(axis=0), corners.max(axis=0)
    return f'rect x="{x0:.1f}" y="{y0:.1f}" width="{x1 - x0:.1f}" height="{y1 - y0:.1f}"'


def _name(label: str, otherwise: str) -> str:
    """The name of an axis, on one line, without the marks of formulas."""
    return re.sub(r"\s+", " ", label.replace("$", "")).strip() or otherwise


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) < 1e7 else f"{value:.4g}"
