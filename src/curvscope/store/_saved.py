"""Small results in a file of their own: curves, densities and estimates as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from curvscope.errors import DamagedData, RunConflict, RunNotFound
from curvscope.store._files import read_json, write_text
from curvscope.store._untrusted import parsing, shown
from curvscope.system import checked

KIND, FIELDS, TENSOR, SHAPE = "curvscope result", "fields", "tensor", "shape"
ROOMS = ("certificates", "estimators", "sampling", "subspaces", "training")
"""Packages whose classes are saved here. They are imported when a file names a class that nothing has imported yet: a script
that only opens a curve has not imported the package of curves."""


class Saved:
    """A dataclass of numbers, texts and tensors that is kept in one JSON file.

    :func:`curvscope.open` reads it back. The file holds every field in full precision, tensors as lists: about 20 bytes a
    number.
    """

    _kinds: ClassVar[dict[str, type[Saved]]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        Saved._kinds[cls.__name__] = cls

    @checked
    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write everything to the file ``path``, whole or not at all; see :func:`curvscope.open`.

        Args:
            path: of the file, JSON whatever its suffix.
            overwrite: whether it takes the place of a result that was saved there.

        Raises:
            RunConflict: ``path`` exists and is not to be overwritten, or holds something else than a saved result.
        """
        target = Path(path)
        if target.exists() or target.is_symlink():
            if not overwrite:
                raise RunConflict(f"{target} exists: choose another path, or save(path, overwrite=True) to replace a result")
            if not is_saved(target):
                raise RunConflict(f"{target} holds something else than a saved result: choose another path")
        if not target.parent.is_dir():
            raise RunNotFound(f"{target.parent} is no directory: make it first, or choose another path")
        write_text(target, json.dumps(_plain(self)))

    @classmethod
    @checked
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            RunNotFound: no file there. DamagedData: it holds something else.
        """
        found = read_saved(Path(path))
        if not isinstance(found, cls):
            raise DamagedData(f"{path} holds a {type(found).__name__}, not a {cls.__name__}: use curvscope.open(path)")
        return found


def read_saved(file: Path) -> Saved:
    """Return the result in a file that :meth:`Saved.save` wrote.

    Raises:
        RunNotFound: no file there. DamagedData: it holds something else.
    """
    if not file.is_file():
        raise RunNotFound(f"{file} is not there: pass the path that was saved to")
    plain = read_json(file)
    with parsing(file):
        if plain[KIND] not in Saved._kinds:
            for room in ROOMS:
                import_module(f"curvscope.{room}")
        if plain[KIND] not in Saved._kinds:
            raise DamagedData(f"{file} holds a result of kind {shown(str(plain[KIND]))}, which this version does not know")
        found: Saved = _restored(plain)
    return found


def is_saved(file: Path) -> bool:
    """Return whether a file is one that :meth:`Saved.save` wrote, told by its first bytes."""
    if not file.is_file():
        return False
    with file.open("rb") as stream:
        return stream.read(len(KIND) + 8).lstrip().startswith(b'{"' + KIND.encode())


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return {TENSOR: value.flatten().tolist(), "dtype": str(value.dtype).removeprefix("torch."), SHAPE: list(value.shape)}
    if isinstance(value, Saved):
        inner = {field.name: _plain(getattr(value, field.name)) for field in fields(value)}  # type: ignore[arg-type]
        return {KIND: type(value).__name__, FIELDS: inner}
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


def _restored(plain: Any) -> Any:
    if isinstance(plain, list):
        return [_restored(part) for part in plain]
    if not isinstance(plain, dict):
        return plain
    if KIND in plain:
        return Saved._kinds[plain[KIND]](**{name: _restored(part) for name, part in plain[FIELDS].items()})
    if TENSOR in plain and SHAPE in plain:
        return torch.tensor(plain[TENSOR], dtype=getattr(torch, plain["dtype"]), device="cpu").reshape(plain[SHAPE])
    return {name: _restored(part) for name, part in plain.items()}
