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

EIGEN, SINGULAR = "curvscope solution 1", "curvscope singular solution 1"
VECTORS = {EIGEN: ("eigenvectors",), SINGULAR: ("U", "V")}
"""The tall matrices that a solution of each format has, each in a Zarr array of its name."""
TABLE = "solution.json"
TILE = (65536, 64)

Place = str | os.PathLike[str]


def write(path: Place, form: str, table: dict[str, Any], vectors: dict[str, TallMatrix]) -> None:
    """Write table and vectors of a solution of this format to the new directory ``path``; it appears whole or not at all.

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
        for name in VECTORS[form]:
            _write_vectors(vectors[name], draft / f"{name}.zarr")
        (draft / TABLE).write_text(json.dumps({"format": form, **table}, indent=1))
        draft.rename(target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def rewrite_table(path: Place, form: str, table: dict[str, Any]) -> None:
    """Put another table in the place of the one that :func:`write` wrote; the vectors stay as they are."""
    draft = Path(path) / f".{TABLE}.{os.getpid()}.partial"
    draft.write_text(json.dumps({"format": form, **table}, indent=1))
    draft.replace(Path(path) / TABLE)


def form_of(path: Place) -> str:
    """The format of the solution there, one of :data:`VECTORS`.

    Raises:
        RunNotFound: no solution there, or one of a format that this version does not read.
    """
    return str(_table(Path(path))["format"])


def read(path: Place, form: str) -> tuple[dict[str, Any], dict[str, InMemory]]:
    """Table and vectors that :func:`write` wrote in this format; the vectors are read into memory.

    Raises:
        RunNotFound: no solution there, one of another format, or one with a part missing.
    """
    source = Path(path)
    table = _table(source)
    if table["format"] != form:
        raise RunNotFound(f"{source} holds a {table['format']!r}, not a {form!r}: curvscope.open reads either")
    vectors = {}
    for name in VECTORS[form]:
        if not (source / f"{name}.zarr").is_dir():
            raise RunNotFound(f"{source} lacks its vectors ({name}.zarr): compute it again")
        stored = zarr.open_array(source / f"{name}.zarr", mode="r")
        vectors[name] = InMemory(torch.from_numpy(stored[:].T.copy()).T)
    return table, vectors


def _table(source: Path) -> dict[str, Any]:
    if not (source / TABLE).is_file():
        raise RunNotFound(
            f"{source} holds no solution (no {TABLE}): pass a directory that Solution.save or `curvscope eigs` wrote"
        )
    table: dict[str, Any] = json.loads((source / TABLE).read_text())
    if table.get("format") not in VECTORS:
        raise RunNotFound(f"{source / TABLE} has format {table.get('format')!r}, this version reads {', '.join(VECTORS)}")
    return table


def _write_vectors(vectors: TallMatrix, path: Path) -> None:
    rows, columns = vectors.shape
    dtype = str(vectors.dtype).removeprefix("torch.")
    chunks = (min(rows, TILE[0]), min(columns, TILE[1]))
    array = zarr.create_array(path, shape=vectors.shape, chunks=chunks, dtype=dtype, compressors=None)
    for start in range(0, columns, chunks[1]):
        stop = min(start + chunks[1], columns)
        array[:, start:stop] = vectors.columns(start, stop).cpu().numpy()
