"""How much of an eigenspace lies in another subspace - a mask, another eigenspace, a gradient - for every k."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from curvscope.certificates import Certificate, overlap_bracket
from curvscope.errors import InvalidArgument, InvalidType, NotFinite
from curvscope.operators import Parameters
from curvscope.solvers import Solution
from curvscope.subspaces._curve import FractionCurve, OverlapCurve
from curvscope.subspaces._given import as_subspace
from curvscope.subspaces._leverage import growing_leverage
from curvscope.subspaces._ranking import Mask, Ranking
from curvscope.subspaces._spaces import Basis, columns, spectral_defect
from curvscope.system import checked
from curvscope.tall import InMemory, gram


@checked
def overlap(basis: Any, other: Any, *, k: int | None = None, check: bool | None = None) -> OverlapCurve:
    r"""Share of the top-k eigenspace that lies in another subspace, for every k at once.

    .. math:: o(k) = \frac1k \|\Phi_k V_k\|_F^2 = \frac1k \operatorname{tr}(P_{V_k} \Phi_k) \in [0, 1]

    the mean squared cosine of the principal angles between the two spaces. What Phi_k projects onto depends on ``other``:

    - a :class:`.Ranking`: its k first parameters (the paper's overlap); on average k/D for random ones;
    - a :class:`.Mask`: always all of it; on average k'/D;
    - another basis, such as that of a checkpoint: the span of its k first columns; on average k/D.

    Two rankings give the overlap of their masks. For a solution with a certificate (:func:`curvscope.certify`), ``lower`` and
    ``upper`` hold the overlap of the true eigenspace, of both where both have one; see :func:`.overlap_bracket`.

    Args:
        basis: a solution, orthonormal columns (D, K), or a ranking.
        other: of the same D parameters; see :mod:`.masks`. Also a mask in other forms: (D,) booleans or zeros and ones, scores
            (D,) that are ranked in descending order, integer places, a dictionary by parameter name, a list with a tensor for
            each parameter.
        k: the curve ends there; default: all columns.
        check: whether V'V = I is measured before; default: where a caller gives the columns and it is cheap.

    Cost: no products. For a ranking, K rows of V are read and O(K^2) float64 numbers worked on: D does not enter. For a mask,
        its rows; for another basis one Gram matrix, 2 D K^2 operations. Exact for orthonormal V (a defect ||V'V - I||_2 = d
        changes the result by at most d).

    Raises:
        InvalidArgument: another D, columns that are not orthonormal.
    Limits: inside a cluster of eigenvalues cut by k single values mean little; the interval says how little.
    Source: Fernandez et al., TMLR 2025 (arXiv 2504.14701), section 3.

    >>> curve = overlap(torch.eye(4)[:, :2], Ranking(torch.tensor([0, 3, 1, 2]), "example"))
    >>> curve.value.tolist(), curve.chance.tolist()
    ([1.0, 0.5], [0.25, 0.5])
    >>> overlap(torch.eye(4)[:, :2], torch.eye(4)[:, 1:3]).value.tolist()
    [0.0, 0.5]
    """
    other = as_subspace(other, basis)
    if k is not None:
        return _up_to(overlap(basis, other, check=check), k)
    match basis, other:
        case Ranking(), Ranking():
            return _rankings(basis, other)
        case ((Ranking() | Mask()), (Ranking() | Mask())):
            raise InvalidType("a fixed mask has one dimension only: use curvscope.grassmann.similarity, or pass rankings")
        case Ranking(), _:
            return overlap(other, basis, check=check)
        case Mask(), _:
            raise InvalidType("a fixed mask has no k-th subspace: pass it second, overlap(basis, mask)")
        case _, (Ranking() | Mask()):
            return _with_mask(basis, other, check)
    return _with_basis(basis, other, check)


def _up_to(curve: OverlapCurve, k: int) -> OverlapCurve:
    """The first k points of a curve."""
    curve.at(k)
    lower, upper, dimension = (None if part is None else part[:k] for part in (curve.lower, curve.upper, curve.dimension))
    return replace(curve, k=curve.k[:k], value=curve.value[:k], lower=lower, upper=upper, dimension=dimension)


def as_vector(obj: Any, parameters: Parameters | None) -> Tensor:
    """A vector as a tensor, from tensors by name in the parameters' order, from a list of them, or from an array.

    Raises:
        InvalidType: nothing of these. InvalidArgument: names or shapes that differ from the parameters'.
    """
    if isinstance(obj, Tensor):
        return obj
    if isinstance(obj, Mapping):
        return as_vector(list(obj.values()), None) if parameters is None else parameters.flatten(obj)
    if isinstance(obj, list | tuple) and obj and all(isinstance(part, Tensor) for part in obj):
        shapes = None if parameters is None else [tuple(shape) for shape in parameters.shapes]
        if shapes is not None and (found := [tuple(part.shape) for part in obj]) != shapes:
            raise InvalidArgument(f"the list has shapes {found}, the parameters {shapes}: pass a tensor for each, in order")
        return torch.cat([part.detach().reshape(-1) for part in obj])
    if hasattr(obj, "__array__"):
        return torch.as_tensor(np.asarray(obj), device="cpu")
    raise InvalidType(f"cannot read a vector from a {type(obj).__name__}: pass (D,), tensors by name, or a list of them")


@checked
def gradient_fraction(gradient: Any, basis: Basis, *, check: bool | None = None) -> FractionCurve:
    r"""Share of a gradient (or any vector) in the top-k eigenspace, for every k.

    .. math:: f(k) = \|V_k^\top g\|^2 / \|g\|^2

    Near 1 for small k after training with SGD, near chance k/D for a random vector. With a certificate, ``lower`` and
    ``upper`` hold the share in the true eigenspace.

    Args:
        gradient: (D,); ``operator.gradient()`` gives that of the operator's loss. Also tensors by parameter name, or a list
            with one for each parameter, as ``torch.autograd.grad`` gives.
        basis: a solution, or orthonormal columns (D, K).
        check: as for :func:`overlap`.

    Returns:
        A curve; ``gradient_fraction(g, solution)[k - 1]`` is one number of it.

    Cost: one read of V, 2 D K operations.

    Raises:
        InvalidArgument: another D, a zero vector. NotFinite: NaN in the vector.
    Source: Gur-Ari, Roberts, Dyer (2018), arXiv 1812.04754.

    >>> gradient_fraction(torch.tensor([3.0, 0.0, 4.0]), torch.eye(3)).value.tolist()
    [0.36, 0.36, 1.0]
    """
    vectors = columns(basis, check=check)
    gradient = as_vector(gradient, getattr(basis, "parameters", None))
    if gradient.ndim != 1 or len(gradient) != vectors.shape[0]:
        raise InvalidArgument(f"the gradient has shape {tuple(gradient.shape)}, expected ({vectors.shape[0]},)")
    if not bool(torch.isfinite(gradient).all()):
        raise NotFinite("the gradient holds NaN or infinity: load a checkpoint from before training diverged")
    direction = gradient.detach().double()
    largest = direction.abs().max()
    if not largest:
        raise InvalidArgument("the gradient is zero: it lies in every subspace, and in none")
    direction = direction / largest  # so that no square is too large or too small
    unit = (direction / direction.norm()).to(vectors.device)
    found = gram(vectors, InMemory(unit[:, None]), double=True)[:, 0]
    growing = found.abs().square().cumsum(0)
    k = torch.arange(1, len(growing) + 1, device="cpu")
    curve = FractionCurve(k, growing.clamp(max=1.0), len(gradient), "gradient", dimension=torch.ones_like(k))
    certificate = _certificate(basis)
    if certificate is None:
        return curve
    # the bracket is for k times the share: the projector onto g has norm one, whatever k is
    lower, upper = overlap_bracket(growing.expand(len(k), -1), certificate, defect=spectral_defect(basis))
    return replace(curve, lower=lower * k, upper=(upper * k).clamp(max=1.0), failure=certificate.tail.failure)


@checked
def best_overlap(basis: Basis, *, check: bool | None = None) -> OverlapCurve:
    """The largest overlap that any k-mask has with the top-k eigenspace, for every k: an upper bound for every ranking.

    Cost: one read of V; K selections of the k largest of D leverage scores.

    >>> best_overlap(torch.eye(4)[:, [2, 0]]).value.tolist()
    [1.0, 1.0]
    """
    vectors = columns(basis, check=check)
    values = [float(scores.topk(k).values.sum()) / k for k, scores in enumerate(growing_leverage(vectors), start=1)]
    value = torch.tensor(values, dtype=torch.float64, device="cpu").clamp(max=1.0)
    return OverlapCurve(torch.arange(1, len(values) + 1, device="cpu"), value, vectors.shape[0], "best")


def _with_mask(basis: Basis, mask: Ranking | Mask, check: bool | None) -> OverlapCurve:
    vectors = columns(basis, check=check)
    size, most = vectors.shape
    if mask.size != size:
        raise InvalidArgument(
            f"the {'ranking' if isinstance(mask, Ranking) else 'mask'} has {mask.size} parameters, the vectors {size} rows: "
            "rank the parameters that the operator was built on (the same params filter)"
        )
    k = torch.arange(1, most + 1, device="cpu")
    if isinstance(mask, Ranking):
        rows = vectors.rows(mask.order[:most].to(vectors.device)).abs().double().cpu()
        captured = rows.square_().cumsum_(0).cumsum_(1)
        dimension = None
    else:
        captured = _squared_rows(vectors.rows, mask, vectors.device).cumsum(0).expand(most, -1)
        dimension = torch.full((most,), mask.count, device="cpu")
    return _curve(basis, captured, k, size, mask.name, dimension)


def _squared_rows(rows: Callable[[Tensor], Tensor], mask: Mask, device: torch.device) -> Tensor:
    """(K,) sums of squares over the rows of a mask, some thousand rows at a time."""
    pieces = [rows(index.to(device)).abs().double().square().sum(dim=0).cpu() for index in mask.index.split(4096)]
    return torch.stack(pieces).sum(dim=0)


def _with_basis(basis: Basis, other: Basis, check: bool | None) -> OverlapCurve:
    first, second = columns(basis, check=check), columns(other, check=check)
    if first.shape[0] != second.shape[0]:
        raise InvalidArgument(f"the spaces lie in dimensions {first.shape[0]} and {second.shape[0]}: pass the same parameters")
    most = min(first.shape[1], second.shape[1])
    squares = gram(first, second, double=first.dtype != second.dtype).abs().square()
    captured = squares.T.cumsum(0).cumsum(1)[:most]  # entry (k, l): the first k of the second space, the first l of the first
    k = torch.arange(1, most + 1, device="cpu")
    ours = _curve(basis, captured, k, first.shape[0], "eigenspace", None)
    theirs = _curve(other, squares.cumsum(0).cumsum(1)[:most], k, first.shape[0], "eigenspace", None)
    return _both(ours, theirs, _certificate(basis), _certificate(other))


def _both(ours: OverlapCurve, theirs: OverlapCurve, first: Certificate | None, second: Certificate | None) -> OverlapCurve:
    """The interval when either or both spaces are only approximate: that of one, widened by what the other may be off.

    With s the sine of the other space's error, |sqrt(k o) - sqrt(k o')| <= s.
    """
    if first is None or second is None:
        return ours if second is None else theirs
    lower, upper = torch.zeros_like(ours.value), torch.ones_like(ours.value)
    for curve, other in ((ours, second), (theirs, first)):
        sines = (
            torch.tensor([other.space_sine(int(k)) for k in curve.k], dtype=torch.float64, device="cpu")
            / curve.k.double().sqrt()
        )
        assert curve.lower is not None, "of a certified solution"
        assert curve.upper is not None, "of a certified solution"
        lower = torch.maximum(lower, (curve.lower.sqrt() - sines).clamp(min=0).square())
        upper = torch.minimum(upper, (curve.upper.sqrt() + sines).square())
    return OverlapCurve(ours.k, ours.value, ours.size, ours.ranking, lower, upper, ours.failure + theirs.failure)


def _rankings(first: Ranking, second: Ranking) -> OverlapCurve:
    if first.size != second.size:
        raise InvalidArgument(f"the rankings have {first.size} and {second.size} parameters: rank the same ones")
    entered = torch.maximum(first.places, second.places)
    k = torch.arange(1, first.size + 1, device="cpu")
    return OverlapCurve(k, torch.bincount(entered, minlength=first.size).cumsum(0).double() / k, first.size, second.name)


def _curve(basis: Basis, captured: Tensor, k: Tensor, size: int, name: str, dimension: Tensor | None) -> OverlapCurve:
    """From captured[k - 1, l - 1] = ||Phi_k V_l||_F^2, l up to all columns."""
    value = (captured.diagonal() / k).clamp(max=1.0)
    certificate = _certificate(basis)
    if certificate is None:
        return OverlapCurve(k, value, size, name, dimension=dimension)
    lower, upper = overlap_bracket(captured, certificate, defect=spectral_defect(basis))
    return OverlapCurve(k, value, size, name, lower[: len(k)], upper[: len(k)], certificate.tail.failure, dimension)


def _certificate(basis: Basis) -> Certificate | None:
    return basis.certificate if isinstance(basis, Solution) and basis.order == "LM" else None
