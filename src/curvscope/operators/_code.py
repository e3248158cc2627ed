"""Digests of code and of the make-up of networks: what a function or a module does, beside its numbers."""

from __future__ import annotations

import dis
import functools
import hashlib
import platform
import re
import sys
from collections.abc import Callable, Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

from curvscope.operators.fingerprint import fingerprint

PLAIN = (int, float, complex, str, bytes, bool, type(None), torch.dtype)
INSTALLED = ("site-packages", "dist-packages")
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def versions() -> dict[str, str]:
    """Return the versions within which digests of code and descriptions of modules can be compared."""
    return {"python": ".".join(platform.python_version_tuple()[:2]), "torch": torch.__version__.split("+")[0]}


def modules_of(model: nn.Module) -> dict[str, str]:
    """Return the class and the options of every module of a network, by name.

    >>> modules_of(nn.Sequential(nn.Linear(2, 1), nn.ReLU()))
    {'': 'Sequential()', '0': 'Linear(in_features=2, out_features=1, bias=True)', '1': 'ReLU()'}
    """
    return {name: _described(module) for name, module in model.named_modules()}


def loss_digest(loss: Callable[..., Any]) -> str:
    """Return a digest of a loss: its code, or the options and buffers of a module."""
    if not isinstance(loss, nn.Module):
        return code_digest(getattr(loss, "function", loss))  # of a method that is named, its own code
    options = {
        name: value for name, value in sorted(vars(loss).items()) if isinstance(value, PLAIN) and name not in ("training",)
    }
    own = options if not _is_own(type(loss)) else {}  # counters of a user's module are none of its options
    return fingerprint(modules_of(loss), own, dict(loss.named_buffers()), code_digest(loss))


def code_digest(*things: Any) -> str:
    """Return a digest of what functions and modules execute, comments, names of variables and line numbers left out.

    Followed are captured and default values that are plain, and functions of the same file that are called by name. The code
    of installed libraries is left out: their versions stand for it.

    >>> one, same, other = (eval(text, {}) for text in ("lambda a: a + 1", "lambda b: b + 1  # one more", "lambda a: a + 2"))
    >>> code_digest(one) == code_digest(same), code_digest(one) == code_digest(other)
    (True, False)
    """
    digest = hashlib.blake2b(digest_size=16)
    seen: set[int] = set()
    for thing in things:
        for part in _parts(thing, seen):
            digest.update(f"{part};".encode())
    return digest.hexdigest()


def _described(module: nn.Module) -> str:
    """Class, options, and plain attributes of a module of the user's own (whole numbers left out: they may be counters)."""
    text = f"{type(module).__qualname__}({ADDRESS.sub('', module.extra_repr())})"
    if not _is_own(type(module)):
        return text
    kept = {name: value for name, value in vars(module).items() if not name.startswith("_") and name != "training"}
    own = [f"{name}={_named(value)}" for name, value in sorted(kept.items()) if (_named(value)) is not None]
    return " ".join([text, *own])


def _named(value: Any) -> str | None:
    """The text of a value that is an option, or a function that is one."""
    if isinstance(value, bool | float | str):
        return repr(value)
    if isinstance(value, FunctionType | BuiltinFunctionType):
        return value.__qualname__
    return None


def _is_own(kind: type) -> bool:
    """Return whether a class is of the user's code rather than of an installed library."""
    return _is_own_module(kind.__module__)


def _is_own_module(name: str | None) -> bool:
    if name is not None and name.split(".")[0] in ("torch", "curvscope"):
        return False
    file = getattr(sys.modules.get(name or ""), "__file__", None)
    return file is None or not any(folder in file for folder in INSTALLED)


def _parts(thing: Any, seen: set[int]) -> Iterator[str]:
    """Return what a thing executes, as texts."""
    if isinstance(thing, PLAIN):
        yield repr(thing)
    elif isinstance(thing, tuple | frozenset):
        yield from (
            sorted(map(repr, thing)) if isinstance(thing, frozenset) else (p for item in thing for p in _parts(item, seen))
        )
    elif isinstance(thing, Tensor):
        yield fingerprint(thing)
    elif isinstance(thing, BuiltinFunctionType):
        yield thing.__qualname__
    elif id(thing) in seen:
        return
    else:
        seen.add(id(thing))
        yield from _parts_of_callable(thing, seen)


def _parts_of_callable(thing: Any, seen: set[int]) -> Iterator[str]:
    match thing:
        case functools.partial():
            for part in (thing.func, *thing.args, *(item for pair in sorted(thing.keywords.items()) for item in pair)):
                yield from _parts(part, seen)
        case MethodType():
            yield from _parts_of_method(type(thing.__self__), thing.__func__, seen)
        case FunctionType():
            yield from _parts_of_function(thing, seen)
        case nn.Module():
            for module in thing.modules():
                if _is_own(type(module)):
                    yield from _parts_of_method(type(module), type(module).forward, seen)
        case type():
            yield thing.__qualname__
        case _:
            if callable(thing):
                yield from _parts_of_method(type(thing), type(thing).__call__, seen)


def _parts_of_method(kind: type, function: Any, seen: set[int]) -> Iterator[str]:
    """A method, and the methods of its class that it names."""
    if not isinstance(function, FunctionType) or not _is_own_module(function.__module__):
        return
    yield from _parts(function, seen)
    for name in sorted(set(function.__code__.co_names)):
        other = getattr(kind, name, None)
        other = other.fget if isinstance(other, property) else other
        if isinstance(other, FunctionType) and id(other) not in seen:
            yield from _parts_of_method(kind, other, seen)


def _parts_of_function(function: FunctionType, seen: set[int]) -> Iterator[str]:
    if not _is_own_module(function.__module__):
        yield function.__qualname__
        return
    code = function.__code__
    yield from _parts_of_code(code, function.__doc__)
    for value in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
        yield from _parts(value, seen)
    rebound = {step.argval for step in dis.get_instructions(code) if step.opname == "STORE_DEREF"}
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            value = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
        if name not in rebound:  # a counter is no part of the function
            yield from _parts(value, seen)
    for name in sorted(set(_names(code))):
        value = function.__globals__.get(name)
        same_file = isinstance(value, FunctionType) and value.__globals__ is function.__globals__
        if same_file or isinstance(value, bool | float | str):
            yield from _parts(value, seen)


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _parts_of_code(code: CodeType, document: str | None) -> Iterator[str]:
    yield code.co_code.hex()
    yield repr(code.co_names)
    for number, constant in enumerate(code.co_consts):
        if isinstance(constant, CodeType):
            yield from _parts_of_code(constant, None)
        elif isinstance(constant, frozenset):
            yield repr(sorted(map(repr, constant)))
        elif number or constant != document:
            yield repr(constant)
