"""Diagonal matrices as operators: second moments of optimizers, diagonals of Fisher matrices."""

from __future__ import annotations

from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.operators._algebra import Arithmetic
from curvscope.operators.base import Operator
from curvscope.operators.fingerprint import fingerprint


class Diagonal(Arithmetic):
    """The matrix with given entries on its diagonal, real, of the dtype and on the device of another operator.

    >>> import torch
    >>> from curvscope.operators import as_operator
    >>> (Diagonal(torch.tensor([2.0, 3.0]), as_operator(torch.eye(2))) @ torch.ones(2)).tolist()
    [2.0, 3.0]
    """

    hermitian = True

    def __init__(self, entries: Tensor, like: Operator) -> None:
        if entries.ndim != 1 or len(entries) != like.shape[0] or entries.is_complex():
            raise InvalidArgument(
                f"a diagonal of shape {tuple(entries.shape)} for D = {like.shape[0]}: pass {like.shape[0]} real numbers"
            )
        self.entries = entries.detach().to(like.device, like.dtype)
        self.shape, self.dtype, self.device = like.shape, like.dtype, like.device

    @property
    def semidefinite(self) -> bool:
        """True if no entry is negative."""
        return not bool((self.entries < 0).any())

    def _apply(self, block: Tensor) -> Tensor:
        return self.entries[:, None] * block

    def _fingerprint(self) -> str:
        return fingerprint("diagonal", self.entries)
