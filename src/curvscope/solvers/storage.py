"""Results on disk: a directory with a readable JSON table and tall vectors as a Zarr array of checked tiles."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from curvscope.errors import RunConflict, RunNotFound
from curvscope.store import Draft, write_text
from curvscope.tall import InMemory, OnDisk, TallMatrix

FORMAT = "curvscope solution 2"
TABLE, VECTORS = "solution.json", "eigenvectors.zarr"
SMALL = 1 << 28
"""Bytes up to which vectors are read into memory when a solution is opened."""

Place = str | os.PathLike[str]


def write(path: Place, table: dict[str, Any], vectors: TallMatrix) -> None:
    """Write table and vectors to the new directory ``path``; it appears whole or not at all.

    Raises:
        RunConflict: ``path`` exists.
    """
    target = Path(path)
    if target.exists():
        raise RunConflict(f"{target} exists: choose another path, or remove it first")
    with Draft(target) as draft:
        draft.mkdir()
        stored = OnDisk.create(draft / VECTORS, *vectors.shape, vectors.dtype)
        for panel in stored.panels():
            stored.write_rows(panel, vectors.rows(panel))
        rewrite_table(draft, table)


def rewrite_table(path: Place, table: dict[str, Any]) -> None:
    """Put another table in the place of the one that :func:`write` wrote; the vectors stay as they are."""
    write_text(Path(path) / TABLE, json.dumps({"format": FORMAT, **table}, indent=1))


def read(path: Place) -> tuple[dict[str, Any], TallMatrix]:
    """Table and vectors that :func:`write` wrote; large vectors stay on disk.

    Raises:
        RunNotFound: no solution there, or one with a part missing. DamagedData: a tile of the vectors is damaged.
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
    vectors = OnDisk(source / VECTORS)
    small = vectors.shape[0] * vectors.shape[1] * vectors.dtype.itemsize <= SMALL
    return table, InMemory(vectors.to_tensor()) if small else vectors
