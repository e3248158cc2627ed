"""Results on disk: a directory with a readable JSON table and tall vectors as Zarr arrays of checked tiles."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from curvscope.errors import DamagedData, RunConflict, RunNotFound
from curvscope.store import RESTORE, Draft, check_folder, read_json, sealed, shown, unsealed, write_text
from curvscope.tall import InMemory, OnDisk, TallMatrix

EIGEN, SINGULAR = "curvscope solution 2", "curvscope singular solution 2"
VECTORS = {EIGEN: ("eigenvectors",), SINGULAR: ("U", "V")}
"""The tall matrices that a solution of each format has, each in a Zarr array of its name."""
TABLE, VECTORS_OF = "solution.json", "vectors"
SMALL = 1 << 28
"""Bytes up to which vectors are read into memory when a solution is opened."""

Place = str | os.PathLike[str]


def write_result(
    path: Place, form: str, table: dict[str, Any], vectors: dict[str, TallMatrix], *, overwrite: bool = False
) -> None:
    """Write table and vectors of a solution of this format to the new directory ``path``; it appears whole or not at all.

    Args:
        path: of the directory.
        form: the format.
        table: everything but the vectors.
        vectors: by name.
        overwrite: whether it takes the place of a result that was written there before, which stays until this one is whole.

    Raises:
        RunConflict: ``path`` exists and is not to be overwritten, or holds something else than a result alone.
    """
    target = Path(path)
    if target.exists() and not overwrite:
        raise RunConflict(f"{target} exists: choose another path, or save(path, overwrite=True) in place of a saved solution")
    if target.exists():
        known = {TABLE, *(f"{name}.zarr" for names in VECTORS.values() for name in names)}
        if not (target / TABLE).is_file() or any(entry.name not in known for entry in target.iterdir()):
            raise RunConflict(f"{target} holds something else than a saved solution: choose another path")
        fresh, old = (target.with_name(f".{target.name}.{word}-{os.getpid()}") for word in ("new", "old"))
        write_result(fresh, form, table, vectors)
        target.rename(old)
        fresh.rename(target)
        shutil.rmtree(old)
        return
    with Draft(target) as draft:
        draft.mkdir()
        for name in VECTORS[form]:
            stored = OnDisk.create(draft / f"{name}.zarr", *vectors[name].shape, vectors[name].dtype)
            for panel in stored.panels():
                stored.write_rows(panel, vectors[name].rows(panel))
        rewrite_table(draft, form, table)


def rewrite_table(path: Place, form: str, table: dict[str, Any]) -> None:
    """Put another table in the place of the one that :func:`write` wrote; the vectors stay as they are."""
    folder = Path(path)
    content = {"format": form, **table, VECTORS_OF: {name: _described(folder, name) for name in VECTORS[form]}}
    write_text(folder / TABLE, json.dumps(sealed(content, _run_of(folder)), indent=1))


def form_of(path: Place) -> str:
    """The format of the solution there, one of :data:`VECTORS`.

    Raises:
        RunNotFound: no solution there, or one of a format that this version does not read.
    """
    return str(_table(Path(path))["format"])


def read_result(path: Place, form: str) -> tuple[dict[str, Any], dict[str, TallMatrix]]:
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
    vectors: dict[str, TallMatrix] = {}
    for name in VECTORS[form]:
        if not (source / f"{name}.zarr").is_dir():
            raise RunNotFound(f"{source} lacks its vectors ({name}.zarr): compute it again")
        stored = OnDisk(source / f"{name}.zarr")
        if VECTORS_OF in table and table[VECTORS_OF].get(name) != _facts(stored):
            raise DamagedData(
                f"{stored.path} is not the matrix that {source / TABLE} describes (another shape, dtype or run's): {RESTORE}"
            )
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
    if VECTORS_OF in table and "checksum" not in table:
        raise DamagedData(f"{source / TABLE} lost its checksum, it was altered: {RESTORE}")
    opened: dict[str, Any] = unsealed(table, source / TABLE, _run_of(source))
    return opened


def _run_of(folder: Path) -> str | None:
    """The mark of the run that a folder lies in; None if it lies in none, or in one of an earlier version."""
    try:
        mark: str | None = read_json(folder.absolute().parent / "manifest.json").get("id")
        return mark
    except (OSError, AttributeError):  # also a damaged manifest, which is named when the run is opened
        return None


def _described(folder: Path, name: str) -> dict[str, Any]:
    return _facts(OnDisk(folder / f"{name}.zarr"))


def _facts(stored: OnDisk) -> dict[str, Any]:
    """Return what ties a table to its vectors."""
    return {"matrix": stored.mark, "shape": list(stored.shape), "dtype": str(stored.dtype).removeprefix("torch.")}
