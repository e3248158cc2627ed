"""What ``--json`` prints: one JSON value on stdout, and nothing else there."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from math import isfinite
from typing import Any, TextIO

import typer

_reserved: ContextVar[TextIO | None] = ContextVar("_reserved", default=None)


@contextmanager
def reserved_stdout() -> Iterator[None]:
    """Keep stdout for :func:`print_json`: what data sets, models and workers print goes to stderr in the meantime."""
    real, descriptor = sys.stdout, None
    if real is sys.__stdout__:  # child processes and libraries in C write to the descriptor itself
        real.flush()
        descriptor = os.dup(1)
        os.dup2(2, 1)
        real = os.fdopen(os.dup(descriptor), "w", encoding="utf-8")
    token = _reserved.set(real)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _reserved.reset(token)
        if descriptor is not None:
            real.close()
            os.dup2(descriptor, 1)
            os.close(descriptor)


def print_json(content: Any) -> None:
    """One line of JSON; null stands for numbers that JSON does not have (infinite ones, and those that are none)."""
    typer.echo(json.dumps(_finite(content)), file=_reserved.get() or sys.stdout)


def _finite(content: Any) -> Any:
    if isinstance(content, float):
        return content if isfinite(content) else None
    if isinstance(content, dict):
        return {name: _finite(value) for name, value in content.items()}
    return [_finite(value) for value in content] if isinstance(content, list | tuple) else content
