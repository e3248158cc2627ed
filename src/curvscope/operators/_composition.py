"""Products of two operators, and submatrices by index or mask: matrices again, known by their products."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.operators._algebra import Arithmetic, parameters_of
from curvscope.operators._identity import combined
from curvscope.operators._parameters import Parameters
from curvscope.operators.base import Operator
from curvscope.operators.fingerprint import fingerprint
from curvscope.system import checked, integer

if TYPE_CHECKING:
    from curvscope.operators.collective import Processes


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
        """Parameters of both factors; an AttributeError where one has none."""
        if hasattr(self.left, "parameters"):
            return parameters_of(self.right)
        return parameters_of(self.left)

    @property
    def process_group(self) -> Processes | None:
        """That of a factor that has one."""
        return self.left.process_group or self.right.process_group

    @property
    def rounding(self) -> float:
        """The larger one of the factors'."""
        return max(self.left.rounding, self.right.rounding)

    def view(self, *, memory: int | None = None, strategy_report: Mapping[str, Any] | None = None) -> Product:
        """See :meth:`.Capabilities.view`; each factor has half of the memory."""
        half = None if memory is None else max(1, memory // 2)
        return self._view_of(left=self.left.view(memory=half), right=self.right.view(memory=half))

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
        ends = torch.tensor(whole.lengths, device="cpu").cumsum(0)
        counts = torch.bincount(torch.searchsorted(ends, index, right=True), minlength=len(whole.names)).tolist()
        found = [(name, torch.Size([count])) for name, count in zip(whole.names, counts, strict=True) if count]
        return Parameters(tuple(name for name, _ in found), tuple(shape for _, shape in found))

    @property
    def process_group(self) -> Processes | None:
        """That of A."""
        return self.inner.process_group

    @property
    def rounding(self) -> float:
        """Rounding of A."""
        return self.inner.rounding

    def without_assumption(self) -> IndexedSubmatrix:
        """See :meth:`.Operator.without_assumption`."""
        return IndexedSubmatrix(self.inner.without_assumption(), self.index) if self.assumed_hermitian else self

    @property
    def semidefinite(self) -> bool:
        """True if A is."""
        return self.inner.semidefinite

    def view(self, *, memory: int | None = None, strategy_report: Mapping[str, Any] | None = None) -> IndexedSubmatrix:
        """See :meth:`.Capabilities.view`; of A."""
        return self._view_of(inner=self.inner.view(memory=memory))

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


class Adjoint(Arithmetic):
    """A*, known by A's products with its adjoint."""

    def __init__(self, inner: Operator) -> None:
        self.inner = inner
        self.shape, self.dtype, self.device = (inner.shape[1], inner.shape[0]), inner.dtype, inner.device
        self.hermitian, self.assumed_hermitian = inner.hermitian, inner.assumed_hermitian

    @property
    def process_group(self) -> Processes | None:
        """That of A."""
        return self.inner.process_group

    @property
    def rounding(self) -> float:
        """Rounding of A."""
        return self.inner.rounding

    def _apply(self, block: Tensor) -> Tensor:
        return self.inner._apply_adjoint(block)

    def _apply_adjoint(self, block: Tensor) -> Tensor:
        return self.inner._apply(block)

    def _fingerprint(self) -> str:
        return fingerprint("adjoint", self.inner.fingerprint)

    def _identity(self) -> dict[str, Any]:
        return combined("Adjoint", [self.inner])


@checked
def identity(like: Operator | int, *, dtype: torch.dtype | None = None) -> Arithmetic:
    """The identity matrix as an operator, for ``H + mu * cs.identity(H)``; :meth:`.Arithmetic.shift` gives the same sum.

    Args:
        like: an operator, of whose shape, dtype and device it is, or D.
        dtype: where D is given; default: PyTorch's default.

    >>> from curvscope.operators import as_operator
    >>> A = as_operator(torch.ones(2, 2))
    >>> (A + 0.5 * identity(A)).to_dense().tolist()
    [[1.5, 1.0], [1.0, 1.5]]
    """
    return Identity(like, dtype)


class Identity(Arithmetic):
    """The identity matrix; see :func:`identity`."""

    hermitian = True

    def __init__(self, like: Operator | int, dtype: torch.dtype | None = None) -> None:
        if isinstance(like, Operator):
            if like.shape[0] != like.shape[1]:
                raise InvalidArgument(f"the identity is square, got {like!r}")
            self.shape, self.dtype, self.device = like.shape, dtype or like.dtype, like.device
        else:
            self.shape, self.dtype = (integer("like", like),) * 2, dtype or torch.get_default_dtype()
            self.device = torch.get_default_device()

    def _apply(self, block: Tensor) -> Tensor:
        return block.clone()

    def _fingerprint(self) -> str:
        return fingerprint("identity", self.shape)


Operator._adjoint = staticmethod(Adjoint)
Operator._composed = staticmethod(multiplied)
Arithmetic._at_places = IndexedSubmatrix
