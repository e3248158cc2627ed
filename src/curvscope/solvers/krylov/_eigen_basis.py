"""The basis of a block Krylov solve for eigenpairs, and the operator on it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from curvscope.measurement import Meter, Workspace, orthogonalize_column, whole_columns
from curvscope.operators.base import Operator
from curvscope.solvers.krylov._basis import KrylovBasis, KrylovOptions, enlarged, first_coupled
from curvscope.solvers.results import wanted

COUNTS = ("multiplied", "filled", "locked", "restarts", "_drawn", "norm", "searches", "searched", "widened_by")
"""What an expansion is, beside its basis and the action of the operator on it."""


class Expansion(KrylovBasis):
    """An orthonormal basis Q that grows by blocks, and what A does to it.

    ``filled`` columns are in the basis, the first ``multiplied`` of them have been multiplied by A. Everything known is one
    small matrix, ``action`` = Q* A Q[:, :multiplied]: with m = multiplied, its leading m x m part is the projected matrix (from
    computed products, not from the recurrence), and the rows below it are what the products have outside the first m columns,
    which gives the residuals. The first ``locked`` columns are Ritz vectors whose residuals are rounding: restarts leave them
    where they are, and the Rayleigh-Ritz step is for the columns after them.
    """

    def __init__(
        self, operator: Operator, options: KrylovOptions, start: Tensor | None = None, *, workspace: Workspace | None = None
    ) -> None:
        self.locked = 0
        super().__init__(operator.shape[0], operator.dtype, operator.device, options, start, workspace=workspace)

    def save(self, **facts: Any) -> None:
        """Keep the state, with further facts beside it, where the workspace keeps anything."""
        if self.workspace.run is None:
            return
        counts = {name: getattr(self, name) for name in COUNTS}
        tensors = {"action": self.action[: self.filled, : self.filled]}
        if self.parked.shape[1]:
            tensors |= {"parked": self.parked, "on_parked": self.on_parked[:, : self.multiplied]}
        self.workspace.save_state(self.basis, counts | facts, tensors)

    @classmethod
    def saved(cls, operator: Operator, options: KrylovOptions, workspace: Workspace) -> tuple[Expansion, dict[str, Any]] | None:
        """Restore what :meth:`save` stored in an earlier session, and the facts beside it; None if there is nothing.

        Raises:
            DamagedData: the basis or its state was altered.
        """
        found = workspace.state(operator)
        if found is None:
            return None
        basis, (facts, tensors) = found
        made = cls.__new__(cls)
        made._prepare(operator.shape[0], operator.dtype, operator.device, options, workspace)
        for name in COUNTS:
            setattr(made, name, facts.get(name, 0))  # runs of earlier versions have fewer
        made.basis, made.action = basis, enlarged(tensors["action"], basis.shape[1])
        if "parked" in tensors:
            made.parked = tensors["parked"].to(operator.device)
            made.on_parked = torch.zeros(made.parked.shape[1], basis.shape[1], dtype=made.action.dtype, device="cpu")
            made.on_parked[:, : made.multiplied] = tensors["on_parked"]
        made.adopt(options)
        return made, facts

    @property
    def asymmetry(self) -> float:
        """||B - B*||_F / ||B||_F of the projected matrix; rounding, unless the operator is not symmetric.

        ||A|| stands for ||B|| where that is less: locked pairs, and those that restarts leave out, may be most of the norm.
        """
        active = self._active()
        norm = max(float(torch.linalg.vector_norm(active)), self.norm)
        return float(torch.linalg.vector_norm(active - active.mH)) / norm if norm else 0.0

    def step(self, meter: Meter, note: str = "") -> None:
        """Multiply the waiting columns (as many as budget and room allow) and append the new directions of the products."""
        (old, new), before = self._next(meter), self.filled
        product = meter.multiply(self.basis.columns(old, new), note)
        noise = self._noise(product)
        if new == old + 1 and self._add_column(product, old, noise):
            self._fill(new + self.options.block_size)
            return
        product = self._off_parked(product, (old, new))
        coupled_from = first_coupled(self.action[old:new, :old], noise)  # A is symmetric, so it is known
        rest, on_basis, on_rest = self._new(product, coupled_from=coupled_from, noise=noise)
        self._append(rest)
        self.action[:before, old:new] = on_basis
        self.action[before : self.filled, old:new] = on_rest[: self.filled - before]
        self.multiplied = new
        self._fill(new + self.options.block_size)

    def _add_column(self, product: Tensor, old: int, noise: float) -> bool:
        """Append what one product brings, in the fewest calls; False, and nothing done, where that takes more care."""
        whole, filled = whole_columns(self.basis), self.filled
        if whole is None or self.parked.shape[1] or filled >= self.capacity or self.workspace.panels is not None:
            return False
        action = self.action.numpy()  # on numbers this few, calls of NumPy take a third of the time of PyTorch's
        known = abs(action[old, :old]) > 10 * noise  # A is symmetric
        coupled_from = int(known.argmax()) if known.any() else old
        found = orthogonalize_column(product[:, 0], whole[:, :filled], coupled_from, noise)
        if found is None:
            return False
        rest, first, second, size = found
        whole[:, filled] = rest.div_(size)
        action[:filled, old] = second.numpy()
        action[coupled_from:filled, old] += first.numpy()
        action[filled, old] = size
        self.filled, self.multiplied = filled + 1, old + 1
        return True

    def ritz(self) -> tuple[Tensor, Tensor, Tensor]:
        """Values, rotation (m x k: the vectors are Q[:, :m] times it) and residual norms of the wanted pairs, at most k."""
        values, rotation = self._eigh()
        chosen = wanted(values, self.options.k, self.options.which)
        rotation = rotation[:, chosen]
        self.parts = self._outside() @ rotation
        return values[chosen], rotation, torch.linalg.vector_norm(self.parts, dim=0)

    def restart(self) -> None:
        """Keep the wanted Ritz vectors and half of the others that fit, lock what is exact, and continue."""
        # A thick restart keeps Ritz vectors Y and the waiting block W. A Y = Y diag(values) + W outside holds for any set of
        # Ritz vectors: the next products couple to the kept ones by `outside` alone, and Q* A Q stays known without a product.
        # Half of the unwanted vectors are kept as well: they deflate what lies next to the wanted end, which every restart
        # would otherwise have to find again. Columns that wait are not multiplied, so they are carried over as they are.
        width = self.waiting
        newest = self.basis.columns(self.multiplied, self.filled).clone()
        values, rotation, outside = self._kept()
        self.basis = self.workspace.rotated(self.basis, rotation[self.locked :, self.locked :], self.locked)
        kept = len(values)
        self.action.zero_()
        self.action[:kept, :kept] = torch.diag(values).to(self.action.dtype)
        self.locked = int((torch.linalg.vector_norm(outside, dim=0) == 0).long().cumprod(0).sum())
        self.action[kept : kept + width, :kept] = outside[:width]
        self._restarted(outside)
        self.multiplied = self.filled = kept
        self._append(newest)
        self.restarts += 1

    # --- inside -----------------------------------------------------------------------------------------------------------

    def _kept(self) -> tuple[Tensor, Tensor, Tensor]:
        """Values, rotation and outside parts of the pairs that a restart keeps: the locked ones, those to lock now, others.

        To be locked a pair must be wanted, and its residual at most u ||A||; it then counts as 0. If a locked pair is no longer
        wanted, as a larger one has come up, all are unlocked first.
        """
        k = self.options.k
        values, rotation = self._eigh()
        best = wanted(values, k, self.options.which)
        if int((best < self.locked).sum()) < self.locked:
            self.locked = 0
            values, rotation = self._eigh()
            best = wanted(values, k, self.options.which)
        outside = self._outside() @ rotation
        # Below u ||A|| a residual is rounding. Rotating such vectors again would add rounding at every restart:
        # they are locked, their coupling set to 0, and the Rayleigh-Ritz step is for the others.
        exact = torch.zeros(len(values), dtype=torch.bool, device="cpu")
        exact[best] = torch.linalg.vector_norm(outside[:, best], dim=0) <= self.unit * self.norm
        outside[:, exact] = 0
        chosen = wanted(values, self._most_kept(), self.options.which)
        first = chosen[chosen < self.locked].sort().values  # stay where they are
        later = chosen[chosen >= self.locked]
        chosen = torch.cat([first, later[exact[later]], later[~exact[later]]])
        return values[chosen], rotation[:, chosen], outside[:, chosen]

    def _active(self) -> Tensor:
        """The projected matrix of the columns that are not locked."""
        return self.action[self.locked : self.multiplied, self.locked : self.multiplied]

    def _eigh(self) -> tuple[Tensor, Tensor]:
        """Ritz values and rotation (m x m), the locked ones first."""
        active, locked = self._active(), self.locked
        if not locked:
            values, rotation = torch.linalg.eigh((active + active.mH) / 2)
            return values, rotation
        values = self.action.diagonal()[: self.multiplied].real.clone()
        rotation = torch.eye(self.multiplied, dtype=self.action.dtype, device="cpu")
        values[locked:], rotation[locked:, locked:] = torch.linalg.eigh((active + active.mH) / 2)
        return values, rotation
