"""The flat parameter vector: which parameters, in which order, at which place."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import reduce
from math import prod
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from curvscope.errors import InvalidArgument, InvalidType, NotFinite

ParameterFilter = (
    None
    | str
    | Sequence[str]
    | re.Pattern[str]
    | Callable[[str, nn.Parameter | None], bool]
    | nn.Module
    | Tensor
    | Iterable[Tensor]
)


SHOWN = 10
"""Tensors at either end that are shown of many."""


@dataclass(frozen=True, repr=False)
class Parameters:
    """Named parameters laid end to end as one vector of length D.

    The order is that of ``model.named_parameters()`` and each tensor is read row-major, so that ``flatten`` agrees with
    ``torch.nn.utils.parameters_to_vector``. A tied parameter counts once, under its first name.

    Attributes:
        names: the D parameters' tensors by name.
        shapes: their shapes.

    >>> p = Parameters(("weight", "bias"), (torch.Size([2, 3]), torch.Size([2])))
    >>> p.size, p.slices["bias"]
    (8, slice(6, 8, None))
    >>> p.flatten(p.unflatten(torch.arange(8))).tolist()
    [0, 1, 2, 3, 4, 5, 6, 7]
    """

    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]

    def __repr__(self) -> str:
        """The tensors on one screen, the first and the last ones of many."""
        places = range(len(self.names))
        rows = [f"  {self.names[i]}  {tuple(self.shapes[i])}" for i in places]
        shown = rows if len(rows) <= 2 * SHOWN else [*rows[:SHOWN], f"  ... {len(rows) - 2 * SHOWN} more", *rows[-SHOWN:]]
        return "\n".join([f"{len(rows)} tensors, D = {self.size:,}", *shown])

    @property
    def size(self) -> int:
        """D, the number of parameters."""
        return sum(self.lengths)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Number of entries of each tensor."""
        return tuple(prod(shape) for shape in self.shapes)

    @property
    def slices(self) -> dict[str, slice]:
        """Place of each tensor in the flat vector."""
        places, start = {}, 0
        for name, length in zip(self.names, self.lengths, strict=True):
            places[name] = slice(start, start + length)
            start += length
        return places

    def flatten(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The (D,) vector of tensors given by name (names that are not ours are passed over).

        Raises:
            InvalidArgument: a name is missing or a shape differs.
        """
        missing = [name for name in self.names if name not in tensors]
        if missing:
            raise InvalidArgument(f"no tensor for parameter {missing[0]!r}: pass one for each of {list(self.names)}")
        for name, shape in zip(self.names, self.shapes, strict=True):
            if tensors[name].shape != shape:
                raise InvalidArgument(f"{name!r} has shape {tuple(tensors[name].shape)}, expected {tuple(shape)}")
        return torch.cat([tensors[name].reshape(-1) for name in self.names])

    def unflatten(self, vector: Tensor) -> dict[str, Tensor]:
        """Views of a (..., D) tensor by parameter name, each of shape (..., *shape)."""
        return dict(zip(self.names, self.split(vector), strict=True))

    def split(self, vector: Tensor) -> tuple[Tensor, ...]:
        """As :meth:`unflatten`, without the names."""
        if vector.shape[-1] != self.size:
            raise InvalidArgument(f"the last axis has length {vector.shape[-1]}, expected D = {self.size} parameters")
        pieces = vector.split(self.lengths, dim=-1)
        return tuple(
            piece.unflatten(-1, shape) if len(shape) else piece.squeeze(-1)
            for piece, shape in zip(pieces, self.shapes, strict=True)
        )

    def join(self, tensors: Sequence[Tensor], leading: tuple[int, ...] = ()) -> Tensor:
        """The inverse of :meth:`split`: (*leading, D) from tensors of shape (*leading, *shape)."""
        return torch.cat([tensor.reshape(*leading, -1) for tensor in tensors], dim=-1)


def leaves(values: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The same numbers as parameters: losses ask them ``if p.requires_grad``, to leave out frozen ones."""
    return tuple((value.clone() if value.is_inference() else value).detach().requires_grad_() for value in values)


def _is_sharded(parameter: nn.Parameter) -> bool:
    """Return whether a process holds a part of a parameter only: DTensors, and the flat parameters of the first FSDP."""
    return (
        hasattr(parameter, "device_mesh") or type(parameter).__name__ == "FlatParameter" or hasattr(parameter, "_is_flat_param")
    )


def _trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters with gradients, by name; InvalidType or InvalidArgument where there are none that can be measured."""
    if not isinstance(model, nn.Module):
        raise InvalidType(f"model is a {type(model).__name__}, expected a torch.nn.Module")
    if isinstance(model, torch.jit.ScriptModule):
        raise InvalidType("the parameters of a scripted model cannot be exchanged: pass the module that it was scripted from")
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not trainable:
        raise InvalidArgument("the model has no parameter with requires_grad=True: unfreeze those to be measured")
    for name, p in trainable.items():
        if isinstance(p, UninitializedParameter):
            raise InvalidArgument(f"parameter {name!r} has no shape yet: call the model once on a batch first")
        if _is_sharded(p):
            raise InvalidArgument(
                f"parameter {name!r} is sharded over processes ({type(p).__name__}, as by fully_shard): load the whole weights "
                "into a model that is not, model.load_state_dict(get_model_state_dict(sharded, "
                "options=StateDictOptions(full_state_dict=True))) of torch.distributed.checkpoint.state_dict, and measure that"
            )
    return trainable


def select(model: nn.Module, params: ParameterFilter = None) -> dict[str, nn.Parameter]:
    """The trainable parameters of ``model`` that pass the filter, by name.

    Args:
        model: any module; parameters with ``requires_grad=False`` are constants, never part of the curvature.
        params: None (all), a glob such as ``"layer4.*"`` or a list of globs, a compiled regular expression (searched),
            or a predicate ``(name, parameter) -> bool``; also the name of a module,
            a module, or parameters themselves. A tied parameter counts once, under its first name; a glob selects it
            by any of its names.

    Raises:
        InvalidArgument: nothing passes, or a parameter is not a real floating-point tensor.

    >>> list(select(nn.Sequential(nn.Linear(2, 1), nn.Linear(1, 1)), "1.*"))
    ['1.weight', '1.bias']
    """
    trainable = _trainable(model)
    params = _by_tensors(params, trainable)
    keep = _predicate(params)
    names = {name: [name] for name in trainable}
    if not callable(params) and not isinstance(params, re.Pattern):  # these may be meant to leave something out
        first = {p: name for name, p in trainable.items()}
        for name, p in model.named_parameters(remove_duplicate=False):
            if p in first and name not in names:
                names[first[p]].append(name)
    _check_globs(params, [name for own in names.values() for name in own])
    chosen = {name: p for name, p in trainable.items() if any(keep(own, p) for own in names[name])}
    if not chosen:
        raise InvalidArgument(f"params={params!r} matches none of the trainable parameters {_short(trainable)}")
    for name, p in chosen.items():
        if not p.is_floating_point():
            raise InvalidArgument(f"parameter {name!r} is {p.dtype}: curvature needs real floating-point parameters")
    return chosen


def _by_tensors(params: ParameterFilter, trainable: Mapping[str, nn.Parameter]) -> ParameterFilter:
    """A filter that was given as parameters themselves, or the module that has them, as a predicate.

    Raises:
        InvalidArgument: a tensor that is no trainable parameter of the model, or none (a generator gives its tensors once).
    """
    if isinstance(params, nn.Module):
        chosen: list[Tensor] = [p for p in params.parameters() if p.requires_grad]
    elif isinstance(params, Tensor):
        chosen = [params]
    elif isinstance(params, Iterator) or (
        isinstance(params, list | tuple) and params and all(isinstance(part, Tensor) for part in params)
    ):
        chosen = list(params)
    else:
        return params
    wanted = {id(tensor) for tensor in chosen}
    if not wanted:
        raise InvalidArgument(
            "params holds no parameter: a generator such as module.parameters() can be used once only, pass list(...) of it"
        )
    own = {id(p) for p in trainable.values()}
    if strange := [tensor for tensor in chosen if id(tensor) not in own]:
        raise InvalidArgument(
            f"params has a {type(strange[0]).__name__} of shape {tuple(getattr(strange[0], 'shape', ()))} that is no trainable "
            f"parameter of the model: pass parameters of this model, or their names, from {_short(trainable)}"
        )
    return lambda name, p: id(p) in wanted


def _fits(name: str, glob: str) -> bool:
    """Return whether a glob matches a name, or is the name of a module that holds it."""
    return fnmatchcase(name, glob) or name.startswith(f"{glob}.")


def check_finite(names: Sequence[str], values: Sequence[Tensor]) -> None:
    """Raise NotFinite, by name, for a parameter that has NaN or infinity in it."""
    for name, value in zip(names, values, strict=True):
        bad = int((~torch.isfinite(value)).sum())
        if bad:
            raise NotFinite(
                f"parameter {name!r} has {bad} of {value.numel()} entries that are NaN or infinite: "
                "load a checkpoint from before training diverged"
            )


def dtype_of(name: str) -> torch.dtype:
    """The dtype of a name, such as "float64" or "torch.float64".

    Raises:
        InvalidArgument: no floating-point dtype has it.
    """
    found = getattr(torch, name.removeprefix("torch."), None)
    if not isinstance(found, torch.dtype):
        raise InvalidArgument(f"dtype={name!r}: choose 'float32', 'float64', or a torch.dtype")
    return found


def check_dtype(dtype: torch.dtype) -> None:
    """Raise InvalidArgument unless curvature can be computed in it."""
    if not dtype.is_floating_point:
        raise InvalidArgument(f"dtype={dtype}: choose torch.float32 or torch.float64")


def widest_dtype(model: nn.Module) -> torch.dtype:
    """The floating-point dtype that rounds none of a model's parameters.

    >>> widest_dtype(nn.Sequential(nn.Linear(1, 1).bfloat16(), nn.LayerNorm(1)))
    torch.float32
    """
    return reduce(torch.promote_types, (p.dtype for p in model.parameters() if p.is_floating_point()))


def matching(names: Sequence[str], params: ParameterFilter) -> tuple[str, ...]:
    """The names that pass a filter; predicates are called with the name and None.

    Raises:
        InvalidArgument: nothing passes.

    >>> matching(["0.weight", "1.weight"], "1.*")
    ('1.weight',)
    """
    keep = _predicate(params)
    _check_globs(params, names)
    chosen = tuple(name for name in names if keep(name, None))
    if not chosen:
        raise InvalidArgument(f"params={params!r} matches none of the parameters {_short(names)}")
    return chosen


def _of_name_and_parameter(function: Callable[..., bool]) -> Callable[[str, Any], bool]:
    """A predicate of names, or of names and parameters, as one of both."""
    try:
        inspect.signature(function).bind("", None)
    except TypeError:
        return lambda name, p: function(name)
    except ValueError:  # a built-in function without a signature
        return function
    return function


def _predicate(params: ParameterFilter) -> Callable[[str, Any], bool]:
    match params:
        case None:
            return lambda name, p: True
        case str():
            return lambda name, p: _fits(name, params)
        case re.Pattern():
            return lambda name, p: params.search(name) is not None
        case _ if callable(params):
            return _of_name_and_parameter(params)
        case _ if isinstance(params, Iterable):
            globs = list(params)
            if all(isinstance(glob, str) for glob in globs):
                return lambda name, p: any(_fits(name, glob) for glob in globs)
    raise InvalidType(
        f"params is a {type(params).__name__}, expected None, a glob, a list of globs, a compiled regular expression "
        "or a predicate (name, parameter) -> bool"
    )


def _check_globs(params: ParameterFilter, names: Iterable[str]) -> None:
    """Each of several globs has to match something: one that does not is a slip of the pen."""
    several = isinstance(params, Iterable) and not isinstance(params, str) and not callable(params)
    globs: list[Any] = list(cast("Iterable[Any]", params)) if several else []
    for glob in globs:
        if not any(_fits(name, glob) for name in names):
            raise InvalidArgument(f"{glob!r} in params={globs} matches none of the trainable parameters {_short(names)}")


def _short(names: Iterable[str], most: int = 12) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")
