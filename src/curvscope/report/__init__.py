"""What people look at: figures, tables, the HTML report."""

from curvscope.report.document import Document, Section, Table, render, save_figure, save_figures

__all__ = ["Document", "Section", "Table", "render", "save_figure", "save_figures"]
