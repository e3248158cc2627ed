"""Preconditioners of a system: what a caller passes, and what known eigenpairs give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.operators import as_operator
from curvscope.operators.base import Operator
from curvscope.solvers import Solution
from curvscope.solvers.results import LowRank
from curvscope.systems._inner import Preconditioner
from curvscope.tall import InMemory, TallMatrix, gram


class Given:
    """A preconditioner that a caller passed: an operator that approximates the inverse, or its diagonal."""

    def __init__(self, given: Any, like: Operator) -> None:
        size = like.shape[0]
        if isinstance(given, np.ndarray):
            given = torch.from_numpy(given)
        if isinstance(given, Tensor) and given.ndim == 1:
            if len(given) != size or not bool((given > 0).all() & torch.isfinite(given).all()):
                raise InvalidArgument(f"a preconditioner that is a diagonal has {size} positive entries, got {len(given)}")
            entries = given.detach().to(like.device, torch.float64)[:, None]
            self.apply: Callable[[Tensor], Tensor] = lambda block: entries * block
            return
        operator = as_operator(given)
        if operator.shape != like.shape or operator.device != like.device:
            raise InvalidArgument(f"the preconditioner is {operator!r}, the matrix {like!r}: shape and device must agree")
        if isinstance(operator, LowRank) and not operator.is_inverse:
            operator = operator.inverted()
        self.apply = lambda block: (operator @ block.to(operator.dtype)).double()


class Deflated:
    r"""V diag(1 / |values|) V\* + (I - V V\*) M (I - V V\*): known pairs solved for, another preconditioner for the rest.

    Magnitudes keep it positive definite, as MINRES needs. Pairs need not be exact: it is a preconditioner, not a projection.

    Args:
        vectors: V, (D, k).
        values: float64 (k,), of the damped matrix.
        inner: M; None: the identity over the smallest magnitude, so that what is known joins what is not.
    """

    def __init__(self, vectors: TallMatrix, values: Tensor, inner: Preconditioner | None) -> None:
        sizes = values.abs()
        if not bool(sizes.any()):
            raise InvalidArgument("all eigenvalues in deflate are -damping: the system is singular; choose another damping")
        self.vectors, self.inner = vectors, inner
        sizes = sizes.clamp(min=float(sizes.max()) * torch.finfo(torch.float64).eps)
        self.weights, self.scale = 1 / sizes, 1 / float(sizes.min())

    def apply(self, block: Tensor) -> Tensor:
        """See :class:`.Preconditioner`."""
        parts = self._parts(block)
        if self.inner is None:
            return self.scale * block + self._of((self.weights - self.scale)[:, None] * parts, block)
        rest = self.inner.apply(block - self._of(parts, block))
        return rest - self._of(self._parts(rest), block) + self._of(self.weights[:, None] * parts, block)

    def _parts(self, block: Tensor) -> Tensor:
        return gram(self.vectors, InMemory(block), double=True)

    def _of(self, coefficients: Tensor, like: Tensor) -> Tensor:
        made = torch.empty_like(like)
        small = coefficients.to(like.device)
        for panel in self.vectors.panels():
            made[panel] = self.vectors.rows(panel).to(like.dtype) @ small
        return made


def preconditioner_of(operator: Operator, damping: float, deflate: Solution | None, given: Any) -> Preconditioner | None:
    """Return what both together make of the inverse of A + damping I; None: nothing is known."""
    own = None if given is None else Given(given, operator)
    if deflate is None or not deflate.k:
        return own
    return Deflated(deflate.eigenvectors, deflate.eigenvalues + damping, own)
