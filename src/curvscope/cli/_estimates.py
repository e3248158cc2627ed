"""Options that commands of estimates from random probes share."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer

from curvscope.cli._names import ESTIMATORS


@dataclass(frozen=True)
class Probes:
    """Options of an estimate: those of :func:`curvscope.trace` and :func:`curvscope.diagonal`."""

    method: Annotated[str, typer.Option("--method", help=f"One of {ESTIMATORS}.")] = "auto"
    max_products: Annotated[int, typer.Option("--max-products", help="Budget of products, of each estimate.")] = 100
    rtol: Annotated[
        float | None, typer.Option("--rtol", help="Stop at this half-width of the 95 % interval, over the estimate.")
    ] = None
    seed: Annotated[int, typer.Option("--seed", help="Of the random probes.")] = 0

    def options(self) -> dict[str, Any]:
        """As the functions take them."""
        return asdict(self)
