"""Checks of arguments at every public entry: kinds by annotation, ranges by name, before any work."""

from __future__ import annotations

import functools
import inspect
import math
import operator
import os
import re
import typing
from collections.abc import Callable, Iterable
from numbers import Real
from typing import Any, NamedTuple, ParamSpec, TypeVar

import torch

from curvscope.errors import InvalidArgument, InvalidType
from curvscope.system import _kinds
from curvscope.system._keywords import renamed, unknown_argument

P = ParamSpec("P")
R = TypeVar("R")


class Range(NamedTuple):
    """Values that a number may have."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def holds(self, value: float) -> bool:
        """Return whether a number is among them; NaN never is."""
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below

    def text(self, kind: str) -> str:
        """The range in words.

        >>> Range(1).text("an integer"), Range(0, 1, open_high=True).text("a number"), Range(0, open_low=True).text("a number")
        ('an integer of at least 1', 'a number from 0 to below 1', 'a number above 0')
        """
        if self.high < math.inf and self.open_low:
            return f"{kind} above {self.low:g} and {'below' if self.open_high else 'up to'} {self.high:g}"
        if self.high < math.inf:
            return f"{kind} from {self.low:g} to {'below ' if self.open_high else ''}{self.high:g}"
        if self.low > -math.inf:
            return f"{kind} above {self.low:g}" if self.open_low else f"{kind} of at least {self.low:g}"
        return kind


COUNT, PROBABILITY = Range(1), Range(0, 1, open_low=True, open_high=True)
COUNTS = """
    rank block_size ncv max_products steps num_steps num_probes num_samples num_outer num_inner num_left num_products
    num_draws num_shards workers every points most samples size products count expected threads attempts
"""
RANGES: dict[str, Range] = {
    **dict.fromkeys(COUNTS.split(), COUNT),
    **dict.fromkeys(("trace_products", "density_probes", "columns", "start", "stop", "grace"), Range(0)),
    **dict.fromkeys(("failure", "confidence", "target"), PROBABILITY),
    "tol": Range(0, 1, open_high=True),
    "rtol": Range(0, open_low=True),
    "share": Range(0, 1),
}
"""What numbers of these names may be, wherever they stand; what else must hold between them, each function checks."""
MAY_BE_INFINITE = ("low", "high", "floor", "patience", "grace")
PATHS = ("path", "run")
PROGRESS = "progress"
SEEDS = 1 << 31
"""Seeds that a generator chooses from."""


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Return a function that checks its arguments when it is called, before it does anything.

    By annotation: ``int``, ``float``, ``bool`` and ``str`` (each also ``| None``), and classes. Numbers of NumPy and scalar
    tensors are taken as Python's; truth values are no numbers, NaN is no number at all, and infinity only where it has a
    meaning. By name: the ranges in :data:`RANGES`, paths, and ``progress``.

    Raises:
        InvalidArgument: (when called) a number, text or truth value that cannot work; the message names the argument, what
            came and what can. InvalidType: an object of another class.

    >>> @checked
    ... def solve(steps: int, tol: float = 1e-3) -> float:
    ...     return steps * tol
    >>> solve(2, tol=0.5)
    1.0
    >>> solve(True)
    Traceback (most recent call last):
    curvscope.errors.InvalidArgument: steps=True: choose an integer of at least 1
    """
    signature, shown = inspect.signature(function), shown_signature(function)
    known = shown.parameters.keys()

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        """Check, then call."""
        if not kwargs.keys() <= known:
            kwargs = renamed(kwargs, known)  # type: ignore[assignment]
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise _not_callable_so(function, signature, args, kwargs, error) from None
        hints = _hints(function)
        for name, value in bound.arguments.items():
            if name in hints:
                bound.arguments[name] = _checked(name, value, hints[name])
        processes = _processes_among(bound.arguments.values()) if "progress" in known else None
        if processes is not None:
            return processes.lead(lambda: function(*bound.args, **bound.kwargs))  # type: ignore[no-any-return]
        return function(*bound.args, **bound.kwargs)

    wrapper.__signature__ = shown  # type: ignore[attr-defined]
    return wrapper


def _processes_among(values: Iterable[Any]) -> Any:
    """The processes that make products of one of the arguments together; None: this one works alone.

    Functions that show progress do long work: one process does it, and the others serve it; see
    :class:`.operators.collective.Processes`.
    """
    return next((found for value in values if (found := getattr(value, "process_group", None)) is not None), None)


def shown_signature(function: Callable[..., Any]) -> inspect.Signature:
    """Return the signature with the options of a typed dictionary, ``**options: Unpack[Options]``, one by one, for editors.

    Their defaults, which a typed dictionary does not have, follow a rule: None where it is allowed, the first of literals,
    False, else an ellipsis. They are shown and never passed on.
    """
    signature = inspect.signature(function)
    *others, last = signature.parameters.values() or [None]
    if last is None or last.kind is not last.VAR_KEYWORD or not str(last.annotation).startswith("Unpack["):
        return signature
    options = getattr(inspect.unwrap(function), "__globals__", {}).get(str(last.annotation)[len("Unpack[") : -1])
    names = {} if options is None else options.__annotations__
    own = signature.parameters
    made = [
        inspect.Parameter(name, last.KEYWORD_ONLY, default=_usual(text), annotation=text)
        for name, text in ((name, getattr(kind, "__forward_arg__", kind)) for name, kind in names.items())
        if name not in own
    ]
    return signature.replace(parameters=[*others, *made]) if names else signature


def _usual(annotation: Any) -> Any:
    """The default that is shown for an option; see :func:`shown_signature`."""
    text = str(annotation)
    if "None" in text:
        return None
    if first := re.match(r"Literal\[['\"](\w+)", text):
        return first[1]
    return False if text == "bool" else ...


def _not_callable_so(
    function: Callable[..., Any], signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any], error: TypeError
) -> InvalidType:
    """The error for arguments that do not fit a signature: which, and what to write."""
    known, called = signature.parameters, function.__name__
    if called == "__init__":
        called = function.__qualname__.split(".")[-2]
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        for name in kwargs:
            if name not in known:
                return InvalidType(unknown_argument(called, name, known))
    if len(args) > 3 and list(known)[:3] == ["model", "loss", "data"]:
        return InvalidType(
            f"{called} takes its data as one argument: pass (inputs, targets), a list of such batches, or a DataLoader"
        )
    if len(args) < 2 and "num_outer" in known and "num_outer" not in kwargs and "k" in known:
        return InvalidType(
            f"{called} needs num_outer, the columns of its sketch: pass num_outer=4 * k or so, or "
            "cs.eigsh(H, k=..., method='seigh'), which chooses it"
        )
    if args and "operator" in known and hasattr(args[0], "named_parameters"):
        return InvalidType(f"{called} takes a matrix, not a model: pass cs.hessian(model, loss, data), or cs.ggn of the same")
    shown = ", ".join(name for name in known if name not in ("self", "cls"))
    return InvalidType(f"{called}: {error}; it takes ({shown}), and those after the first ones by name")


def check_options(function: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    """Return options that are passed on to another function later, checked as that function would now.

    Raises:
        InvalidType: it has no such option, or an object of another class. InvalidArgument: a value that cannot work.
    """
    known = inspect.signature(function).parameters
    hints, found = _hints(inspect.unwrap(function)), {}
    for name, value in options.items():
        if name not in known:
            raise InvalidType(unknown_argument("", name, known))
        found[name] = _checked(name, value, hints[name]) if name in hints else value
    return found


def integer(name: str, value: Any, bounds: Range = COUNT) -> int:
    """Return a whole number in a range, as a Python integer.

    Raises:
        InvalidArgument: something else; the message names the argument.
    """
    scalar = value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value
    return _integer(name, scalar, value, bounds)


def as_numbers(name: str, value: Any) -> torch.Tensor:
    """Return numbers in any form, such as a list, an array or a tensor, as a tensor on the CPU.

    Raises:
        InvalidType: something that holds no numbers; the message names the argument.

    >>> as_numbers("order", range(2))
    tensor([0, 1])
    """
    try:
        return torch.as_tensor(value if hasattr(value, "__len__") else [*value], device="cpu").detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        raise InvalidType(f"{name}={_short(value)}: pass a list, an array or a tensor of numbers") from None


@functools.cache
def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations that can be checked, by parameter: tuples of classes, with NoneType for None."""
    names = {**vars(typing), **getattr(function, "__globals__", {})}
    found = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        annotation = parameter.annotation
        if isinstance(annotation, str):
            try:
                annotation = eval(annotation, names)
            except (NameError, TypeError):  # imported for type checkers only
                annotation = Any
        # texts of a choice: the functions themselves say what each of them means
        kinds = tuple(str if typing.get_origin(kind) is typing.Literal else kind for kind in _kinds.members(annotation))
        if name in PATHS or name == PROGRESS or all(_is_class(kind) or _kinds.is_known(kind) for kind in kinds):
            found[name] = kinds
    return found


def _is_class(member: Any) -> bool:
    """Return whether values can be asked whether they are of it."""
    plain = isinstance(member, type) and not typing.get_args(member) and not getattr(member, "_is_protocol", False)
    return plain and member not in (Any, inspect.Parameter.empty)


def _checked(name: str, value: Any, kinds: tuple[Any, ...]) -> Any:
    """The value, as a Python number where it is one."""
    if value is None and (type(None) in kinds or name == PROGRESS or name in PATHS):
        return None
    if name == PROGRESS:
        return _progress(value)
    if name in PATHS:
        return _path(name, value)
    optional = " or None" if type(None) in kinds else ""
    kinds = tuple(kind for kind in kinds if kind is not type(None))
    if name == "seed":
        value = _drawn_seed(value)
    scalar = value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value
    if len(kinds) == 1 and any(kinds[0] is plain for plain in (int, float, bool, str)):
        return _plain(name, value, scalar, kinds[0], optional)
    return _one_of(name, value, scalar, kinds, optional)


def _plain(name: str, value: Any, scalar: Any, kind: type, optional: str) -> Any:
    """The value as a number, a truth value or a text."""
    if kind is int:
        return _integer(name, scalar, value, RANGES.get(name, Range()))
    if kind is float:
        return _number(name, scalar, value)
    if kind is bool:
        if not isinstance(scalar, bool):
            raise InvalidArgument(f"{name}={_short(value)}: choose True or False{optional}")
        return scalar
    if not isinstance(value, str):
        raise InvalidArgument(f"{name}={_short(value)}: pass a text")
    return value


def _one_of(name: str, value: Any, scalar: Any, kinds: tuple[Any, ...], optional: str) -> Any:
    """The value, which is of one of several kinds."""
    if all(map(_kinds.is_known, kinds)):
        if not any(_kinds.accepts(kind, value) for kind in kinds):
            raise InvalidType(f"{name}={_short(value)}: pass {_instead(name, value) or _kinds.described(kinds) + optional}")
        return _device(name, value) if torch.device in kinds else value
    if torch.Tensor in kinds and not _kinds.is_array_like(value) and not isinstance(value, _classes(kinds)):
        raise InvalidType(f"{name}={_short(value)}: pass {_kinds.described(kinds)}{optional}")
    if len(kinds) > 1:  # several classes: the function tells them apart
        return scalar if isinstance(scalar, int) and int in kinds else value
    if not _kinds.accepts(kinds[0], value):
        raise InvalidType(f"{name} is of type {type(value).__name__}: pass one of type {kinds[0].__name__}")
    return value


def _instead(name: str, value: Any) -> str:
    """Return what to pass where an object of another library holds what is asked for; empty where it is not known."""
    if name == "data" and hasattr(value, "train_dataloader"):  # a LightningDataModule
        return "one of its loaders: call its setup('fit'), then pass train_dataloader()"
    return ""


def _integer(name: str, scalar: Any, given: Any, bounds: Range) -> int:
    expected = bounds.text("an integer")
    if isinstance(scalar, bool) or type(scalar).__name__ == "bool_":
        raise InvalidArgument(f"{name}={given!r}: choose {expected}")
    try:
        number = operator.index(scalar)
    except TypeError:
        raise InvalidArgument(f"{name}={_short(given)}: choose {expected}") from None
    if not bounds.holds(number):
        raise InvalidArgument(f"{name}={number}: choose {expected}")
    return number


def _number(name: str, scalar: Any, given: Any) -> float:
    bounds = RANGES.get(name, Range())
    expected = bounds.text("a number")
    if isinstance(scalar, bool) or not isinstance(scalar, Real):
        raise InvalidArgument(f"{name}={_short(given)}: choose {expected}")
    number = scalar if isinstance(scalar, int) and abs(scalar) < 2**53 else _as_float(scalar)
    finite = abs(number) < math.inf or (name in MAY_BE_INFINITE and not math.isnan(number))
    if not finite or not bounds.holds(number):
        raise InvalidArgument(f"{name}={number!r}: choose {expected}{'' if finite else ', not NaN or infinity'}")
    return number


def _classes(kinds: tuple[Any, ...]) -> tuple[type, ...]:
    return tuple(kind for kind in kinds if _is_class(kind))


def _device(name: str, value: Any) -> Any:
    try:
        torch.device(value)
    except RuntimeError as error:
        raise InvalidArgument(f"{name}={_short(value)}: {str(error).splitlines()[0]}") from None
    return value


def _as_float(number: Real) -> float:
    try:
        return float(number)
    except OverflowError:  # an integer beyond the largest float
        return math.inf


def _path(name: str, value: Any) -> Any:
    if isinstance(value, str | os.PathLike):
        if not os.fspath(value) or "\0" in str(os.fspath(value)):
            raise InvalidArgument(f"{name}={value!r}: pass the path of a directory")
        return value
    if name == "run" and hasattr(value, "manifest"):
        return value
    raise InvalidType(f"{name} is of type {type(value).__name__}: pass a path")


def _drawn_seed(value: Any) -> Any:
    """An integer that a generator of PyTorch or NumPy draws, so that its next seed is another one; other values as they are."""
    if isinstance(value, torch.Generator):
        return int(torch.randint(SEEDS, (), generator=value, device=value.device))
    if hasattr(value, "bit_generator") and hasattr(value, "integers"):
        return int(value.integers(SEEDS))
    return int(value.randint(SEEDS)) if type(value).__name__ == "RandomState" else value


def _progress(value: Any) -> Any:
    if isinstance(value, bool) or callable(value):
        return value
    raise InvalidArgument(f"progress={_short(value)}: choose True, False, None, or a function (stage, done, total, note)")


def _short(value: Any, most: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."
