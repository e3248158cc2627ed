"""What reaches a person or a program: text without control characters, and with ``--json`` one JSON value on stdout."""

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
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.segment import Segment

_reserved: ContextVar[TextIO | None] = ContextVar("_reserved", default=None)


class _Escaped:
    """Something to print whose texts are shown, not obeyed: names in a run from a stranger may hold escape sequences."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from curvscope.store import printable

        for segment in console.render(self.inner, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


class _Escaping(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Wrap everything that is printed; see :class:`_Escaped`."""
        return [_Escaped(renderable) for renderable in renderables]


def terminal(**options: Any) -> Console:
    """Return a console for text from files: no markup, and control characters are escaped."""
    console = Console(markup=False, **options)
    console.push_render_hook(_Escaping())
    return console


@contextmanager
def reserved_stdout() -> Iterator[None]:
    """Keep stdout for :func:`print_json`: what data sets, models and workers print goes to stderr in the meantime."""
    real, original, descriptor = sys.stdout, sys.__stdout__, None
    if original is not None and real is original:  # child processes and libraries in C write to the descriptor itself
        original.flush()
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
