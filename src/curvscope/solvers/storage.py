"""Results on disk: a directory with a readable JSON table and tall vectors as Zarr arrays of checked tiles."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from curvscope.errors import DamagedData, RunConflict, RunNotFound
from curvscope.store import RESTORE, Draft, check_folder, checksum, read_json, shown, write_text
from curvscope.tall import InMemory, OnDisk, TallMatrix

EIGEN, SINGULAR = "curvscope solution 2", "curvscope singular solution 2"
VECTORS = {EIGEN: ("eigenvectors",), SINGULAR: ("U", "V")}
"""The tall matrices that a solution of each format has, each in a Zarr array of its name."""
TABLE, CHECKSUM = "solution.json", "checksum"
SMALL = 1 << 28
"""Bytes up to which vectors are read into memory when a solution is opened."""

Place = str | os.PathLike[str]


def write(path: Place, form: str, table: dict[str, Any], vectors: dict[str, TallMatrix]) -> None:
    """Write table and vectors of a solution of this format to the new directory ``path``; it appears whole or not at all.

    Raises:
        RunConflict: ``path`` exists.
    """
    target = Path(path)
    if target.exists():
        raise RunConflict(f"{target} exists: choose another path, or remove it first")
    with Draft(target) as draft:
        draft.mkdir()
        for name in VECTORS[form]:
            stored = OnDisk.create(draft / f"{name}.zarr", *vectors[name].shape, vectors[name].dtype)
            for panel in stored.panels():
                stored.write_rows(panel, vectors[name].rows(panel))
        rewrite_table(draft, form, table)


def rewrite_table(path: Place, form: str, table: dict[str, Any]) -> None:
    """Put another table in the place of the one that :func:`write` wrote; the vectors stay as they are."""
    content = {"format": form, **table}
    write_text(Path(path) / TABLE, json.dumps({**content, CHECKSUM: _digest(content)}, indent=1))


def form_of(path: Place) -> str:
    """The format of the solution there, one of :data:`VECTORS`.

    Raises:
        RunNotFound: no solution there, or one of a format that this version does not read.
    """
    return str(_table(Path(path))["format"])


def read(path: Place, form: str) -> tuple[dict[str, Any], dict[str, TallMatrix]]:
    """Table and vectors that :func:`write` wrote in this format; large vectors stay on disk.

    Raises:
        RunNotFound: no solution there, one of another format, or one with a part missing. DamagedData: the table, or a tile of
            the vectors, is damaged.
    """
    source = Path(path)
    if source.is_dir():
        check_folder(source)
    table = _table(source)
    if table["format"] != form:
        raise RunNotFound(f"{source} holds a {table['format']!r}, not a {form!r}: curvscope.open reads either")
    vectors = {}
    for name in VECTORS[form]:
        if not (source / f"{name}.zarr").is_dir():
            raise RunNotFound(f"{source} lacks its vectors ({name}.zarr): compute it again")
        stored = OnDisk(source / f"{name}.zarr")
        stored.check_complete()
        small = stored.shape[0] * stored.shape[1] * stored.dtype.itemsize <= SMALL
        vectors[name] = InMemory(stored.to_tensor()) if small else stored
    return table, vectors


def _table(source: Path) -> dict[str, Any]:
    if not (source / TABLE).is_file():
        raise RunNotFound(
            f"{source} holds no solution (no {TABLE}): pass a directory that Solution.save or `curvscope eigs` wrote"
        )
    table = read_json(source / TABLE)
    if not isinstance(table, dict):
        raise DamagedData(f"{source / TABLE} is damaged (a {type(table).__name__}, no object): {RESTORE}")
    if str(table.get("format")) not in VECTORS:
        raise RunNotFound(f"{source / TABLE} has format {shown(table.get('format'))}, this version reads {', '.join(VECTORS)}")
    if table.pop(CHECKSUM, None) not in (None, _digest(table)):  # None: written before there was one
        raise DamagedData(f"{source / TABLE} does not match its checksum, it was altered: {RESTORE}")
    return table


def _digest(content: dict[str, Any]) -> str:
    return checksum(json.dumps(content, sort_keys=True).encode()).hex()
