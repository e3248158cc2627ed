"""``curvscope certify RUN``: check a run's claims with fresh products, and prove what can be proven."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from curvscope.cli._groups import grouped
from curvscope.cli._names import AsJson, Memory, RunFolder, Trust
from curvscope.cli._output import print_json, terminal
from curvscope.cli._workers import WorkerOptions
from curvscope.errors import InvalidArgument

if TYPE_CHECKING:
    from curvscope.operators.base import Operator
    from curvscope.solvers import Solution
    from curvscope.store import Run


@grouped
def command(
    run: RunFolder,
    *,
    steps: Annotated[int, typer.Option("--steps", help="Products that bound what was not found.")] = 60,
    failure: Annotated[float, typer.Option("--failure", help="Probability with which that bound may be wrong.")] = 1e-6,
    precision: Annotated[
        str | None,
        typer.Option("--precision", help="float64 for a run in float32: improves its pairs, and certifies these, beside it."),
    ] = None,
    memory: Memory = None,
    worker_options: WorkerOptions,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Measure a run's residuals afresh and bound what it missed; exit status 1 if a claim of the run fails.

    In higher precision its pairs are taken apart where they mixed. The run keeps these beside its own; overlap and report take
    them from then on.
    """
    from curvscope.cli._measured import operator_in_precision
    from curvscope.cli._trust import confirm_trust
    from curvscope.measurement import CERTIFIED
    from curvscope.runs import failed_claims, keep_certificate, solution_of
    from curvscope.solvers import certify
    from curvscope.solvers.certification import is_finer
    from curvscope.store import CERTIFYING, Run

    opened = Run.open(run)
    confirm_trust(opened, trust=trust)
    claimed = solution_of(opened)
    operator = operator_in_precision(opened, claimed, precision, trust=True)
    if is_finer(operator, claimed):
        _check_higher(opened, claimed, operator, worker_options)
    with opened.session(CERTIFYING):  # one writer: a solve that begins meanwhile is told that the run is in use
        claimed = solution_of(opened)
        with worker_options.executor() as executor:
            certified = certify(operator, claimed, steps=steps, failure=failure, memory=memory, run=opened, executor=executor)
        failed = failed_claims(claimed, certified)
        keep_certificate(opened, certified)
    if as_json:
        print_json(_plain(certified, failed))
    else:
        console = terminal()
        console.print(str(certified), highlight=False, soft_wrap=True)
        console.print("\n".join(failed) or "every claim of the run holds", highlight=False, soft_wrap=True)
        if (opened.path / CERTIFIED).exists():
            console.print(f"Overlap and report take the pairs in {opened.path / CERTIFIED}", highlight=False, soft_wrap=True)
    if failed:
        raise typer.Exit(1)


def _check_higher(run: Run, solution: Solution, operator: Operator, worker_options: WorkerOptions) -> None:
    """Raise before any product where workers cannot build the operator, or the disk cannot hold the pairs."""
    from curvscope.measurement import check_disk

    if not worker_options.is_local and operator.recipe is None:
        raise InvalidArgument("workers build a --target as it is, in its own precision: leave them or --precision out")
    check_disk(run.path, solution.k * operator.shape[0] * operator.dtype.itemsize)


def _plain(certified: Solution, failed: list[str]) -> dict[str, object]:
    certificate = certified.certificate
    assert certificate is not None
    return {
        "failed": failed,
        "dtype": str(certified.eigenvectors.dtype).removeprefix("torch."),
        "eigenvalues": certified.eigenvalues.tolist(),
        "complete": certificate.complete,
        "failure": certificate.tail.failure,
        "tail_norm": certificate.tail.bound,
        "residual_norms": certified.residual_norms.tolist(),
        "intervals": certified.intervals.tolist(),
        "angles": certificate.angles.tolist(),
    }
