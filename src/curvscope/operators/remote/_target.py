"""``module:function``: a function of the user's, imported and called."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from curvscope.errors import CurvscopeError, InvalidArgument, TargetNotFound
from curvscope.operators._interop import as_operator
from curvscope.operators.base import Operator
from curvscope.operators.curvature import hessian


def load_function(target: str, *, folder: str | None = None) -> Callable[..., Any]:
    """The function that ``module:function`` names; for ``folder`` see :func:`call_target`.

    Raises:
        TargetNotFound: no such module or function.
    """
    module_name, separator, function_name = target.partition(":")
    if not (separator and module_name and function_name):
        raise TargetNotFound(f"--target {target!r}: write module:function, such as experiment:make_problem")
    here = str(Path.cwd()) if folder is None else folder
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise TargetNotFound(f"--target {target!r}: importing {module_name} failed: {error}") from error
        if module_name.endswith(".py"):
            raise TargetNotFound(
                f"--target {target!r}: name the module, not its file: {Path(module_name).stem}:{function_name}, from its folder"
            ) from error
        raise TargetNotFound(
            f"--target {target!r}: there is no module {module_name!r}; run from the folder that holds it, or set PYTHONPATH"
        ) from error
    except Exception as error:
        raise TargetNotFound(f"--target {target!r}: importing {module_name} failed: {type(error).__name__}: {error}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise TargetNotFound(f"--target {target!r}: module {module_name!r} has no function {function_name!r}")
    return function


def load_target(target: str, options: dict[str, Any] | None = None, *, folder: str | None = None) -> Operator:
    """The operator that ``module:function`` makes: it returns one, or (model, loss, data) for the Hessian.

    Raises:
        TargetNotFound: no such module or function, or it fails; InvalidArgument: it returns something else.
    """
    made = call_target(target, options, folder=folder)
    return hessian(*made) if isinstance(made, tuple) else as_operator(made)


def call_target(target: str, options: dict[str, Any] | None = None, *, folder: str | None = None) -> Any:
    """Return what ``module:function`` returns: (model, loss, data), or something else that may be an operator.

    Args:
        target: ``module:function``.
        options: keyword arguments of the function.
        folder: where modules are looked for first; default the current directory.

    Raises:
        TargetNotFound: no such module or function, or it fails; InvalidArgument: it returns a tuple of another length.
    """
    function = load_function(target, folder=folder)
    try:
        made = function(**(options or {}))
    except CurvscopeError:
        raise
    except Exception as error:
        raise TargetNotFound(f"--target {target!r}: calling it failed: {type(error).__name__}: {error}") from error
    if isinstance(made, tuple) and len(made) != 3:
        raise InvalidArgument(f"--target {target!r} returned {len(made)} things, expected (model, loss, data)")
    return made
