"""Solutions on disk: a directory with a readable JSON file and the vectors as an uncompressed Zarr array."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
import zarr

from curvscope.certify import Certificate, ProductNoise, TailNorm
from curvscope.errors import InvalidArgument, RunConflict, RunNotFound
from curvscope.operators import Parameters
from curvscope.solvers.solution import Cost, Solution, Status
from curvscope.tall import InMemory

FORMAT = "curvscope solution 1"
TABLE, VECTORS = "solution.json", "eigenvectors.zarr"
TILE = (65536, 64)


def save(solution: Solution, path: str | os.PathLike[str]) -> None:
    """Write ``solution`` to the new directory ``path``; it appears whole or not at all.

    Raises:
        RunConflict: ``path`` exists.
    """
    target = Path(path)
    if target.exists():
        raise RunConflict(f"{target} exists: choose another path, or remove it first")
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        draft.mkdir()
        _write_vectors(solution, draft / VECTORS)
        (draft / TABLE).write_text(json.dumps(_table(solution), indent=1))
        draft.rename(target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def replace_saved(solution: Solution, path: str | os.PathLike[str]) -> None:
    """Update the table of a saved solution, for example with a certificate; the vectors stay as they are.

    Raises:
        RunNotFound: no solution there. InvalidArgument: one with other eigenvalues.
    """
    if not torch.equal(load(path).eigenvalues, solution.eigenvalues):
        raise InvalidArgument(f"{path} holds a solution with other eigenvalues: save this one to a new path")
    draft = Path(path) / f".{TABLE}.{os.getpid()}.partial"
    draft.write_text(json.dumps(_table(solution), indent=1))
    draft.replace(Path(path) / TABLE)


def load(path: str | os.PathLike[str]) -> Solution:
    """Read what :func:`save` wrote; the vectors are read into memory.

    Raises:
        RunNotFound: no solution there, or one with a part missing.
    """
    source = Path(path)
    if not (source / TABLE).is_file():
        raise RunNotFound(
            f"{source} holds no solution (no {TABLE}): pass a directory that Solution.save or `curvscope eigs` wrote"
        )
    table = json.loads((source / TABLE).read_text())
    if table.get("format") != FORMAT:
        raise RunNotFound(f"{source / TABLE} has format {table.get('format')!r}, this version reads {FORMAT!r}")
    if not (source / VECTORS).is_dir():
        raise RunNotFound(f"{source} lacks its vectors ({VECTORS}): compute it again")
    stored = zarr.open_array(source / VECTORS, mode="r")
    vectors = InMemory(torch.from_numpy(stored[:].T.copy()).T)
    named = table["parameters"]
    return Solution(
        eigenvalues=_numbers(table["eigenvalues"]),
        eigenvectors=vectors,
        residual_norms=_numbers(table["residual_norms"]),
        order=table["order"],
        status=Status(**table["status"]),
        cost=Cost(**table["cost"]),
        provenance=table["provenance"],
        diagnostics=table["diagnostics"],
        parameters=named and Parameters(tuple(named), tuple(torch.Size(shape) for shape in named.values())),
        certificate=_certificate(table),
    )


def _certificate(table: dict[str, Any]) -> Certificate | None:
    stored = table.get("certificate")
    if stored is None:
        return None
    values, residuals = _numbers(table["eigenvalues"]), _numbers(table["residual_norms"])
    tail, noise = TailNorm(**stored["tail"]), ProductNoise(**stored["noise"])
    return Certificate(values, residuals, tail, noise)


def _table(solution: Solution) -> dict[str, Any]:
    named, certificate = solution.parameters, solution.certificate
    return {
        "format": FORMAT,
        "order": solution.order,
        "status": vars(solution.status),
        "cost": vars(solution.cost),
        "diagnostics": solution.diagnostics,
        "provenance": solution.provenance,
        "parameters": named and {name: list(shape) for name, shape in zip(named.names, named.shapes, strict=True)},
        "certificate": certificate and _plain(certificate),
        "eigenvalues": solution.eigenvalues.tolist(),
        "residual_norms": solution.residual_norms.tolist(),
    }


def _plain(certificate: Certificate) -> dict[str, Any]:
    return {"tail": vars(certificate.tail), "noise": vars(certificate.noise)}


def _write_vectors(solution: Solution, path: Path) -> None:
    vectors = solution.eigenvectors
    rows, columns = vectors.shape
    dtype = str(vectors.dtype).removeprefix("torch.")
    chunks = (min(rows, TILE[0]), min(columns, TILE[1]))
    array = zarr.create_array(path, shape=vectors.shape, chunks=chunks, dtype=dtype, compressors=None)
    for start in range(0, columns, chunks[1]):
        stop = min(start + chunks[1], columns)
        array[:, start:stop] = vectors.columns(start, stop).cpu().numpy()


def _numbers(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)
