"""``curvscope trace``: trace, diagonal blocks and norms of a problem's, one's own or a run's operator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from curvscope.cli._estimates import Probes
from curvscope.cli._groups import grouped
from curvscope.cli._names import AsJson, Trust
from curvscope.cli._output import print_json, terminal
from curvscope.cli._source import SourceOrRun
from curvscope.cli._workers import WorkerOptions

if TYPE_CHECKING:
    from curvscope.estimators import Estimate


@grouped
def command(
    source: SourceOrRun,
    probes: Probes,
    *,
    norms: Annotated[bool, typer.Option("--norms", help="Frobenius and spectral norm as well.")] = False,
    worker_options: WorkerOptions,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """The trace, in all and for each parameter tensor, with standard errors; with a RUN, its eigenpairs are known."""
    from curvscope.cli._measured import measured
    from curvscope.cli._tables import as_rich
    from curvscope.estimators import frobenius_norm, spectral_norm, trace
    from curvscope.report import Table

    worker_options.check_source(source.problem)
    operator, solution = measured(source, trust=trust)
    bound = None
    with worker_options.executor() as executor:
        options: dict[str, Any] = probes.options() | {"deflate": solution, "executor": executor}
        found = {"trace": trace(operator, **options)}
        if norms:
            del options["method"]  # of the trace
            found["frobenius_norm"] = frobenius_norm(operator, **options)
            bound = spectral_norm(operator, seed=probes.seed)  # one product at a time: workers would not help
    if as_json:
        plain = {name: _plain(estimate) for name, estimate in found.items()}
        if bound is not None:
            plain["spectral_norm"] = {"value": bound.value, "upper": bound.upper, "products": bound.products}
        print_json(plain)
        return
    console = terminal()
    for name, estimate in found.items():
        rows = [["all", _text(estimate)], *([layer, _text(part)] for layer, part in estimate.layers.items())]
        console.print(f"{name.replace('_', ' ')}, {estimate.products} products", style="bold")
        console.print(as_rich(Table(["parameters", "estimate"], rows)))
    if bound is not None:
        console.print(f"spectral norm {bound}", highlight=False)


def _text(estimate: Estimate) -> str:
    return f"{estimate.value:.5g} +- {estimate.stderr:.1g}" if estimate.stderr else f"{estimate.value:.8g}"


def _plain(estimate: Estimate) -> dict[str, Any]:
    layers = {name: [part.value, part.stderr] for name, part in estimate.layers.items()}
    facts = {"value": estimate.value, "stderr": estimate.stderr, "interval": list(estimate.interval)}
    return {**facts, "products": estimate.products, "layers": layers}
