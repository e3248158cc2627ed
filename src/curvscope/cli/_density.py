"""``curvscope density``: where the eigenvalues of a problem's, one's own or a run's operator are."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from curvscope.cli._groups import grouped
from curvscope.cli._names import AsJson, LanczosMemory, Trust
from curvscope.cli._output import print_json, terminal
from curvscope.cli._source import SourceOrRun
from curvscope.cli._workers import WorkerOptions
from curvscope.errors import InvalidArgument, RunConflict

if TYPE_CHECKING:
    from curvscope.estimators import Density

FILES = ("density.json", "density.png")


@dataclass(frozen=True)
class Quadrature:
    """Options of the quadrature: those of :func:`curvscope.density`."""

    probes: Annotated[int, typer.Option("--probes", help="Random starts.")] = 8
    steps: Annotated[int, typer.Option("--steps", help="Lanczos steps from each.")] = 100
    method: Annotated[str, typer.Option("--method", help="auto, lanczos, or exact for all eigenvalues.")] = "auto"
    seed: Annotated[int, typer.Option("--seed", help="Of the random starts.")] = 0
    memory: LanczosMemory = None

    def options(self) -> dict[str, Any]:
        """As the function takes them."""
        named = asdict(self)
        return {"num_probes": named.pop("probes"), "num_steps": named.pop("steps"), **named}


@grouped
def command(
    source: SourceOrRun,
    quadrature: Quadrature,
    *,
    between: Annotated[
        tuple[float, float] | None, typer.Option("--between", help="Count the eigenvalues in this interval.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for density.json and density.png.")] = None,
    worker_options: WorkerOptions,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """The spectral density: bulk, outliers, edges, trace.

    With a RUN its eigenpairs count exactly, and the density is kept in it (the last one counts): `curvscope report` shows it.
    """
    from curvscope.cli._measured import measured
    from curvscope.estimators import density
    from curvscope.report import save_figure, spectral_density
    from curvscope.runs import DENSITY
    from curvscope.store import Run, check_can_be_made, write_text

    run = source.run
    if between is not None and not between[0] <= between[1]:
        raise InvalidArgument(f"--between {between[0]} {between[1]}: the first must not exceed the second, exchange them")
    if out is not None:
        check_can_be_made(out)
    taken = [out / name for name in FILES if out is not None and (out / name).exists()]
    if taken:
        raise RunConflict(f"{taken[0]} exists: choose another folder with --out")
    worker_options.check_source(source.problem)
    if run is not None:
        check_can_be_made(run)
    operator, solution = measured(source, trust=trust)
    with worker_options.executor() as executor:
        found = density(operator, **quadrature.options(), deflate=solution, executor=executor)
    if run is not None:
        Run.open(run).write_sealed(DENSITY, found.to_dict())
    if out is not None:
        write_text(out / FILES[0], json.dumps(found.to_dict()))
        save_figure(spectral_density(found), out / FILES[1])
    if as_json:
        print_json(_plain(found, between))
        return
    console = terminal()
    console.print(str(found), highlight=False, soft_wrap=True)
    if between is not None:
        inside = found.count(*between)
        console.print(f"in [{between[0]:g}, {between[1]:g}]: {inside.value:.4g} +- {inside.stderr:.2g}", highlight=False)
    if out is not None:
        console.print(f"Written: {out / FILES[0]}, {out / FILES[1]}", highlight=False, soft_wrap=True)
    if run is not None:
        console.print(f"Kept in {run / DENSITY}. Next: curvscope report {run}", highlight=False, soft_wrap=True)


def _plain(found: Density, between: tuple[float, float] | None) -> dict[str, Any]:
    from curvscope.estimators import RULES

    plain: dict[str, Any] = {
        "D": found.size,
        "range": found.range,
        "exact": len(found.exact),
        "outliers": {rule: found.outliers(rule) for rule in RULES},
        "bulk_edges": {rule: found.bulk_edges(rule) for rule in RULES},
        "trace": [found.trace.value, found.trace.stderr],
        "frobenius_norm": [found.frobenius_norm.value, found.frobenius_norm.stderr],
        "products": found.products,
        "seconds": found.seconds,
    }
    if between is not None:
        inside = found.count(*between)
        plain["between"] = {"interval": between, "count": inside.value, "stderr": inside.stderr}
    return plain
