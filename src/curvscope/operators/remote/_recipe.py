"""An operator that can be made again elsewhere: what to import and what to call it with, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curvscope.errors import InvalidArgument, InvalidType
from curvscope.operators.base import Operator
from curvscope.operators.remote._target import load_target

SHARDING = ("shard", "num_shards")
"""Options that name a part of the data; see :func:`.sharded.data_parallel`."""


@dataclass(frozen=True, init=False)
class Recipe:
    """Instructions for making an operator that every process understands: ``module:function`` and its plain options.

    Workers on other machines get the recipe instead of the operator: each builds it once and keeps it. Data and checkpoints
    are named by path, where all of them can read it.

    Args:
        target: ``"module:function"``, or a function that can be imported; it returns an operator, anything that
            ``as_operator`` takes, or (model, loss, data) for the Hessian.
        options: keyword arguments of the function: numbers, texts, None, and lists and dictionaries of them.

    Attributes:
        folder: the current directory when the recipe was written; modules are looked for there as well.

    Raises:
        InvalidType: an option that is not plain. InvalidArgument: a function that other processes cannot import.

    >>> recipe = Recipe("curvscope.problems:spectrum", kind="power", size=50)
    >>> operator = recipe.build()
    >>> operator.shape, operator.recipe == recipe
    ((50, 50), True)
    """

    target: str
    written: str
    folder: str

    def __init__(self, target: str | Callable[..., Any], **options: Any) -> None:
        name = target if isinstance(target, str) else _importable(target)
        try:
            written = json.dumps(options, sort_keys=True)
        except TypeError as error:
            raise InvalidType(
                f"the options of a recipe are plain (numbers, texts, lists): {error}; name models and data by path"
            ) from error
        object.__setattr__(self, "target", name)
        object.__setattr__(self, "written", written)
        object.__setattr__(self, "folder", str(Path.cwd()))

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of the function."""
        options: dict[str, Any] = json.loads(self.written)
        return options

    @property
    def family(self) -> tuple[str, str]:
        """Part that is the same for all shards of one operator."""
        return self.target, json.dumps({name: v for name, v in self.options.items() if name not in SHARDING}, sort_keys=True)

    def with_options(self, **options: Any) -> Recipe:
        """The same with these options in addition, or instead."""
        made = Recipe(self.target, **(self.options | options))
        object.__setattr__(made, "folder", self.folder)
        return made

    def build(self) -> Operator:
        """Make the operator, which remembers its recipe.

        Raises:
            TargetNotFound: no such module or function, or it fails. InvalidArgument: it returns something else.
        """
        made = load_target(self.target, self.options, folder=self.folder)
        made.recipe = self
        return made


def _importable(function: Callable[..., Any]) -> str:
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    if module in (None, "__main__") or not name.isidentifier():
        raise InvalidArgument(
            f"{name or function!r} cannot be imported by other processes: put it into a module of its own, at its top level, "
            "and write Recipe('module:function')"
        )
    return f"{module}:{name}"
