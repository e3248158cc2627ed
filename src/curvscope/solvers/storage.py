"""Results on disk: a directory with a readable JSON table and tall vectors as an uncompressed Zarr array."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
import zarr

from curvscope.errors import RunConflict, RunNotFound
from curvscope.tall import InMemory, TallMatrix

FORMAT = "curvscope solution 1"
TABLE, VECTORS = "solution.json", "eigenvectors.zarr"
TILE = (65536, 64)

Place = str | os.PathLike[str]


def write(path: Place, table: dict[str, Any], vectors: TallMatrix) -> None:
    """Write table and vectors to the new directory ``path``; it appears whole or not at all.

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
        _write_vectors(vectors, draft / VECTORS)
        (draft / TABLE).write_text(json.dumps({"format": FORMAT, **table}, indent=1))
        draft.rename(target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def rewrite_table(path: Place, table: dict[str, Any]) -> None:
    """Put another table in the place of the one that :func:`write` wrote; the vectors stay as they are."""
    draft = Path(path) / f".{TABLE}.{os.getpid()}.partial"
    draft.write_text(json.dumps({"format": FORMAT, **table}, indent=1))
    draft.replace(Path(path) / TABLE)


def read(path: Place) -> tuple[dict[str, Any], InMemory]:
    """Table and vectors that :func:`write` wrote; the vectors are read into memory.

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
    return table, InMemory(torch.from_numpy(stored[:].T.copy()).T)


def _write_vectors(vectors: TallMatrix, path: Path) -> None:
    rows, columns = vectors.shape
    dtype = str(vectors.dtype).removeprefix("torch.")
    chunks = (min(rows, TILE[0]), min(columns, TILE[1]))
    array = zarr.create_array(path, shape=vectors.shape, chunks=chunks, dtype=dtype, compressors=None)
    for start in range(0, columns, chunks[1]):
        stop = min(start + chunks[1], columns)
        array[:, start:stop] = vectors.columns(start, stop).cpu().numpy()
