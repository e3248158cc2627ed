"""``curvscope diagonal``: the diagonal of a problem's, one's own or a run's operator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from curvscope.cli._estimates import Probes
from curvscope.cli._folders import check_file
from curvscope.cli._groups import grouped
from curvscope.cli._names import AsJson, Trust
from curvscope.cli._output import print_json, terminal
from curvscope.cli._source import SourceOrRun
from curvscope.cli._workers import WorkerOptions

if TYPE_CHECKING:
    from torch import Tensor

    from curvscope.operators.base import Operator

KINDS = (".npz", ".safetensors", ".npy")
LARGEST = 1000
"""Entries that --json prints; a diagonal has as many as the model has parameters."""


@grouped
def command(
    source: SourceOrRun,
    probes: Probes,
    *,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File for value and stderr of every entry: .npz or .safetensors; .npy: the value."),
    ] = None,
    worker_options: WorkerOptions,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """The diagonal of the matrix: for each parameter tensor its sum, mean, smallest and largest entry.

    With a RUN, the part of its eigenpairs is known. All entries, with their standard errors, go to --out.
    """
    from curvscope.cli._measured import measured
    from curvscope.cli._tables import as_rich
    from curvscope.estimators import diagonal
    from curvscope.report import Table

    if out is not None:
        check_file(out, KINDS)
    worker_options.check_source(source.problem)
    operator, solution = measured(source, trust=trust)
    with worker_options.executor() as executor:
        found = diagonal(operator, **probes.options(), deflate=solution, executor=executor)
    if out is not None:
        _write({"value": found.value, "stderr": found.stderr}, out)
    parts = _parts(operator, found.value)
    if as_json:
        plain = {name: [float(x.sum()), float(x.mean()), float(x.min()), float(x.max())] for name, x in parts.items()}
        entries = found.value.tolist() if len(found.value) <= LARGEST else None
        print_json({"D": len(found.value), "products": found.products, "layers": plain, "value": entries})
        return
    rows = [[name, *(f"{float(y):.4g}" for y in (x.sum(), x.mean(), x.min(), x.max()))] for name, x in parts.items()]
    console = terminal()
    console.print(as_rich(Table(["parameters", "sum", "mean", "smallest", "largest"], rows)))
    relative = float(found.stderr.norm() / found.value.norm()) if float(found.value.norm()) else 0.0
    console.print(f"{found.products} products; relative standard error of all entries {relative:.2g}", highlight=False)
    if out is not None:
        console.print(f"Written: {out}", highlight=False, soft_wrap=True)


def _parts(operator: Operator, value: Tensor) -> dict[str, Tensor]:
    """Return all entries, and those of each parameter tensor where the operator has parameters."""
    parameters = getattr(operator, "parameters", None)
    layers = {} if parameters is None else parameters.unflatten(value)
    return {"all": value, **layers}


def _write(arrays: dict[str, Tensor], out: Path) -> None:
    """Write arrays by name."""
    import numpy as np
    from safetensors.torch import save_file

    from curvscope.store import Draft

    out.parent.mkdir(parents=True, exist_ok=True)
    with Draft(out) as draft:
        if out.suffix.lower() == ".npy":
            with draft.open("wb") as stream:
                np.save(stream, arrays["value"].numpy())
        elif out.suffix.lower() == ".npz":
            with draft.open("wb") as stream:
                plain: dict[str, Any] = {name: tensor.numpy() for name, tensor in arrays.items()}
                np.savez(stream, **plain)
        else:
            save_file({name: tensor.contiguous() for name, tensor in arrays.items()}, draft)
