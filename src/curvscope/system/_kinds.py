"""Whether a value is of the kind that an annotation names, and that kind in words."""

from __future__ import annotations

import os
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Number, Real
from typing import Any

import torch

TEXTS = (str, bytes, bytearray)


def members(annotation: Any) -> tuple[Any, ...]:
    """Return the alternatives of a union, or the annotation alone.

    >>> members(int | None)
    (<class 'int'>, <class 'NoneType'>)
    """
    return typing.get_args(annotation) if _is_union(annotation) else (annotation,)


def is_known(member: Any) -> bool:
    """Return whether :func:`accepts` decides alone what is of this kind.

    Of ``Any``, protocols and type variables nobody can tell, and of arrays and matrices the functions themselves know which
    of the many forms they take.
    """
    origin = typing.get_origin(member)
    if origin is not None:
        return origin in (Callable, Mapping, Sequence, Iterable, tuple, os.PathLike, typing.Literal)
    return member in (int, float, str, type(None), os.PathLike, torch.dtype, torch.device)


def is_array_like(value: Any) -> bool:
    """Return whether something may hold numbers: an array, a mapping, a module, a list of numbers or of arrays.

    >>> is_array_like([1.0]), is_array_like([None]), is_array_like("x"), is_array_like(3)
    (True, False, False, False)
    """
    if isinstance(value, TEXTS):
        return False
    if isinstance(value, list | tuple):
        return all(isinstance(item, Number) or is_array_like(item) for item in value)
    return any(hasattr(value, name) for name in ("__array__", "__len__", "shape", "state_dict"))


def accepts(member: Any, value: Any) -> bool:
    """Return whether a value is of a kind.

    Numbers of NumPy and scalar tensors are numbers, truth values are none. Whatever has a length and items is a sequence,
    but not texts and mappings. Members of sequences and tuples of numbers are looked at where that consumes nothing.

    >>> accepts(Sequence[int], [1, None]), accepts(Sequence[int], range(3)), accepts(Callable[[], None], 3)
    (False, True, False)
    """
    origin, inner = typing.get_origin(member) or member, typing.get_args(member)
    if origin is int:
        return hasattr(value, "__index__") and not _is_truth(value) and _is_scalar(value)
    if origin is float:
        return _is_number(value)
    if origin is typing.Literal:
        return value in inner if isinstance(value, str | int | type(None)) else False
    if origin is Callable:
        return callable(value)
    if origin is tuple:
        return _is_sequence(value) and (Ellipsis in inner or len(value) == len(inner)) and _holds(value, inner)
    if origin is Sequence:
        return _is_sequence(value) and _holds(value, inner)
    if origin is Iterable:
        return (hasattr(value, "__iter__") or hasattr(value, "__getitem__")) and not isinstance(value, TEXTS)
    return isinstance(value, origin)


def described(alternatives: Iterable[Any]) -> str:
    """Return kinds in words.

    >>> described((str, os.PathLike[str], Callable[[], None], Sequence[int]))
    'a text, a path, a function or a sequence of whole numbers'
    """
    found = list(dict.fromkeys(_described(member) for member in alternatives))
    return found[0] if len(found) == 1 else f"{', '.join(found[:-1])} or {found[-1]}"


def _described(member: Any) -> str:
    origin, inner = typing.get_origin(member) or member, typing.get_args(member)
    if origin is typing.Literal:
        return " or ".join(map(repr, inner))
    if origin is tuple and Ellipsis not in inner:
        return f"{len(inner)} {'numbers' if set(inner) <= {int, float} else 'values'}"
    named = {
        int: "a whole number",
        float: "a number",
        str: "a text",
        bool: "True or False",
        type(None): "None",
        torch.dtype: "a torch.dtype",
        torch.device: "a torch.device",
        os.PathLike: "a path",
        Callable: "a function",
        Mapping: "a mapping",
        Sequence: "a sequence",
        Iterable: "an iterable, such as a list",
        tuple: "a sequence",
    }
    kind = named.get(origin, f"one of type {getattr(origin, '__name__', origin)}")
    numbers = {(int,): " of whole numbers", (float,): " of numbers"}
    return kind + (numbers.get(inner, "") if origin in (Sequence, Iterable) else "")


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (types.UnionType, typing.Union)


def _is_truth(value: Any) -> bool:
    return isinstance(value, bool) or type(value).__name__ == "bool_" or str(getattr(value, "dtype", "")).endswith("bool")


def _is_scalar(value: Any) -> bool:
    return getattr(value, "ndim", 0) == 0


def _is_number(value: Any) -> bool:
    scalar = value.item() if hasattr(value, "item") and _is_scalar(value) else value
    return isinstance(scalar, Real) and not _is_truth(value)


def _is_sequence(value: Any) -> bool:
    listed = hasattr(value, "__len__") and hasattr(value, "__getitem__") and not isinstance(value, (*TEXTS, Mapping))
    return listed and getattr(value, "ndim", 1) > 0


def _holds(value: Any, inner: tuple[Any, ...]) -> bool:
    """Return whether the members of a list or tuple that should be numbers are."""
    kinds = {kind for kind in inner if kind is not Ellipsis}
    if len(kinds) != 1 or not kinds <= {int, float} or not isinstance(value, list | tuple):
        return True
    return all(accepts(next(iter(kinds)), item) for item in value)
