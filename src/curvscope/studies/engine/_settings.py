"""Single settings of a preset, changed by name: ``steps=0,2000``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace
from math import isfinite
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from curvscope.errors import InvalidArgument

KINDS = {int: "a whole number", float: "a number", str: "a word", bool: "true or false", NoneType: "none"}
FROM_ZERO, FROM_ZERO_EACH = ("seed", "num_outer", "num_inner"), ("steps", "seeds")
"""Whole numbers that may be 0 (no sketch, for two of them), alone and in tuples; all others count something."""
TRUTH = {"true": True, "false": False}


def with_settings(config: Any, assignments: Iterable[str]) -> Any:
    """A configuration with some of its fields changed.

    Args:
        config: a frozen dataclass of plain values, see :class:`.Study`.
        assignments: ``NAME=VALUE`` each, every name once; values of a tuple are separated by commas, ``none`` is None. Blanks
            around names and values do not matter.

    Raises:
        InvalidArgument: no such field, a field of another kind than those of ``KINDS`` and tuples of them, a value that is
            missing or does not fit, a number below 0 (0 for what is counted), or a second one for the same field; the message
            names what can be set.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Config:
    ...     steps: tuple[int, ...] = (0, 300)
    ...     tol: float = 1e-3
    >>> with_settings(Config(), ["steps=0,2000", "tol=1e-4"])
    Config(steps=(0, 2000), tol=0.0001)
    """
    kinds = get_type_hints(type(config))
    settable = [field.name for field in fields(config) if _described(kinds[field.name])]
    changes: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals or name not in settable:
            what = "is not NAME=VALUE" if not equals else f"there is no setting {name!r}"
            raise InvalidArgument(f"--set {assignment}: {what}; this study has {', '.join(settable)}")
        if name in changes:
            how = "several values are separated by commas" if get_origin(kinds[name]) is tuple else "leave out one of them"
            raise InvalidArgument(f"--set {assignment}: {name} is set twice: {how}")
        try:
            changes[name] = _read(text, kinds[name])
        except ValueError:
            raise InvalidArgument(f"--set {assignment}: {name} is {_described(kinds[name])}, got {text!r}") from None
        _check_size(assignment, name, changes[name])
    return replace(config, **changes)


def _check_size(assignment: str, name: str, value: Any) -> None:
    """Raise InvalidArgument for numbers that no study can work with: they are sizes, counts, rates and seeds."""
    several = isinstance(value, tuple)
    for number in value if several else (value,):
        if isinstance(number, bool) or not isinstance(number, int | float):
            continue
        least = 0 if isinstance(number, float) or name in (FROM_ZERO_EACH if several else FROM_ZERO) else 1
        if number < least:
            raise InvalidArgument(f"--set {assignment}: {name} starts at {least}")


def _choices(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) is UnionType else (kind,)


def _described(kind: Any) -> str:
    """In words; empty for what cannot be written in a line."""
    if get_origin(kind) is tuple:
        element, *more = get_args(kind)
        inner = KINDS.get(element, "") if more == [...] else ""
        return inner and f"one or more, separated by commas, each {inner}"
    words = [KINDS.get(choice, "") for choice in _choices(kind)]
    return " or ".join(words) if all(words) else ""


def _read(text: str, kind: Any) -> Any:
    """The value that a text without blanks around it stands for; ValueError if none."""
    if get_origin(kind) is tuple:
        return tuple(_read(part.strip(), get_args(kind)[0]) for part in text.split(","))
    if NoneType in _choices(kind) and text == "none":
        return None
    (plain,) = (choice for choice in _choices(kind) if choice is not NoneType)
    if plain is bool and text not in TRUTH:
        raise ValueError(text)
    value = TRUTH[text] if plain is bool else plain(text)
    if value == "" or (plain is float and not isfinite(value)):
        raise ValueError(text)
    return value
