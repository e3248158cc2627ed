"""Operators of commands, built in this process or in all processes that torchrun started."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from curvscope.errors import InvalidArgument
from curvscope.operators import Recipe
from curvscope.operators.base import Operator
from curvscope.operators.collective import Builders, Processes
from curvscope.operators.remote import call_target
from curvscope.runs._choices import Choices

_builders: list[Builders] = []


@contextmanager
def built_in_all(processes: Processes) -> Iterator[None]:
    """Inside, :func:`built` builds in all processes of a group."""
    _builders.append(Builders(processes))
    try:
        yield
    finally:
        _builders.pop()


def is_built_in_all() -> bool:
    """Return whether operators are built in several processes."""
    return bool(_builders)


def built(recipe: Recipe) -> Operator:
    """Return the operator of a recipe; of a group of processes where there is one, each with its part of the data."""
    if not _builders:
        return recipe.build()
    return _builders[-1].build(partial(_part, recipe))


def built_by(function: Callable[..., Any], *arguments: Any) -> Operator:
    """Return the operator that a function of a module makes; see :func:`built`."""
    if not _builders:
        return function(*arguments)  # type: ignore[no-any-return]
    return _builders[-1].build(partial(function, *arguments))


def _part(recipe: Recipe) -> Operator:
    """The operator of this process's part of the data.

    Raises:
        InvalidArgument: the function makes an operator itself, of data that nobody can divide.
    """
    if recipe.target.startswith("curvscope."):  # of this library, which divides the data
        return recipe.build()
    made = call_target(recipe.target, recipe.options, folder=recipe.folder)
    if isinstance(made, tuple):
        return Choices().operator(*made)
    raise InvalidArgument(
        f"under torchrun each process takes a part of the data: {recipe.target} returns an operator, whose data cannot be "
        "divided; return (model, loss, data)"
    )
