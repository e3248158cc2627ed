"""Tables on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table as RichTable

if TYPE_CHECKING:
    from curvscope.report import Table


def as_rich(table: Table) -> RichTable:
    """A report table for the terminal, in more lines where that is narrow; the two first columns read as text."""
    rich = RichTable(box=None, header_style="bold", pad_edge=False, collapse_padding=True)
    for i, head in enumerate(table.heads):
        rich.add_column(head, justify="left" if i < 2 else "right", overflow="fold")
    for row in table.rows:
        rich.add_row(*row)
    return rich
