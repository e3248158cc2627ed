"""``curvscope certify RUN``: check a run's claims with fresh products, and prove what can be proven."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console

from curvscope.cli.names import AsJson, RunFolder
from curvscope.cli.source import operator_of_run
from curvscope.cli.workers import BatchSystem, ClusterConfig, Hiring, JobCount, SchedulerAddress, WorkerCount
from curvscope.execution.run import Run
from curvscope.solvers import Solution, certify
from curvscope.studies.eigs import failed_claims, keep_certificate, solution_of


def command(
    run: RunFolder,
    steps: Annotated[int, typer.Option("--steps", help="Products that bound what was not found.")] = 60,
    failure: Annotated[float, typer.Option("--failure", help="Probability with which that bound may be wrong.")] = 1e-6,
    workers: WorkerCount = None,
    scheduler: SchedulerAddress = None,
    cluster: BatchSystem = None,
    jobs: JobCount = None,
    cluster_config: ClusterConfig = None,
    as_json: AsJson = False,
) -> None:
    """Measure a run's residuals afresh and bound what it missed; exit status 1 if a claim of the run fails."""
    hiring = Hiring(workers, scheduler, cluster, jobs, cluster_config)
    opened = Run.open(run)
    claimed = solution_of(opened)
    operator = operator_of_run(opened, claimed)
    with hiring.executor() as executor:
        certified = certify(operator, claimed, steps=steps, failure=failure, executor=executor)
    failed = failed_claims(claimed, certified)
    keep_certificate(opened, certified)
    if as_json:
        typer.echo(json.dumps(_plain(certified, failed)))
    else:
        console = Console()
        console.print(str(certified), highlight=False, soft_wrap=True)
        console.print("\n".join(failed) or "every claim of the run holds", highlight=False, soft_wrap=True)
    if failed:
        raise typer.Exit(1)


def _plain(certified: Solution, failed: list[str]) -> dict[str, object]:
    certificate = certified.certificate
    assert certificate is not None
    return {
        "failed": failed,
        "complete": certificate.complete,
        "failure": certificate.tail.failure,
        "tail_norm": certificate.tail.bound,
        "residual_norms": certified.residual_norms.tolist(),
        "intervals": certified.intervals.tolist(),
        "angles": certificate.angles.tolist(),
    }
