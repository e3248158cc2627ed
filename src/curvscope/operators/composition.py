"""Products of two operators, and submatrices by index or mask: matrices again, known by their products."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from curvscope.errors import InvalidArgument, InvalidType
from curvscope.operators.algebra import Arithmetic
from curvscope.operators.base import Operator
from curvscope.operators.fingerprint import fingerprint
from curvscope.operators.identity import combined
from curvscope.operators.parameters import Parameters


class Product(Arithmetic):
    """A @ B, in general not Hermitian: singular values by :func:`curvscope.svds`, eigenvalues of ``A.square()`` by ``eigsh``.

    Cost: a product with each of A and B. Raises InvalidArgument where shape, dtype or device do not fit.

    >>> from curvscope.operators import as_operator
    >>> A, B = as_operator(torch.diag(torch.tensor([1.0, 2.0]))), as_operator(torch.ones(2, 2))
    >>> ((A @ B) @ torch.eye(2)).tolist()
    [[1.0, 1.0], [2.0, 2.0]]
    """

    hermitian = False

    def __init__(self, left: Operator, right: Operator) -> None:
        if left.shape[1] != right.shape[0]:
            raise InvalidArgument(f"cannot multiply {left!r} with {right!r}: the inner dimensions differ")
        if (left.dtype, left.device) != (right.dtype, right.device):
            raise InvalidArgument(f"cannot multiply {left!r} with {right!r}: dtype and device must agree")
        named = [operator.parameters for operator in (left, right) if hasattr(operator, "parameters")]
        if len(named) == 2 and named[0] != named[1]:
            raise InvalidArgument("cannot multiply operators on different parameters: build both with the same params=...")
        self.left, self.right = left, right
        self.shape, self.dtype, self.device = (left.shape[0], right.shape[1]), left.dtype, left.device

    @property
    def parameters(self) -> Parameters:
        """Those of both factors; an AttributeError where one has none."""
        return self.right.parameters if hasattr(self.left, "parameters") else self.left.parameters

    @property
    def rounding(self) -> float:
        """The larger one of the factors'."""
        return max(self.left.rounding, self.right.rounding)

    def _apply(self, block: Tensor) -> Tensor:
        return self.left._apply(self.right._apply(block))

    def _apply_adjoint(self, block: Tensor) -> Tensor:
        return self.right._apply_adjoint(self.left._apply_adjoint(block))

    def _fingerprint(self) -> str:
        return fingerprint("product", self.left.fingerprint, self.right.fingerprint)

    def _identity(self) -> dict[str, Any]:
        return combined("Product", [self.left, self.right])


def multiplied(left: Operator, right: Operator) -> Operator:
    """Return the product of two operators; that of one with itself is its square, which is Hermitian where it is."""
    if left is right and isinstance(left, Arithmetic):
        return left.square()
    return Product(left, right)


class IndexedSubmatrix(Arithmetic):
    """The rows and columns of a square matrix A at chosen places, in the order of the index."""

    def __init__(self, inner: Arithmetic, index: Tensor) -> None:
        self.inner, self.index = inner, index.to(inner.device)
        self.shape = (len(index), len(index))
        self.dtype, self.device = inner.dtype, inner.device
        self.hermitian, self.assumed_hermitian = inner.hermitian, inner.assumed_hermitian

    @property
    def parameters(self) -> Parameters:
        """One entry a tensor that has chosen places, with the number of them as its shape; an AttributeError without names.

        An index that is not ascending mixes the tensors: all of it then has the name "entries".
        """
        whole = self.inner.parameters
        index = self.index.cpu()
        if bool((index[1:] < index[:-1]).any()):
            return Parameters(("entries",), (torch.Size([len(index)]),))
        ends = torch.tensor(whole.lengths).cumsum(0)
        counts = torch.bincount(torch.searchsorted(ends, index, right=True), minlength=len(whole.names)).tolist()
        found = [(name, torch.Size([count])) for name, count in zip(whole.names, counts, strict=True) if count]
        return Parameters(tuple(name for name, _ in found), tuple(shape for _, shape in found))

    @property
    def rounding(self) -> float:
        """That of A."""
        return self.inner.rounding

    def without_assumption(self) -> IndexedSubmatrix:
        """See :meth:`.Operator.without_assumption`."""
        return IndexedSubmatrix(self.inner.without_assumption(), self.index) if self.assumed_hermitian else self

    def _apply(self, block: Tensor) -> Tensor:
        return self.inner._apply(self._wide(block))[self.index]

    def _apply_adjoint(self, block: Tensor) -> Tensor:
        return self.inner._apply_adjoint(self._wide(block))[self.index]

    def _wide(self, block: Tensor) -> Tensor:
        wide = block.new_zeros(self.inner.shape[1], block.shape[1])
        wide[self.index] = block
        return wide

    def _fingerprint(self) -> str:
        return fingerprint("submatrix", self.inner.fingerprint, self.index)

    def _identity(self) -> dict[str, Any]:
        return combined("IndexedSubmatrix", [self.inner], index=fingerprint(self.index))


def is_index(which: object) -> bool:
    """Whether rows are chosen by places or by a mask, rather than by the names of parameters."""
    if isinstance(which, Tensor | np.ndarray) or isinstance(getattr(which, "index", None), Tensor):
        return True
    if isinstance(which, Mapping):
        return True
    return isinstance(which, Sequence) and not isinstance(which, str) and bool(which) and not isinstance(which[0], str)


def places_of(which: Any, operator: Operator) -> Tensor:
    """The (n,) int64 places that an index or a mask chooses.

    Args:
        which: places (integers, each once), a mask (D,) of booleans, a :class:`.Mask`, or masks by the names of the parameters.
        operator: square, with D rows.

    Raises:
        InvalidType: something else. InvalidArgument: wrong length, places outside or twice, nothing chosen.
    """
    size = operator.shape[0]
    if operator.shape[0] != operator.shape[1]:
        raise InvalidArgument(f"a submatrix by places needs a square operator, got {operator!r}")
    if isinstance(getattr(which, "index", None), Tensor):
        if getattr(which, "size", size) != size:
            raise InvalidArgument(f"the mask is of {which.size} parameters, the operator has {size}: use one params filter")
        which = which.index
    if isinstance(which, Mapping):
        if not hasattr(operator, "parameters"):
            raise InvalidArgument("masks by name need an operator on named parameters: pass one mask (D,), or places")
        which = operator.parameters.flatten({name: torch.as_tensor(mask).bool() for name, mask in which.items()})
    chosen = torch.as_tensor(which).detach().cpu()
    if chosen.dtype == torch.bool and chosen.ndim == 1:
        if len(chosen) != size:
            raise InvalidArgument(f"the mask has {len(chosen)} entries, the operator {size} rows: pass one for each row")
        chosen = chosen.nonzero().flatten()
    if chosen.ndim != 1 or chosen.is_floating_point() or chosen.is_complex() or chosen.dtype == torch.bool:
        raise InvalidType(
            f"a submatrix is chosen by places or a mask, got {tuple(chosen.shape)} of {chosen.dtype}: pass (n,) integers, (D,) "
            "booleans, {name: mask}, a cs.Mask such as ranking.first(k), or names of parameters"
        )
    chosen = chosen.long()
    if not len(chosen):
        raise InvalidArgument("a submatrix of no rows: choose at least one place")
    if not 0 <= int(chosen.min()) <= int(chosen.max()) < size:
        raise InvalidArgument(f"places from {int(chosen.min())} to {int(chosen.max())}: choose among 0 to {size - 1}")
    if len(chosen.unique()) != len(chosen):
        raise InvalidArgument("a place is chosen twice: choose each once")
    return chosen
