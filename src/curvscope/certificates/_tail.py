"""How large is what was not found: a bound for the norm of the deflated operator, from a short Lanczos run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, inf, log

import torch
from torch import Tensor

from curvscope.certificates._unseen import unseen_beyond
from curvscope.errors import InvalidArgument
from curvscope.tall import InMemory, TallMatrix, gram, small_dtype, subtract


@dataclass(frozen=True)
class TailNorm:
    """A bound for h = ||(I - V V*) A (I - V V*)||_2.

    Attributes:
        estimate: what Lanczos found, a lower bound up to rounding.
        bound: h is at most this, except with probability ``failure`` over the random start.
        failure: that probability.
        products: vectors multiplied.

    >>> TailNorm(estimate=0.9, bound=0.95, failure=1e-6, products=60).bound
    0.95
    """

    estimate: float
    bound: float
    failure: float
    products: int


@dataclass
class LanczosState:
    """A Lanczos run that can be resumed.

    Attributes:
        basis: room for m + 1 columns; those up to ``made`` are there (one more than were multiplied).
        made: columns that were multiplied.
        coefficients: the (m + 1, m) matrix T.
        keep: called after each step, when a column and its coefficients are there.
    """

    basis: TallMatrix
    made: int
    coefficients: Tensor
    keep: Callable[[LanczosState], None]


def slack(size: int, steps: int, failure: float) -> float:
    """The factor bound / estimate for a Lanczos run of ``steps`` steps in dimension ``size``; infinite if too short to tell.

    Source: Kuczynski and Wozniakowski (1992), Theorem 4.2, applied to the square of the operator.

    >>> round(slack(7030, 60, 1e-6), 3)
    1.055
    """
    # The theorem is about the largest eigenvalue of a semidefinite matrix, here A^2, which has no second end to converge to:
    # m steps on A hold the Krylov space of about m / 2 steps on A^2 from the same start.
    root = log(1.648 * size**0.5 / failure) / (2 * ceil(steps / 2) - 1)
    return (1 - root**2) ** -0.5 if root < 1 else float("inf")


@dataclass(frozen=True)
class EndTail(TailNorm):
    """Bounds for the eigenvalues of (I - V V*) A (I - V V*) on the complement of V.

    Attributes:
        above: none is larger, except with probability ``failure`` (of this and the other bound together).
        below: none is smaller.

    >>> EndTail(estimate=1.0, bound=1.2, failure=1e-6, products=60, above=0.5, below=-1.2).above
    0.5
    """

    above: float = inf
    below: float = -inf


def tail_norm(
    multiply: Callable[[Tensor], Tensor],
    vectors: TallMatrix,
    start: Tensor,
    *,
    steps: int = 60,
    failure: float = 1e-6,
    state: LanczosState | None = None,
    ends: bool = False,
) -> TailNorm:
    r"""Bound the norm of a Hermitian A on the orthogonal complement of the columns of V.

    A may be complex. Runs Lanczos with full re-orthogonalisation on (I - V V*) A (I - V V*) from a Gaussian start; with T the
    (m + 1) x m tridiagonal matrix of coefficients, ||T||_2 (1 - e)^{-1/2} bounds the norm whatever T is, see :func:`slack`; the
    places beyond which this very T excludes eigenvalues are nearer, see :func:`.unseen.unseen_beyond`.

    Args:
        multiply: products with A, (D, b) to (D, b).
        vectors: V, (D, k) with orthonormal columns, k < D.
        start: (D,) with independent standard Gaussian entries, independent of V.
        steps: m; fewer where the space has fewer dimensions, and the bound then is exact up to rounding.
        failure: probability with which the bound may be wrong.
        state: where its basis lies, and how far it was in an earlier session; None: in memory, from the beginning.
        ends: give an :class:`EndTail`, with a bound for each end of the spectrum.

    Cost: m products, one at a time; memory: m + 2 vectors; 4 D m (k + m) operations.

    Raises:
        InvalidArgument: too few steps for this dimension and failure probability to say anything.

    >>> A = torch.diag(torch.tensor([5.0, 2.0, -1.0], dtype=torch.float64))
    >>> found = InMemory(torch.eye(3, dtype=torch.float64)[:, :1])
    >>> round(tail_norm(lambda block: A @ block, found, torch.ones(3, dtype=torch.float64)).bound, 6)
    2.0
    """
    size = vectors.shape[0] - vectors.shape[1]
    if size <= 0:
        return EndTail(0.0, 0.0, 0.0, 0, -inf, inf) if ends else TailNorm(0.0, 0.0, 0.0, 0)
    steps = min(steps, size)
    if steps < size and slack(size, steps, failure) == float("inf"):
        raise InvalidArgument(f"{steps} steps say nothing with failure={failure:g} in dimension {size}: use 60 or more steps")
    if state is None:
        room = InMemory.empty(vectors.shape[0], steps + 1, vectors.dtype, vectors.device)
        state = LanczosState(room, 0, torch.zeros(steps + 1, steps, dtype=torch.float64, device="cpu"), lambda state: None)
    basis, coefficients, made = state.basis, state.coefficients, state.made
    if not made:
        vector = start[:, None].to(vectors.device, vectors.dtype, copy=True)
        _project_out(vector, vectors)
        basis.write(0, vector / _size(vector))
    while made < steps:
        product = multiply(basis.columns(made, made + 1)).clone()
        scale = _size(product)
        made += 1
        # Against all columns, twice: without that, copies of what was found come back, and the coefficients would be those of
        # no matrix, which the bound could not be read from.
        found = _project_out(product, basis.leading(made), beside=vectors)
        coefficients[:made, made - 1] = found
        rest = _size(product)
        if rest <= 10 * torch.finfo(vectors.dtype).eps * scale:  # an invariant subspace: nothing is left to find
            if steps < size or made == size:
                break
            product, rest = _direction(start, made, vectors, basis.leading(made)), 0.0  # every direction is looked at
        coefficients[made, made - 1] = rest
        basis.write(made, product / _size(product))
        # Last: a session that ends between the two lines before begins this step again, from columns that are complete.
        state.made = made
        state.keep(state)
    estimate = float(torch.linalg.matrix_norm(coefficients[: made + 1, :made], 2))
    if made == size:
        if not ends:
            return TailNorm(estimate, estimate, 0.0, made)
        values = torch.linalg.eigvalsh(_symmetric(coefficients[:made, :made]))
        return EndTail(estimate, estimate, 0.0, made, float(values[-1]), float(values[0]))
    alphas = coefficients.diagonal()[:made].tolist()
    betas = coefficients.diagonal(-1)[:made].tolist()
    share = failure / 2 if ends else failure  # a magnitude has one eigenvector, two ends have two
    above, below = (unseen_beyond(alphas, betas, side=side, size=vectors.shape[0], failure=share) for side in (1, -1))
    bound = max(estimate, above, -below)
    return EndTail(estimate, bound, failure, made, above, below) if ends else TailNorm(estimate, bound, failure, made)


def _size(block: Tensor) -> float:
    return float(torch.linalg.vector_norm(block, dtype=small_dtype(block.dtype)))


def _symmetric(matrix: Tensor) -> Tensor:
    return (matrix + matrix.mT) / 2


def _direction(start: Tensor, turn: int, vectors: TallMatrix, basis: TallMatrix) -> Tensor:
    """A (D, 1) direction outside of all these columns: the start with its entries in another order."""
    turned = start.roll(turn)[:, None].to(vectors.device, vectors.dtype, copy=True)
    _project_out(turned, basis, beside=vectors)
    return turned


def _project_out(block: Tensor, basis: TallMatrix, *, beside: TallMatrix | None = None) -> Tensor:
    """Orthogonalise a (D, 1) block, in place and twice, against ``basis`` and ``beside``; the coefficients on ``basis``."""
    total = torch.zeros(basis.shape[1], dtype=torch.float64, device="cpu")
    for _ in range(2):
        for matrix in (basis,) if beside is None else (beside, basis):
            found = gram(matrix, InMemory(block))
            subtract(block, matrix, found)
        total += found[:, 0].real  # of a Hermitian operator: the diagonal is real, a norm stands beside it
    return total
