"""The picture of a spectrum."""

from __future__ import annotations

from typing import Any

BLUE, VERMILION, DARK = "#0072B2", "#D55E00", "#111827"


def draw(found: Any, ax: Any, scale: str) -> Any:
    """Draw a :class:`.density.Density`; see :meth:`.density.Density.plot`."""
    if scale == "linear":
        grid, values = found.linear(400)
        ax.fill_between(grid, values, step="mid", color=BLUE, alpha=0.35, linewidth=0, label="density (estimated)")
        ax.step(grid, values, where="mid", color=BLUE, linewidth=1.0)
        ax.set(xlabel="eigenvalue", ylabel="density")
    else:
        for sign, colour, label in ((1, BLUE, "positive"), (-1, VERMILION, "negative")):
            grid, values = found.logarithmic(200, sign=sign)
            ax.step(grid, values, where="mid", color=colour, linewidth=1.2, label=f"{label} (estimated)")
        ax.set(xlabel="|eigenvalue|", ylabel="share a decade", xscale="log")
    ax.set_yscale("log")
    lowest = 0.2 / found.size
    ax.set_ylim(bottom=lowest / max(found.range[1] - found.range[0], 1e-300) if scale == "linear" else lowest)
    if len(found.exact):
        ticks = ax.get_xaxis_transform()
        known = found.exact if scale == "linear" else found.exact.abs()
        label = f"exact pairs ({len(found.exact)})"
        ax.plot(known, [0.03] * len(known), "|", transform=ticks, color=DARK, markersize=9, label=label)
    ax.legend(loc="best")
    return ax
