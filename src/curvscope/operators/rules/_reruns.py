"""Functions that PyTorch would run a second time, or in its own compiled form, are run as they are written.

``torch.utils.checkpoint`` evaluates a part of the model again on the way back, with the parameters that the live model has
then, not with those that were put in its place. TorchScript keeps compiled derivatives that are wrong under ``torch.func``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from torch.utils import checkpoint


@contextmanager
def without_reruns() -> Iterator[None]:
    """Inside, checkpointed functions run once and keep what they need, and scripted ones run operation by operation."""
    with ExitStack() as stack:
        for name, replacement in CHECKPOINTS.items():
            if hasattr(checkpoint, name):  # names differ between versions of PyTorch
                stack.enter_context(replaced(checkpoint, name, replacement))
        stack.enter_context(cast(Any, torch.jit).optimized_execution(False))  # public, and not in its __all__
        flushed: set[int] = set()
        for kind in (torch.jit.ScriptFunction, torch._C.ScriptMethod):
            stack.enter_context(replaced(kind, "__call__", _interpreted(kind.__call__, flushed)))
        yield


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Give an attribute another value inside."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _interpreted(call: Callable[..., Any], flushed: set[int]) -> Callable[..., Any]:
    """A call of a scripted function that first forgets what was compiled, once."""

    def run(function: Any, *args: Any, **kwargs: Any) -> Any:
        """Call it."""
        if id(function) not in flushed:
            function._debug_flush_compilation_cache()
            flushed.add(id(function))
        return call(function, *args, **kwargs)

    return run


def _run_once(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Iterator[None]:
    """In the place of the generator around a checkpointed function: nothing before it, nothing after."""
    yield


class _Direct:
    """In the place of the autograd function of reentrant checkpoints."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
        """Call the function itself."""
        return function(*args)


CHECKPOINTS = {
    "_checkpoint_without_reentrant_generator": _run_once,
    "_checkpoint_without_reentrant_generator_impl": _run_once,
    "CheckpointFunction": _Direct,
}
