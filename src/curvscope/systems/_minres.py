"""Block minimal residuals for symmetric systems that need not be definite."""

from __future__ import annotations

import torch
from torch import Tensor

from curvscope.systems._inner import Orthonormal, Preconditioner, orthonormal, small_gram
from curvscope.systems._iteration import Iterated, Multiply, within_reach

MOST_SMALL = 1500
"""Rows of the projected matrix up to which its extreme eigenvalues are computed at the end."""
SUSPECT = 1e-4
"""||A r|| over ||A|| ||r|| from which on x is kept aside: r may be what no x can reach. It falls to about 1e-8 in float64."""
ROUNDING_UNITS_LEFT = 100
"""Units of rounding of A x, as a share of the residual, at which x grows without use: the system is singular to rounding."""


def block_minres(
    multiply: Multiply, right: Tensor, targets: Tensor, budget: int, preconditioner: Preconditioner | None, unit: float
) -> Iterated:
    r"""Minimise the residual norms of A X = B over a block Krylov space, for a symmetric A.

    Block Lanczos in the inner product of a positive definite M, three terms a step, and a QR factorisation of its block
    tridiagonal matrix, updated by one small orthogonal matrix a step. With M the norm that is minimised is r* M r; residuals
    themselves are followed beside it, and their own norms decide.

    Args: as :func:`.block_cg`, for a symmetric A.

    Cost: r products a step, r <= n the rank of the Lanczos block; memory: 8 blocks, 11 with a preconditioner.
    Source: Paige and Saunders (1975); Choi, Paige and Saunders (2011) for the test of singular systems.
    """
    return _Minres(multiply, right, targets, preconditioner, unit).run(budget)


class _Minres:
    """State of the iteration: two Lanczos blocks, two blocks of search directions, two small orthogonal matrices."""

    def __init__(
        self, multiply: Multiply, right: Tensor, targets: Tensor, preconditioner: Preconditioner | None, unit: float
    ) -> None:
        self.multiply, self.targets, self.preconditioner, self.unit = multiply, targets, preconditioner, unit
        self.now = orthonormal(right, preconditioner)
        nothing = right[:, :0]
        self.before, self.coupling = Orthonormal(nothing, nothing, right.new_zeros(0, 0)), _small(0, self.now.basis.shape[1])
        self.rest = self.now.factor
        """What is left of the right-hand side in the rotated basis; its columns have the norms of the residuals."""
        self.turns = [_small(0, 0).new_zeros(0, 0)] * 2
        self.searches = [nothing, nothing]
        self.images = [nothing, nothing]
        self.residual = right.clone() if preconditioner is not None else None
        self.found = Iterated(torch.zeros_like(right), "done")
        self.columns: list[tuple[Tensor, Tensor]] = []
        self.norm = self.image_norm = 0.0
        self.aside: Tensor | None = None
        """x where ||A r|| was least, relative to ||A|| ||r||."""
        self.least, self.rest_then = SUSPECT, 0.0

    def run(self, budget: int) -> Iterated:
        """Step until all columns are done, the budget is spent, or x grows without making residuals smaller."""
        while self.now.basis.shape[1] and self._goes_on():
            if budget < self.now.basis.shape[1]:
                self.found.outcome = "budget"
                break
            budget -= self.now.basis.shape[1]
            self._step()
            if self._is_hopeless():
                self.found.outcome = "singular"
                break
        if self.found.outcome == "singular" and self.aside is not None:
            self.found.x = self.aside
        self._note_ends()
        return self.found

    def _goes_on(self) -> bool:
        return bool((self._norms() > within_reach(self.targets, self.found.x, self.image_norm, self.unit)).any())

    def _norms(self) -> Tensor:
        norms: Tensor = torch.linalg.vector_norm(self.rest if self.residual is None else self.residual, dim=0)
        return norms.cpu()

    def _step(self) -> None:
        """Make one step."""
        images = self.multiply(self.now.mapped)
        ratios = torch.linalg.vector_norm(images, dim=0) / torch.linalg.vector_norm(self.now.mapped, dim=0)
        self.image_norm = max(self.image_norm, float(ratios.max()))
        diagonal = small_gram(self.now.mapped, images)
        diagonal = (diagonal + diagonal.T) / 2
        following = images - _times(self.now.basis, diagonal) - _times(self.before.basis, self.coupling)
        # Once more against the present block, whose coefficients are the larger ones: rounding of the first subtraction.
        again = small_gram(self.now.mapped, following)
        following -= _times(self.now.basis, again)
        diagonal += (again + again.T) / 2
        # What is left after subtraction is rounding up to some units of what was subtracted.
        coming = orthonormal(following, self.preconditioner, 10 * self.unit * max(self.norm, float(diagonal.norm())))
        self.norm = max(self.norm, float(diagonal.norm()), float(coming.factor.norm()))
        self.columns.append((diagonal, coming.factor))
        far, near, pivot = self._rotated(diagonal)
        self._keep_aside(pivot)
        full, triangle = torch.linalg.qr(torch.cat([pivot, coming.factor]), mode="complete")
        width = pivot.shape[1]
        triangle = triangle[:width]
        least = float(triangle.diagonal().abs().min())
        if least <= 10 * self.unit * self.norm:  # the projected matrix is singular: no step along this block
            self.before, self.now, self.rest = self.now, coming, self.rest[:0]
            self.found.outcome = "singular"
            return
        turned = full.T @ torch.cat([self.rest, _small(coming.factor.shape[0], self.rest.shape[1])])
        step, self.rest = turned[:width], turned[width:]
        search = self._next(self.searches, self.now.mapped, far, near, triangle)
        self.found.x += _times(search, step)
        if self.residual is not None:
            self.residual -= _times(self._next(self.images, images, far, near, triangle), step)
        self.turns = [self.turns[1], full.T]
        self.before, self.now, self.coupling = self.now, coming, coming.factor.T

    def _rotated(self, diagonal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The new column of the tridiagonal matrix after the last two rotations: two blocks above the pivot, and it."""
        above, width = self.coupling, diagonal.shape[0]
        older, last = self.turns
        if not len(last):
            return _small(0, width), _small(0, width), diagonal
        far = _small(0, width)
        if len(older):
            lifted = older @ torch.cat([_small(older.shape[0] - above.shape[0], width), above])
            far, above = lifted[: older.shape[0] - above.shape[0]], lifted[older.shape[0] - above.shape[0] :]
        turned = last @ torch.cat([above, diagonal])
        return far, turned[: above.shape[0]], turned[above.shape[0] :]

    def _keep_aside(self, pivot: Tensor) -> None:
        """Keep x where it is nearest to a least-squares solution: the pivot's row holds A r, for r before this step."""
        sizes = torch.linalg.vector_norm(self.rest, dim=0)
        open_columns = (self._norms() > self.targets) & (sizes > 0)
        if not bool(open_columns.any()) or not self.norm:
            return
        mapped = torch.linalg.vector_norm(pivot.T @ self.rest, dim=0)
        share = float((mapped[open_columns] / sizes[open_columns]).max()) / self.norm
        if share < self.least:
            self.aside, self.least, self.rest_then = self.found.x.clone(), share, float(self._norms()[open_columns].max())

    def _is_hopeless(self) -> bool:
        """Return whether x has grown so large that A x is rounding, while residuals stayed about as they were.

        What they seem to fall by then is rounding too; a system that is only ill-conditioned makes them fall in earnest.
        """
        if self.aside is None:
            return False
        norms = self._norms()
        left = float(norms[norms > self.targets].max()) if bool((norms > self.targets).any()) else 0.0
        if not self.now.basis.shape[1]:  # the space is exhausted, and nothing is left by its own account
            left = self.rest_then
        sizes = torch.linalg.vector_norm(self.found.x, dim=0).cpu()
        return left > 0.01 * self.rest_then and float(sizes.max()) * self.image_norm * self.unit * ROUNDING_UNITS_LEFT > left

    @staticmethod
    def _next(blocks: list[Tensor], fresh: Tensor, far: Tensor, near: Tensor, triangle: Tensor) -> Tensor:
        """The next block of a three-term recurrence, (fresh - blocks @ coefficients) @ triangle^-1; shifts the blocks."""
        made = fresh - _times(blocks[1], near)
        if len(far):
            made -= _times(blocks[0], far)
        solved: Tensor = torch.linalg.solve_triangular(triangle.to(made.device), made, upper=True, left=False)
        blocks[0], blocks[1] = blocks[1], solved
        return solved

    def _note_ends(self) -> None:
        """The extreme eigenvalues of the projected matrix, where it is small enough."""
        size = sum(len(diagonal) for diagonal, _ in self.columns)
        if not size or size > MOST_SMALL:
            return
        matrix, place = torch.zeros(size, size, dtype=torch.float64, device="cpu"), 0
        for diagonal, below in self.columns:
            width, end = len(diagonal), place + len(diagonal)
            matrix[place:end, place:end] = diagonal
            rows = min(below.shape[0], size - end)
            matrix[end : end + rows, place : place + width] = below[:rows]
            place = end
        values = torch.linalg.eigvalsh(matrix)  # of the lower triangle
        self.found.low, self.found.high = float(values[0]), float(values[-1])


def _times(block: Tensor, small: Tensor) -> Tensor:
    return block @ small.to(block.device)


def _small(rows: int, columns: int) -> Tensor:
    return torch.zeros(rows, columns, dtype=torch.float64, device="cpu")
