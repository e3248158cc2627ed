"""A report as data, and as one HTML file that needs nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from matplotlib.figure import Figure

from curvscope.report._inline import inline_svg
from curvscope.report._style import to_svg
from curvscope.store import Draft, write_text

REM_AN_INCH = 7.5
"""Widths of figures in the page; 9 inches are as wide as the text."""


@dataclass(frozen=True)
class Table:
    """Rows of text under column heads; ``heads`` and every row have the same length."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Section:
    """One idea of a report: a heading, what it says, a figure or a table.

    ``shows`` names the figures, tables and equations of a paper that the section repeats, such as "figures 3 and 4".
    """

    title: str
    text: str
    figure: Figure | None = None
    alternative: str = ""
    table: Table | None = None
    shows: str = ""


@dataclass(frozen=True)
class Document:
    """A report: what it is about, what came out, how it was made."""

    title: str
    summary: str
    sections: Sequence[Section]
    highlights: Sequence[tuple[str, str]] = ()
    provenance: dict[str, Any] = field(default_factory=dict)


def render(document: Document) -> str:
    """The document as one HTML text that needs nothing else.

    Figures are SVG whose points answer a pointer or a finger; a click enlarges them. Tables sort.
    """
    environment = Environment(
        loader=PackageLoader("curvscope.report"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    images = [
        None if section.figure is None else _image(section.figure, f"figure{number}", section.alternative or section.title)
        for number, section in enumerate(document.sections, 1)
    ]
    return environment.get_template("report.html").render(
        document=document, sections=list(zip(document.sections, images, strict=True))
    )


def save_figures(document: Document, folder: Path, *, dpi: int = 160, vector: bool = False) -> list[Path]:
    """Write each figure of the document as a PNG named after its section, where asked also as SVG and PDF; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for section in document.sections:
        if section.figure is not None:
            files.append(folder / (re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-") + ".png"))
            save_figure(section.figure, files[-1], dpi=dpi)
            if vector:
                drawing, print_ = files[-1].with_suffix(".svg"), files[-1].with_suffix(".pdf")
                write_text(drawing, to_svg(section.figure), durable=False)
                save_figure(section.figure, print_)
                files += [drawing, print_]
    return files


def save_figure(sheet: Figure, file: Path, *, dpi: int = 160) -> None:
    """Write a figure as PNG, or as PDF by its name, whole or not at all; what a link in its place points to stays as it is."""
    kind = "pdf" if file.suffix == ".pdf" else "png"
    with Draft(file) as draft:
        # without a date, the same figure gives the same bytes
        sheet.savefig(draft, dpi=dpi, format=kind, metadata={"CreationDate": None} if kind == "pdf" else None)


def _image(sheet: Figure, name: str, alternative: str) -> tuple[Markup, str]:
    """The figure as SVG and its width in the page: in proportion to the inches, so that all letters are of one size."""
    return Markup(inline_svg(sheet, name, alternative)), f"{REM_AN_INCH * sheet.get_figwidth():.1f}rem"
