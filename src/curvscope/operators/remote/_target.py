"""``module:function`` or ``path/file.py:function``: a function of the user's, imported and called."""

from __future__ import annotations

import importlib
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from curvscope.errors import CurvscopeError, InvalidArgument, TargetNotFound
from curvscope.operators._interop import as_operator
from curvscope.operators.base import Operator
from curvscope.operators.curvature import hessian

DEFAULT = "make"
"""Function that is called where a module alone is named and defines several."""
FORMS = "write MODULE:FUNCTION or FILE.py:FUNCTION, such as experiment:make"


def load_function(target: str, *, folder: str | None = None) -> Callable[..., Any]:
    """Return the function that ``module:function`` or ``path/file.py:function`` names.

    Without ``:function`` it is the module's ``make``, or the only function that the module defines.

    Args:
        target: the name.
        folder: where modules and files are looked for first; default: the current directory.

    Raises:
        TargetNotFound: no such module or function, or importing the module fails; the message has file and line.
    """
    module_name, separator, function_name = target.rpartition(":")
    if not separator:
        module_name, function_name = target, ""
    if not module_name or (separator and not function_name):
        raise TargetNotFound(f"target {target!r}: {FORMS}")
    here = Path.cwd() if folder is None else Path(folder)
    if module_name.endswith(".py"):
        module = _module_of_file(target, here / module_name)
    else:
        _look_first_in(here)
        module = _imported(target, module_name)
    name = function_name or _meant_function(target, module)
    function = getattr(module, name, None)
    if not callable(function):
        known = _functions(module)
        told = f"it defines {', '.join(known)}" if known else "it defines no function"
        raise TargetNotFound(f"target {target!r}: module {module.__name__!r} has no function {name!r}; {told}")
    return cast("Callable[..., Any]", function)


def load_target(target: str, options: dict[str, Any] | None = None, *, folder: str | None = None) -> Operator:
    """Return the operator that a target makes: the function returns one, or (model, loss, data) for the Hessian.

    Raises:
        TargetNotFound: no such module or function, or it fails; InvalidArgument: it returns something else.
    """
    made = call_target(target, options, folder=folder)
    return hessian(*made) if isinstance(made, tuple) else as_operator(made)


def call_target(target: str, options: Mapping[str, Any] | None = None, *, folder: str | None = None) -> Any:
    """Return what a target's function returns: (model, loss, data), or something else that may be an operator.

    Args:
        target: see :func:`load_function`.
        options: keyword arguments of the function.
        folder: where modules and files are looked for first; default: the current directory.

    Raises:
        TargetNotFound: no such module or function, arguments that it does not take, or it fails; the message of a failure has
            file and line of the user's code. InvalidArgument: it returns a tuple of another length.
    """
    function = load_function(target, folder=folder)
    given = dict(options or {})
    check_arguments(target, function, given)
    try:
        made = function(**given)
    except CurvscopeError as error:
        if not getattr(error, "__notes__", ()) and (place := place_of(error)):
            error.add_note(f"raised by target {target!r}{place}")
        raise
    except Exception as error:
        raise TargetNotFound(f"target {target!r}: calling it failed{place_of(error)}: {_described(error)}") from error
    if isinstance(made, tuple) and len(made) != 3:
        raise InvalidArgument(f"target {target!r} returned {len(made)} things, expected (model, loss, data)")
    return made


def check_arguments(target: str, function: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Raise TargetNotFound where a function cannot be called with these keyword arguments."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # implemented in C, without a signature
        return
    try:
        signature.bind(**given)
    except TypeError as error:
        written = ", ".join(f"{name}={value!r}" for name, value in given.items())
        raise TargetNotFound(f"target {target!r}: it takes {signature}, called with ({written}): {error}") from error


def place_of(error: BaseException) -> str:
    """Return " at FILE, line N" for the line of the user's code that an error comes from, or "".

    It is the innermost frame that belongs neither to an installed package, nor to Python, nor to this library: an error
    inside PyTorch is caused by the user's line that called it.
    """
    if isinstance(error, SyntaxError) and error.filename is not None:
        return f" at {error.filename}, line {error.lineno}"
    paths = sysconfig.get_paths()
    foreign = (str(Path(__file__).parents[2]), *(paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")), "<")
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_foreign(frame.filename, foreign)]
    return f" at {frames[-1].filename}, line {frames[-1].lineno}" if frames else ""


def _is_foreign(filename: str, folders: tuple[str, ...]) -> bool:
    return filename.startswith(folders) or "site-packages" in filename


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _look_first_in(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _module_of_file(target: str, path: Path) -> ModuleType:
    """Return the module in a file, imported under the file's name with its folder on the path, as ``python FILE`` has it."""
    file = path.resolve()
    if not file.is_file():
        raise TargetNotFound(f"target {target!r}: there is no file {file}")
    if not file.stem.isidentifier():
        raise TargetNotFound(f"target {target!r}: {file.stem!r} cannot be a module's name: rename the file")
    _look_first_in(file.parent)
    module = _imported(target, file.stem)
    if Path(module.__file__ or "").resolve() != file:
        raise TargetNotFound(
            f"target {target!r}: another module is called {file.stem!r} ({module.__file__ or 'built in'}): rename the file"
        )
    return module


def _imported(target: str, module_name: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise TargetNotFound(f"target {target!r}: importing {module_name} failed{place_of(error)}: {error}") from error
        form = "" if ":" in target else f"{FORMS}; "
        raise TargetNotFound(
            f"target {target!r}: {form}there is no module {module_name!r}; run from the folder that holds it, or set PYTHONPATH"
        ) from error
    except SystemExit as error:
        raise TargetNotFound(
            f"target {target!r}: importing {module_name} ended the program{place_of(error)}: put what is not for import below "
            "`if __name__ == '__main__':`"
        ) from error
    except Exception as error:
        raise TargetNotFound(
            f"target {target!r}: importing {module_name} failed{place_of(error)}: {_described(error)}"
        ) from error


def _functions(module: ModuleType) -> list[str]:
    """Return the names of the public functions that a module itself defines."""
    return [
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
    ]


def _meant_function(target: str, module: ModuleType) -> str:
    """Return the name of the function that is meant where none is named."""
    known = _functions(module)
    if DEFAULT in known:
        return DEFAULT
    if len(known) != 1:
        told = f"{module.__name__} defines {', '.join(known)}" if known else f"{module.__name__} defines none"
        raise TargetNotFound(f"target {target!r}: name the function, as in {target}:{known[0] if known else 'make'}; {told}")
    return known[0]
