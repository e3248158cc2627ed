"""Optional abilities of an operator, with defaults that do nothing: solvers ask for these, not for the operator's type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from curvscope.operators.base import Operator
    from curvscope.operators.collective import Processes
    from curvscope.operators.objective import Objective
    from curvscope.operators.products import Verdict


class Capabilities:
    """Abilities that an operator may have beside its products; :class:`.Operator` has all of them.

    A subclass of your own overrides those that it has. Everything else stays at its default, which never changes a result.

    Attributes:
        semidefinite: whether no eigenvalue is negative, so that a plan prefers methods for such matrices.
        objective: the loss and data that the matrix is of; its parameters and buffers go into a run. None: of no loss.
        memory: bytes that products may use; None: not bounded.
        depends_on_order: whether the matrix changes with the order of the samples or with the mini-batches.
        is_mean_over_data: whether matrices of parts of the data, weighted by loss terms, add up to the matrix of all data.
        process_group: processes that make its products together, see :class:`.Grouped`; None: this one alone.

    >>> import torch
    >>> from curvscope.operators import as_operator
    >>> A = as_operator(torch.eye(3))
    >>> A.semidefinite, A.predicted_bytes(8), A.cost_curve((1, 2)), A.exactly(), A.strategy_report, A.view() is A
    (False, 0, {}, None, {}, True)
    """

    if TYPE_CHECKING:  # as properties, because an operator may have either a value or a property of its own

        @property
        def semidefinite(self) -> bool:
            """True if no eigenvalue is negative."""

        @property
        def objective(self) -> Objective | None:
            """Loss and data that the matrix is of."""

        @property
        def memory(self) -> int | None:
            """Bytes that products may use."""

        @property
        def depends_on_order(self) -> bool:
            """True if the matrix changes with the order of the samples."""

        @property
        def is_mean_over_data(self) -> bool:
            """True if matrices of parts of the data add up to that of all."""

        @property
        def process_group(self) -> Processes | None:
            """Processes that make the products together."""

    else:
        semidefinite = depends_on_order = is_mean_over_data = False
        objective = memory = process_group = None

    @property
    def stored_objective(self) -> Objective | None:
        """Objective whose parameters and buffers go into a run: that of the matrix."""
        return self.objective

    @property
    def strategy_report(self) -> dict[str, Any]:
        """Description of how products are computed, for provenance and for :meth:`view`; empty: there is one way only."""
        return {}

    def view(self, *, memory: int | None = None, strategy_report: Mapping[str, Any] | None = None) -> Operator:
        """Return this matrix for one solve, which may set it up for itself: nothing that it does changes the operator.

        What is expensive (traced programs, linearisations) is shared; settings are not. By default the operator itself, which
        is right for operators without settings.

        Args:
            memory: bytes that products may use, unless the operator has a bound already; None: as the operator.
            strategy_report: of an earlier session whose products are to have the same bits; None: as the operator.
        """
        return self  # type: ignore[return-value]  # every operator inherits this

    def predicted_bytes(self, columns: int) -> int:
        """Return the memory that a product with so many vectors takes beside the block; 0: not known."""
        return 0

    def cost_curve(self, widths: Sequence[int]) -> dict[int, float]:
        """Return measured seconds a vector for blocks of each width; empty: not known before products are made."""
        return {}

    def exactly(self) -> Operator | None:
        """Return this matrix with products in full float32 or float64, where they are coarser; None: they are not."""
        return None

    def in_dtype(self, dtype: torch.dtype) -> Operator | None:
        """Return this matrix with all of the computation in another dtype; None: it cannot be built again."""
        return None

    def on(self, objective: Objective) -> Operator | None:
        """Return the matrix of the same kind of another objective; None: it is of no objective."""
        return None

    def derivatives(self) -> Verdict | None:
        """Verify the derivatives that products are made of; None: products are taken at their word."""
        return None
