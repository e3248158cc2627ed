"""``curvscope compare``: the eigenvalues of two runs side by side, and how far their eigenspaces agree."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from curvscope.cli._names import AsJson, RunFolder
from curvscope.cli._output import print_json, terminal


def command(
    run: RunFolder,
    other: Annotated[Path, typer.Argument(metavar="RUN2", help="The other run.")],
    as_json: AsJson = False,
) -> None:
    """Compare the eigenpairs of two runs: each pair of eigenvalues, and the overlap of the first k eigenvectors.

    The overlap is |U_k' V_k|^2 / k: 1 for the same space, k/D for random ones. Two runs of different size have no overlap.
    """
    from curvscope.cli._tables import as_rich
    from curvscope.report import Table
    from curvscope.runs import pairs_at
    from curvscope.subspaces import overlap

    first, second = pairs_at(run), pairs_at(other)
    k = min(first.k, second.k)
    ours, theirs = first.eigenvalues[:k], second.eigenvalues[:k]
    sizes = first.eigenvectors.shape[0], second.eigenvectors.shape[0]
    curve = overlap(first, second) if sizes[0] == sizes[1] else None
    shares = None if curve is None else curve.value[:k].tolist()
    if as_json:
        print_json({"k": k, "D": list(sizes), "eigenvalues": [ours.tolist(), theirs.tolist()], "overlap": shares})
        return
    rows = []
    for i, (a, b) in enumerate(zip(ours.tolist(), theirs.tolist(), strict=True)):
        relative = f"{(b - a) / abs(a):+.1e}" if a else ""
        rows.append([str(i + 1), f"{a:.6e}", f"{b:.6e}", relative, "" if shares is None else f"{shares[i]:.4f}"])
    console = terminal()
    console.print(as_rich(Table(["k", str(run), str(other), "relative\ndifference", "overlap of\nfirst k"], rows)))
    if curve is None:
        console.print(f"No overlap: {run} has D = {sizes[0]:,}, {other} {sizes[1]:,}", highlight=False, soft_wrap=True)
    if first.order != second.order:
        console.print(f"{run} is in the order {first.order}, {other} in {second.order}", highlight=False, soft_wrap=True)
    if first.k != second.k:
        console.print(f"{run} has {first.k} pairs, {other} {second.k}: the first {k} of both", highlight=False, soft_wrap=True)
