"""Masks in the forms that people hold: booleans, zeros and ones, scores, by name, a list, buffers of pruning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from curvscope.errors import InvalidArgument, InvalidType, NotFinite
from curvscope.operators import Parameters
from curvscope.subspaces._ranking import Mask, Ranking
from curvscope.subspaces._spaces import LARGEST_DEFECT, Subspace, columns

ORIGINAL, BUFFER = "_orig", "_mask"
"""What torch.nn.utils.prune appends to a parameter's name, and to that of its mask."""


def as_subspace(space: Any, beside: Any) -> Subspace:
    """Read a subspace that may be given as a mask in any form, and bring it into the order of a solution's parameters.

    Raises:
        InvalidArgument, InvalidType: see :func:`as_mask` and :func:`aligned`.
    """
    named = beside.layout if isinstance(beside, Ranking | Mask) else getattr(beside, "parameters", None)
    if isinstance(space, nn.Module) and (pruned := {k: v for k, v in space.named_buffers() if k.endswith(BUFFER)}):
        space = pruned
    if is_given_mask(space):
        size = beside.size if isinstance(beside, Ranking | Mask) else columns(beside).shape[0]
        space = as_mask(space, size, named)
    if isinstance(space, Ranking | Mask) and not isinstance(beside, Ranking | Mask):
        space = aligned(space, named)
    found: Subspace = space
    return found


def as_pair(first: Any, second: Any) -> tuple[Any, Any]:
    """Read two subspaces, vectors of booleans, of zeros and ones or of places among them as masks; others as they are."""
    size = max(map(_size, (first, second)))
    one, other = (as_mask(space, size) if _is_mask_vector(space) else space for space in (first, second))
    return one, other


def _is_mask_vector(space: Any) -> bool:
    if not isinstance(space, Tensor | np.ndarray) or not is_given_mask(space):
        return False
    vector = torch.as_tensor(space, device="cpu")
    return not vector.is_floating_point() or _is_zero_one(vector)


def _size(space: Any) -> int:
    """D as far as a subspace tells; places do not."""
    if isinstance(space, Ranking | Mask):
        return space.size
    return len(space) if isinstance(space, Tensor | np.ndarray) else columns(space).shape[0]


def is_given_mask(obj: Any) -> bool:
    """Return whether something is to be read as a mask or as scores, rather than as columns.

    That is: booleans, integers, anything by name, a list of tensors, or a vector (D,) of numbers. Two dimensions of
    floating-point numbers are columns, and so is a vector of norm one.
    """
    if isinstance(obj, Mapping | list | tuple):
        return True
    if isinstance(obj, np.ndarray):
        return obj.dtype.kind in "bui" or (obj.ndim == 1 and not _is_unit(torch.as_tensor(obj, device="cpu")))
    return isinstance(obj, Tensor) and (not obj.is_floating_point() or (obj.ndim == 1 and not _is_unit(obj)))


def _is_unit(vector: Tensor) -> bool:
    return abs(float(vector.detach().double().norm()) - 1) < LARGEST_DEFECT


def as_mask(obj: Any, size: int, parameters: Parameters | None = None) -> Mask | Ranking:
    """Read a mask of D parameters: booleans and zeros and ones as a mask, integers as places, other numbers as scores.

    Args:
        obj: (D,) or (D, 1), by parameter name (or by the names of pruning's buffers), or a list with a tensor for each
            parameter.
        size: D.
        parameters: names and shapes of the D parameters, where they are known.

    Raises:
        InvalidArgument: wrong lengths or names, nothing chosen. InvalidType: nothing of these.

    >>> as_mask([True, False, True], 3).index.tolist(), as_mask(torch.tensor([0.5, 2.0]), 2).order.tolist()
    ([0, 2], [1, 0])
    """
    flat = _flat(obj, parameters)
    if flat.dtype == torch.bool or (len(flat) == size and _is_zero_one(flat)):
        if len(flat) != size:
            raise InvalidArgument(f"the mask has {len(flat)} entries, the vectors {size} rows: pass one for each parameter")
        chosen = flat.bool().nonzero().flatten()
        if not len(chosen):
            raise InvalidArgument("the mask holds no parameter: at least one must be True")
        return Mask(chosen, size, "given mask", parameters if isinstance(obj, Mapping) else None)
    if flat.is_floating_point():
        if len(flat) != size:
            raise InvalidArgument(f"there are {len(flat)} scores for {size} parameters: pass one for each parameter")
        if not bool(torch.isfinite(flat).all()):
            raise NotFinite("the scores hold NaN or infinity: look at what they were computed from")
        if bool((flat < 0).any()):
            raise InvalidArgument(
                "a vector with negative entries is no mask, and as scores its sign decides: pass vector.abs() or "
                "masks.by_score(vector) for scores, cs.gradient_fraction(vector, solution) for a gradient's share in the space"
            )
        return Ranking(flat.argsort(descending=True, stable=True), "given scores")
    if flat.is_complex():
        raise InvalidType(f"a mask of {flat.dtype}: pass booleans, places, or real scores")
    places = flat.long().sort().values
    if not len(places) or int(places[0]) < 0 or int(places[-1]) >= size or len(places.unique()) < len(places):
        raise InvalidArgument(f"{len(flat)} integers are read as places: they must differ and lie from 0 to {size - 1}")
    return Mask(places, size, "given places")


def _is_zero_one(flat: Tensor) -> bool:
    return bool(((flat == 0) | (flat == 1)).all())


def _flat(obj: Any, parameters: Parameters | None) -> Tensor:
    if isinstance(obj, Mapping):
        return _by_name(obj, parameters)
    if isinstance(obj, list | tuple) and obj and all(isinstance(part, Tensor | np.ndarray) and part.ndim for part in obj):
        return _listed(obj, parameters)
    try:
        flat = torch.as_tensor(obj, device="cpu").detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidType(
            f"cannot read a mask from a {type(obj).__name__}: pass (D,) booleans or scores, a dictionary by parameter name, a "
            "list with a tensor for each parameter, or cs.masks.by_magnitude(model) and the like"
        ) from error
    if flat.ndim == 2 and flat.shape[1] == 1:
        flat = flat[:, 0]
    if flat.ndim != 1:
        raise InvalidArgument(f"the mask has shape {tuple(flat.shape)}: pass (D,), or a list or dictionary of tensors")
    return flat


def _listed(parts: Sequence[Any], parameters: Parameters | None) -> Tensor:
    tensors = [torch.as_tensor(part, device="cpu").detach().cpu() for part in parts]
    if parameters is not None:
        shapes = [tuple(tensor.shape) for tensor in tensors]
        expected = [tuple(shape) for shape in parameters.shapes]
        if shapes != expected:
            raise InvalidArgument(
                f"the list has tensors of shapes {shapes}, the parameters {expected} ({', '.join(parameters.names)}): pass one "
                "for each parameter, in this order, or a dictionary by name"
            )
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def _by_name(tensors: Mapping[str, Any], parameters: Parameters | None) -> Tensor:
    if not tensors:
        raise InvalidArgument("the dictionary of masks is empty: pass a tensor for each parameter, by name")
    found = {str(name): torch.as_tensor(part, device="cpu").detach().cpu() for name, part in tensors.items()}
    if parameters is None:
        return torch.cat([tensor.reshape(-1) for tensor in found.values()])
    pieces = []
    for name, shape in zip(parameters.names, parameters.shapes, strict=True):
        plain = name.removesuffix(ORIGINAL)
        part = next((found[other] for other in (name, plain, plain + BUFFER) if other in found), None)
        if part is None:
            if not any(other.endswith(BUFFER) for other in found):
                raise InvalidArgument(
                    f"there is no mask for parameter {name!r}: pass one for each of {list(parameters.names)}; zeros for those "
                    "that the mask does not hold, ones for those that it holds whole"
                )
            part = torch.ones(shape, dtype=torch.bool, device="cpu")  # pruning leaves the others whole
        if part.shape != shape:
            raise InvalidArgument(f"the mask of {name!r} has shape {tuple(part.shape)}, the parameter {tuple(shape)}")
        pieces.append(part.reshape(-1).bool() if part.dtype == torch.bool or _is_zero_one(part) else part.reshape(-1))
    if len({piece.dtype for piece in pieces}) > 1:
        pieces = [piece.double() for piece in pieces]
    return torch.cat(pieces)


def aligned(mask: Mask | Ranking, parameters: Parameters | None) -> Mask | Ranking:
    """A mask with its parameters in the order of others, told by their names.

    Raises:
        InvalidArgument: the names, or the shapes of the same name, differ.
    """
    own = mask.layout
    if own is None or parameters is None or own.size != parameters.size or own == parameters:
        return mask
    ours = {_plain(name): (place, own.shapes[i]) for i, (name, place) in enumerate(own.slices.items())}
    theirs = {_plain(name): (place, parameters.shapes[i]) for i, (name, place) in enumerate(parameters.slices.items())}
    apart = [name for name in ours if name not in theirs or ours[name][1] != theirs[name][1]]
    if apart:
        raise InvalidArgument(
            f"the mask was made from other tensors than the solution: {apart[0]!r} of shape {tuple(ours[apart[0]][1])} is not "
            f"among {list(parameters.names)[:6]}: pass the model, or the tensors by the solution's names"
        )
    places = torch.cat([torch.arange(theirs[name][0].start, theirs[name][0].stop, device="cpu") for name in ours])
    if isinstance(mask, Ranking):
        return Ranking(places[mask.order], mask.name, parameters)
    return Mask(places[mask.index].sort().values, mask.size, mask.name, parameters)


def _plain(name: str) -> str:
    """A parameter's name without what wrappers and pruning add to it."""
    for prefix in ("_orig_mod.", "module."):
        name = name.removeprefix(prefix)
    return name.removesuffix(ORIGINAL)
