"""The figures of a report; each function takes results and returns a matplotlib Figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from curvscope.errors import InvalidArgument
from curvscope.estimators import Density
from curvscope.report._inline import with_interval
from curvscope.report._style import BLUE, CYCLE, GREY, ORANGE, VERMILION, figure
from curvscope.solvers import Solution
from curvscope.subspaces import OverlapCurve

METHOD_COLOURS = (BLUE, ORANGE)


def overlaps(
    curves: Mapping[str, OverlapCurve], *, dotted: Mapping[str, OverlapCurve] | None = None, dotted_label: str = ""
) -> Figure:
    """Overlap against k, one line a curve, with the chance level.

    Shaded: the numerical interval, where a curve is certified. Hatched: the sampling interval, where it has one.

    Args:
        curves: by label; all of the same D.
        dotted: curves of a second method by the same labels, drawn dotted.
        dotted_label: what they are, for the legend.
    """
    if not curves:
        raise InvalidArgument("there are no curves to draw")
    with figure(width=7.2, height=4.4) as (sheet, (axes,)):
        longest = max(curves.values(), key=lambda curve: len(curve.k))
        axes.plot(longest.k, longest.chance, color=GREY, linestyle="--", label="chance, k/D", marker=_marker(len(longest.k)))
        for (label, curve), colour in zip(curves.items(), CYCLE, strict=False):
            (line,) = axes.plot(curve.k, curve.value, color=colour, label=label, marker=_marker(len(curve.k)))
            if curve.lower is not None and curve.upper is not None:
                with_interval(line, curve.lower, curve.upper)
                axes.fill_between(curve.k, curve.lower.clamp(min=1e-12), curve.upper, color=colour, alpha=0.18, linewidth=0)
            if curve.sampling_lower is not None and curve.sampling_upper is not None:
                band: dict[str, Any] = {"color": colour, "alpha": 0.12, "hatch": "///", "linewidth": 0}
                band["label"] = "sampling interval"
                axes.fill_between(curve.k, curve.sampling_lower.clamp(min=1e-12), curve.sampling_upper, **band)
            if dotted and label in dotted:
                axes.plot(curve.k, dotted[label].value, color=colour, linestyle=":", linewidth=1.4)
        if dotted:
            axes.plot([], [], color=GREY, linestyle=":", label=dotted_label)
        axes.set(
            xscale="log",
            yscale="log",
            xlabel="k",
            ylabel=f"overlap of the first k eigenvectors\nand the {longest.ranking} mask",
        )
        if len(longest.k) > 1:
            axes.set_xlim(1, len(longest.k))
        floor = min(float(curve.value[len(curve.k) // 50 :].min()) for curve in curves.values())
        axes.set_ylim(max(1e-12, 0.3 * min(floor, float(longest.chance[0]))), None)
        axes.legend(loc="lower right")
    return sheet


def _marker(points: int) -> str:
    """A line of one point would not be seen."""
    return "o" if points == 1 else ""


def spectra(solutions: Mapping[str, Solution]) -> Figure:
    """The computed eigenvalues as a histogram with a tick each, and the bulk of all the others, one panel a solution.

    For solutions ordered by magnitude the D - k other eigenvalues lie within plus/minus the smallest computed magnitude as far
    as the solution is complete: they are drawn as one grey bar there, which the legend calls what :func:`others` says.
    """
    with figure(len(solutions), width=max(5.0, 3.3 * len(solutions)), height=3.7, sharey=True) as (sheet, panels):
        for axes, (label, solution) in zip(panels, solutions.items(), strict=True):
            _spectrum(axes, label, solution)
        panels[0].set_ylabel("number of eigenvalues")
    return sheet


def others(solution: Solution) -> str:
    """Return a short label for what is known of the eigenvalues not computed, for solutions ordered by magnitude."""
    certificate = solution.certificate
    return "of smaller magnitude" if certificate is not None and certificate.complete == solution.k else "not computed"


def _spectrum(axes: Axes, title: str, solution: Solution) -> None:
    values = solution.eigenvalues.numpy()
    edge = float(np.abs(values).min())
    low, high = min(values.min(), -edge), max(values.max(), edge)
    width = max((high - low) / 60, 1e-300)
    edges = np.arange(low - width / 2, high + 1.5 * width, width).tolist()
    axes.hist(values[values >= 0], bins=edges, color=BLUE, label="positive")
    axes.hist(values[values < 0], bins=edges, color=VERMILION, label="negative")
    rest = solution.eigenvectors.shape[0] - solution.k
    if rest and solution.order == "LM":
        label = f"the other {rest:,},\n{others(solution)}"
        axes.bar(0, rest, width=max(2 * edge, width), color=GREY, alpha=0.55, zorder=0.5, label=label)
    ticks = axes.get_xaxis_transform()
    axes.plot(
        values, np.full_like(values, -0.035), "|", transform=ticks, color="#111827", markersize=5, clip_on=False, alpha=0.5
    )
    axes.set(yscale="log", xlabel="eigenvalue", title=title)
    axes.tick_params(axis="x", pad=9)
    axes.set_ylim(0.6, None)
    axes.legend(loc="best", handlelength=1.0)


def residuals(panels: Mapping[str, Mapping[str, Solution]], *, tol: float | None = None) -> Figure:
    """Relative residual of each pair against its index, on a log scale; panels by label, in them solutions by method."""
    with figure(len(panels), width=max(5.0, 3.3 * len(panels)), height=3.4, sharey=True) as (sheet, places):
        for axes, (label, methods) in zip(places, panels.items(), strict=True):
            for (method, solution), colour in zip(methods.items(), METHOD_COLOURS, strict=False):
                relative = solution.relative_residuals.clamp(min=1e-17).numpy()
                pairs = np.arange(1, solution.k + 1)
                axes.plot(pairs, relative, color=colour, label=method, linewidth=1.3, marker=_marker(solution.k))
            if tol is not None:
                axes.axhline(tol, color=GREY, linestyle="--", linewidth=1.0, label=f"tol = {tol:g}")
            axes.set(yscale="log", xlabel="pair i", title=label)
            locator: Any = axes.xaxis.get_major_locator()
            locator.set_params(integer=True)
        places[0].set_ylabel("relative residual\n‖H v − λ v‖ / |λ|")
        places[0].legend(loc="best")
    return sheet


def spectral_density(found: Density) -> Figure:
    """A spectral density on a linear abscissa and by magnitude, with the exactly known pairs."""
    with figure(2, width=9.0, height=3.7) as (sheet, (linear, logarithmic)):
        found.plot(linear)
        found.plot(logarithmic, scale="log")
    return sheet


def tracked(history: Mapping[int, Mapping[str, float]], k: int) -> Figure:
    """Draw eigenvalues, and the shares of gradient, mask and last space, against the step."""
    steps = list(history)
    with figure(2, width=9.0, height=3.7) as (sheet, (values, shares)):
        for j in range(1, k + 1):
            found = [history[step].get(f"curvature/eigenvalue/{j}", np.nan) for step in steps]
            values.plot(steps, found, color=BLUE, linewidth=1.0, alpha=1 - 0.7 * (j - 1) / k, marker=".", markersize=3)
        values.set(xlabel="step", ylabel=f"eigenvalues, top {k} by magnitude")
        labels = {
            "gradient_fraction": "gradient in it",
            "overlap_mask": "on the largest weights",
            "overlap_previous": "as before",
        }
        for (name, label), colour in zip(labels.items(), CYCLE, strict=False):
            shares.plot(
                steps, [history[step].get(f"curvature/{name}", np.nan) for step in steps], color=colour, label=label, marker="."
            )
        shares.set(xlabel="step", ylabel="share in the top space", ylim=(0, 1))
        shares.legend(loc="best")
    return sheet
