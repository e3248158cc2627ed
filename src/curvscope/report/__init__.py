"""What people look at: figures, tables, the HTML report."""

from curvscope.report import _figures as figures
from curvscope.report._document import Document, Section, Table, render, save_figure, save_figures
from curvscope.report._figures import spectral_density, tracked
from curvscope.report._plots import Line, Panel, heatmaps, panels
from curvscope.report._style import BLUE, CYCLE, GREY, PAGE, VERMILION, figure

__all__ = [
    "BLUE",
    "CYCLE",
    "GREY",
    "PAGE",
    "VERMILION",
    "Document",
    "Line",
    "Panel",
    "Section",
    "Table",
    "figure",
    "figures",
    "heatmaps",
    "panels",
    "render",
    "save_figure",
    "save_figures",
    "spectral_density",
    "tracked",
]
