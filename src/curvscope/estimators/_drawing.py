"""The picture of a spectrum."""

from __future__ import annotations

from typing import Any

BLUE, VERMILION, DARK = "#0072B2", "#D55E00", "#111827"


def draw(found: Any, ax: Any, scale: str, *, log: bool = True, name: str | None = None) -> Any:
    """Draw a :class:`.density.Density`; see :meth:`.density.Density.plot`."""
    how = " (estimated)" if found.unknown else ""
    if scale == "linear":
        grid, values = found.linear(400)
        ax.fill_between(
            grid, values, step="mid", color=BLUE, alpha=0.35, linewidth=0, label=f"density{how}" if name is None else name
        )
        ax.step(grid, values, where="mid", color=BLUE, linewidth=1.0)
        ax.set(xlabel="eigenvalue", ylabel="density")
    else:
        for sign, colour, side in ((1, BLUE, "positive"), (-1, VERMILION, "negative")):
            grid, values = found.logarithmic(200, sign=sign)
            if values.any():
                ax.step(
                    grid,
                    values,
                    where="mid",
                    color=colour,
                    linewidth=1.2,
                    label=f"{side}{how}" if name is None else f"{name}, {side}",
                )
        ax.set(xlabel="|eigenvalue|", ylabel="share a decade", xscale="log")
    lowest = 0.2 / found.size
    if scale == "linear":
        lowest /= max(found.range[1] - found.range[0], float(grid[-1] - grid[0]))  # all may be equal
    if log and ax.dataLim.y1 > 0:
        ax.set_yscale("log")
        ax.set_ylim(bottom=lowest)
    if len(found.exact):
        ticks = ax.get_xaxis_transform()
        known = found.exact if scale == "linear" else found.exact[found.exact != 0].abs()
        label = f"exact pairs ({len(found.exact)})"
        ax.plot(known, [0.03] * len(known), "|", transform=ticks, color=DARK, markersize=9, label=label)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="best")
    return ax
