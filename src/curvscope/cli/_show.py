"""``curvscope show``: the pairs of a run as a table."""

from __future__ import annotations

from typing import Annotated

import typer

from curvscope.cli._names import AsJson, RunFolder
from curvscope.cli._output import print_json, terminal


def command(
    run: RunFolder,
    k: Annotated[int | None, typer.Option("-k", "--k", min=1, help="Show the first k pairs; default: all.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the eigenpairs of a run, or of what Solution.save wrote: each eigenvalue, its interval and its residuals."""
    from curvscope.cli._tables import as_rich
    from curvscope.report import Table
    from curvscope.runs import pairs_at, pairs_table

    solution = pairs_at(run)
    if as_json:
        print_json(
            {
                "status": solution.status.code,
                "eigenvalues": solution.eigenvalues.tolist()[:k],
                "residual_norms": solution.residual_norms.tolist()[:k],
                "intervals": solution.intervals.tolist()[:k],
                "order": solution.order,
            }
        )
        return
    table = pairs_table(solution)
    console = terminal()
    console.print(f"{solution.k} eigenpairs of {run}: {solution.status}", highlight=False, soft_wrap=True)
    console.print(as_rich(Table(table.heads, table.rows[:k])))
