"""Search for wanted eigenvalues that a converged solve has missed: random directions outside its vectors, with a bound."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import hypot, inf, isfinite
from typing import NamedTuple

import torch
from torch import Tensor

from curvscope.certificates import Reach, log_least_share, unseen_beyond
from curvscope.measurement import split_off, whole_columns
from curvscope.tall import InMemory, TallMatrix, gram, small_dtype, subtract

FAILURE = 1e-3
"""Probability with which a search may miss what it excludes."""
NEAR, NEAR_SCALE = 0.02, 1e-3
"""How far beyond the last wanted eigenvalue there may be some that are not excluded: relative to it, and to ||A||.

The steps that it takes to exclude more grow with the inverse root of the distance over ||A||.
"""
TOWARDS_NEXT = 0.9
"""Share of the distance to the next larger wanted eigenvalue, where a further copy of that would lie."""
ROUNDING = 100
"""Rounding units of ||A|| within which eigenvalues are the same."""
STORED_BYTES = 1 << 26
"""Search vectors that are stored; beyond, what was found is made by repeating the products."""
MOST_FOUND = 8
"""Vectors that are made by repeating the products."""
SETTLED = 0.3
"""Share of the tolerance to which missed pairs are found: they must still be within it beside those found before."""
MOST_RATIO = 1e3
"""Bounds of missed eigenvalues, over the last wanted one, beyond which they are told as numbers: it may be 0 or rounding."""
LOOK_AGAIN = 1.1
"""Growth of the search after which to look again whether they have converged."""

Multiply = Callable[[Tensor, int], Tensor]
"""``multiply(block, step)``: the product with a (D, 1) block, the ``step``-th of the search."""


class End(NamedTuple):
    """One end of the wanted eigenvalues.

    Attributes:
        side: 1: wanted ones are above; -1: below.
        edge: the last wanted one.
        missed: a Ritz value beyond this place shows that one was missed.
        excluded: the search may end when nothing lies beyond this place.
        wanted: the wanted ones times ``side``, for LM their magnitudes.
    """

    side: int
    edge: float
    missed: float
    excluded: float
    wanted: Tensor


@dataclass(frozen=True)
class Evidence:
    """Result of a search for missed eigenvalues.

    Attributes:
        bounds: (side, edge, bound) for each end: there is no further eigenvalue beyond the bound.
        sufficient: whether the bounds are as near to the edges as they need be.
        failure: probability that one of them is wrong, of all searches of the solve together.
        products: of these searches.
    """

    bounds: tuple[tuple[int, float, float], ...] = ()
    sufficient: bool = True
    failure: float = 0.0
    products: int = 0

    @classmethod
    def none(cls, sought: list[End]) -> Evidence:
        """Of no search at all."""
        return cls(tuple((end.side, end.edge, end.side * inf) for end in sought), sufficient=False, failure=FAILURE)

    def describe(self, which: str) -> str:
        """The evidence as part of a status line."""
        if not self.bounds:
            return "the whole space was searched: none was missed"
        if which in ("LM", "singular"):
            edge, bound = min(abs(b[1]) for b in self.bounds), max(abs(b[2]) for b in self.bounds)
            name = "singular value" if which == "singular" else "eigenvalue of magnitude"
            last = "the last one" if which == "singular" else "|lambda_k|"
            if not isfinite(bound):
                return "nothing is shown about missed ones"
            beyond = f"{_upwards(bound / edge)} {last}" if bound < MOST_RATIO * edge else f"{bound:.2g}"
            text = f"no {name} above {beyond} was missed"
        else:
            shown = [f"{'above' if side > 0 else 'below'} {bound:.6g}" for side, _, bound in self.bounds if isfinite(bound)]
            if not shown:
                return "nothing is shown about missed ones"
            text = f"no eigenvalue {' or '.join(shown)} was missed"
        return f"{text}, except with probability {self.failure:.0e}".replace("e-0", "e-")


def _upwards(ratio: float) -> str:
    """A ratio above 1 with three digits of its excess, rounded up."""
    excess = max(ratio - 1, 0.0)
    return f"{1 + excess * 1.005:.3f}" if excess < 0.1 else f"{ratio * 1.005:.3g}"


def ends(values: Tensor, which: str, tol: float, scale: float, unit: float) -> list[End]:
    """The ends behind which to search, for k wanted Ritz values in the documented order."""
    least, near = ROUNDING * unit * scale, NEAR_SCALE * scale
    match which:
        case "LM":
            end = _end(values.abs(), 1, tol, least, near)
            return [end, End(-1, -end.edge, -end.missed, -end.excluded, end.wanted)]
        case "LA":
            return [_end(values, 1, tol, least, near)]
        case "SA":
            return [_end(values, -1, tol, least, near)]
    lower = len(values) // 2
    both = [_end(values[: len(values) - lower], 1, tol, least, near)]
    return both + ([_end(values[len(values) - lower :], -1, tol, least, near)] if lower else [])


def _end(values: Tensor, side: int, tol: float, least: float, near: float) -> End:
    """The end of these values, the wanted ones of one side."""
    inward = side * values
    edge = float(inward.min())
    missed = max(tol * abs(edge), least)
    further = inward[inward > edge + 2 * missed]
    room = [max(NEAR * abs(edge), near)] + ([TOWARDS_NEXT * (float(further.min()) - edge)] if len(further) else [])
    excluded = max(missed, min(room))
    return End(side, side * edge, side * (edge + missed), side * (edge + excluded), inward)


@dataclass
class Search:
    """Lanczos from one random vector on the complement of the columns of V.

    Only the last two vectors and V are orthogonalised against: copies of converged Ritz values that this brings say nothing
    new, and no more than three vectors are needed whatever the number of steps.

    Args:
        multiply: products with the Hermitian operator.
        vectors: V, (D, k), orthonormal.
        start: (D, 1), Gaussian.
        sought: the ends.
        which: the order of the wanted ones.
        tol: to which those that were missed are found, relative.
    """

    multiply: Multiply
    vectors: TallMatrix
    start: Tensor
    sought: list[End]
    which: str
    tol: float
    alphas: list[float] = field(default_factory=list)
    betas: list[float] = field(default_factory=list)
    _whole: list[Tensor] | None = None
    _earlier: Tensor | None = None
    _copied: int = 0
    _filled: int = 0

    def run(self, most: int) -> Evidence | Tensor:
        """Search with at most so many products: the evidence, or vectors (D, r) that show what was missed."""
        size = self.start.shape[0]
        needed = -log_least_share(size, FAILURE)
        inside = [Reach(end.missed, end.side) for end in self.sought]
        outside = [Reach(end.excluded, end.side) for end in self.sought]
        stored: list[Tensor] | None = []
        steps, shown, next_look = min(most, size - self.vectors.shape[1]), False, 0
        for vector, alpha, beta in self._steps(steps):
            if stored is not None:
                stored.append(vector)
            self.alphas.append(alpha)
            self.betas.append(beta)
            if stored is not None and len(stored) * vector.nbytes > STORED_BYTES:
                if shown:  # these vectors were orthogonalised against all before: to repeat the products gives others
                    found = self._settled(stored, final=True)
                    assert found is not None, "final: as they are"
                    return found
                stored = None
            if not shown:
                for reach in (*inside, *outside):
                    reach.update(alpha, beta)
                shown = any(reach.passed for reach in inside)
            if not shown and all(reach.log_sum >= needed for reach in outside):
                return self._evidence(sufficient=True)
            if shown and (stored is None or len(self.alphas) >= next_look):
                found = self._settled(stored, final=stored is None or not beta)
                if found is not None:
                    return found
                next_look = int(LOOK_AGAIN * len(self.alphas)) + 1
                self._whole = stored if self._whole is None else self._whole
        if shown:
            found = self._settled(stored, final=True)
            if found is not None:
                return found
        return self._evidence(sufficient=len(self.alphas) == size - self.vectors.shape[1] or not steps)

    def _steps(self, steps: int) -> Iterator[tuple[Tensor, float, float]]:
        """Lanczos vectors with their coefficients, until the space is exhausted."""
        unit = torch.finfo(self.start.dtype).eps
        vector, before, beta, largest = self._orthogonal(self.start.clone()), None, 0.0, 0.0
        vector /= _norm(vector)
        for step in range(steps):
            product = self.multiply(vector, step)
            if product.data_ptr() == vector.data_ptr():
                product = product.clone()
            alpha = _inner(vector, product)
            product = torch.add(product, vector, alpha=-alpha)
            if before is not None:
                product.sub_(before, alpha=beta)
            product = self._orthogonal(product)
            if self._whole:  # while Ritz values converge that are wanted: no copies of them
                self._off_earlier(product)
            product.sub_(vector, alpha=_inner(vector, product))
            following = _norm(product)
            largest = max(largest, hypot(beta, alpha, following))  # of the product, beside its part along V
            ended = following <= 10 * unit * largest
            yield vector, alpha, 0.0 if ended else following
            if ended:
                return
            vector, before, beta = product / following, vector, following

    def _orthogonal(self, block: Tensor) -> Tensor:
        """The block without its parts along V, in place."""
        if not self.vectors.shape[1]:
            return block
        columns = whole_columns(self.vectors)
        if columns is None:
            subtract(block, self.vectors, gram(self.vectors, InMemory(block)))
        else:
            block[:, 0].addmv_(columns, torch.mv(columns.mH, block[:, 0]), alpha=-1)
        return block

    def _off_earlier(self, block: Tensor) -> None:
        """Take from the block, in place, its parts along all vectors so far.

        These have lost orthogonality among one another before: taken one by one they would make the block grow. An orthonormal
        basis of them is extended instead.
        """
        vectors = self._whole or []
        if self._earlier is None:
            self._earlier = torch.linalg.qr(torch.cat(vectors, dim=1)).Q.mT.contiguous().mT
            self._filled = self._earlier.shape[1]
        for vector in vectors[self._copied :] if self._copied else []:
            self._extend_earlier(vector)
        self._copied = len(vectors)
        earlier = InMemory(self._earlier[:, : self._filled])
        subtract(block, earlier, gram(earlier, InMemory(block)))

    def _extend_earlier(self, vector: Tensor) -> None:
        """Add a direction to the orthonormal basis of the vectors so far, if it is new."""
        if self._earlier is None:
            return
        if self._filled == self._earlier.shape[1]:
            larger = InMemory.empty(len(vector), 2 * self._filled, vector.dtype, vector.device).tensor
            larger[:, : self._filled] = self._earlier
            self._earlier = larger
        rest = split_off(vector, InMemory(self._earlier[:, : self._filled]), noise=0.1)[0]
        self._earlier[:, self._filled : self._filled + rest.shape[1]] = rest
        self._filled += rest.shape[1]

    def _tridiagonal(self) -> Tensor:
        diagonal = torch.diag(torch.tensor(self.alphas, dtype=torch.float64, device="cpu"))
        beside = torch.tensor(self.betas[:-1], dtype=torch.float64, device="cpu")
        return diagonal + torch.diag(beside, 1) + torch.diag(beside, -1)

    def _settled(self, stored: list[Tensor] | None, *, final: bool) -> Tensor | None:
        """The Ritz vectors of the values that belong to the wanted ones; None while they have not converged.

        Args:
            stored: the Lanczos vectors; None: they were not stored, and a few Ritz vectors are made by repeating the products.
            final: take them as they are.
        """
        values, turn = torch.linalg.eigh(self._tridiagonal())
        chosen = self._chosen(values).nonzero().flatten()
        residuals = self.betas[-1] * turn[-1, chosen].abs()
        floor = 10 * torch.finfo(self.start.dtype).eps * float(values.abs().max())
        if not final and bool((residuals > (SETTLED * self.tol * values[chosen].abs()).clamp(min=floor)).any()):
            return None
        if stored is None:
            chosen = chosen[residuals.argsort()[:MOST_FOUND]]
        coefficients = turn[:, chosen].to(self.start.device, self.start.dtype)
        vectors = stored if stored is not None else (v for v, _, _ in self._steps(len(values)))
        total = torch.zeros(self.start.shape[0], len(chosen), dtype=self.start.dtype, device=self.start.device)
        for vector, row in zip(vectors, coefficients, strict=True):
            total.add_(vector * row)
        return total

    def _chosen(self, values: Tensor) -> Tensor:
        """Return which Ritz values are among the wanted ones, if these are put together with those that were found before."""
        chosen = torch.zeros(len(values), dtype=torch.bool, device="cpu")
        for end in self.sought[:1] if self.which == "LM" else self.sought:
            inward = values.abs() if self.which == "LM" else end.side * values
            beyond = inward > end.side * end.missed
            both = torch.cat([end.wanted, inward[beyond]]).sort(descending=True).values
            chosen |= beyond & (inward >= both[len(end.wanted) - 1])
        return chosen

    def _evidence(self, *, sufficient: bool) -> Evidence:
        """Bounds from the steps that were made."""
        if not self.alphas:
            return Evidence.none(self.sought)
        bounds = []
        for end in self.sought:
            seen = unseen_beyond(self.alphas, self.betas, side=end.side, size=self.start.shape[0], failure=FAILURE)
            bounds.append((end.side, end.edge, end.side * max(end.side * seen, end.side * end.missed)))
        return Evidence(tuple(bounds), sufficient=sufficient, failure=FAILURE)


def _norm(block: Tensor) -> float:
    return float(torch.linalg.vector_norm(block, dtype=small_dtype(block.dtype)))


def _inner(left: Tensor, right: Tensor) -> float:
    """Real part of the inner product of two columns, panel sums in double precision."""
    if left.dtype == torch.float64:
        return float(torch.dot(left[:, 0], right[:, 0]))
    return float(gram(InMemory(left), InMemory(right)).real)
