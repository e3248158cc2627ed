"""From measurements of an operator to its factors: pure functions of small matrices that never see the operator.

Throughout, Q is an orthonormal basis of the range of the outer measurements Y = A Omega = Q R, and a core C gives
A ~ Q C Q* (P instead of the second Q when A is not Hermitian). All matrices here are small and in double precision.
"""

from __future__ import annotations

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.tall import symmetrized

ILL_CONDITIONED = 1e-10
"""Ratio of the diagonal of a triangular factor below which least squares are solved by a truncated SVD instead."""


RECYCLED_WEIGHT = 0.1
"""Of the equations from recycled measurements; see :func:`hermitian_core`."""


def least_squares(matrix: Tensor, right_side: Tensor, *, rtol: float = ILL_CONDITIONED) -> Tensor:
    """Matrix^+ @ right_side for a (s, k) matrix, s >= k: by QR, or by an SVD when the matrix is ill-conditioned.

    Cost: O(s k^2).

    Raises:
        InvalidArgument: fewer rows than columns.

    >>> least_squares(torch.tensor([[2.0], [0.0]]), torch.tensor([[4.0], [7.0]])).tolist()
    [[2.0]]
    """
    if matrix.shape[0] < matrix.shape[1]:
        raise InvalidArgument(f"least squares need at least as many rows as columns, got {tuple(matrix.shape)}")
    orthonormal, triangle = torch.linalg.qr(matrix)
    pivots = triangle.diagonal().abs()
    if len(pivots) and float(pivots.min()) > rtol * float(pivots.max()):
        solved: Tensor = torch.linalg.solve_triangular(triangle, orthonormal.mH @ right_side, upper=True)
    else:
        solved = torch.linalg.pinv(matrix, rtol=rtol) @ right_side
    return solved


def oversampled_core(left: Tensor, inner: Tensor, right: Tensor) -> Tensor:
    r"""The core of A ~ Q C P* from inner measurements, by two least-squares problems.

    .. math:: C = (\Psi^* Q)^+ \, (\Psi^* A \Omega) \, (P^* \Omega)^+

    Args:
        left: Psi* Q, (n_inner, r).
        inner: Psi* A Omega, (n_inner, n_inner).
        right: P* Omega, (p, n_inner).

    Cost: O(n_inner^2 (r + p)).
    Source: Tropp, Yurtsever, Udell, Cevher (SISC 2019), section 2; Boutsidis, Woodruff, Zhong (2016).
    """
    return least_squares(right.mH, least_squares(left, inner).mH).mH


def published_core(measured: Tensor, right: Tensor) -> tuple[Tensor, float]:
    r"""The core C of a Hermitian A ~ Q C Q*, solved for without its symmetry and symmetrised: Alg. 2 as published.

    .. math:: C_0 = M B^+, \quad C = (C_0 + C_0^*) / 2

    with M = Q* A Omega as :func:`compressed_measurements` gives it and B = Q* Omega; the same as :func:`oversampled_core`.
    For an exactly Hermitian A in the span of Q, C_0 is Hermitian; how far it is from that tells how good the sketch is.

    Args:
        measured: M, (r, n_inner).
        right: B, (r, n_inner).

    Returns:
        C, (r, r), and ||C_0 - C_0*||_F / ||C_0||_F (0 when C_0 is 0).

    Cost: O(n_inner r^2), all in double precision.
    Source: Fernandez et al. (2025), Alg. 2; Tropp, Yurtsever, Udell, Cevher (2019), section 2.

    >>> core, asymmetry = published_core(torch.diag(torch.tensor([2.0, -1.0]).double()), torch.eye(2).double())
    >>> core.diagonal().tolist(), asymmetry
    ([2.0, -1.0], 0.0)
    """
    return symmetrized(least_squares(right.mH, measured.mH).mH)


def compressed_measurements(left: Tensor, coefficients: Tensor, further: Tensor) -> Tensor:
    r"""Q* A Omega, exact for the measurements that Q comes from, by least squares for the further ones.

    .. math:: M = [\, R, \; (\Psi^* Q)^+ \, \Psi^* A \Omega_2 \,]

    Args:
        left: Psi* Q, (n_left, r).
        coefficients: R, (r, n_outer), with A Omega_1 = Q R.
        further: Psi* A Omega_2, (n_left, n_inner - n_outer).

    Cost: O(n_left n_inner r).
    """
    return torch.cat([coefficients, least_squares(left, further)], dim=1)


def hermitian_core(measured: Tensor, right: Tensor, num_recycled: int) -> Tensor:
    r"""The core C of a Hermitian A ~ Q C Q*: weighted least squares over Hermitian matrices.

    .. math:: \min_{C = C^*} \; w \| C B_1 - M_1 \|_F^2 + \| C B_2 - M_2 \|_F^2, \quad w = 0.1

    The errors of these equations are Q* A (I - Q Q*) Omega. In the further measurements (index 2) they are independent of Q
    and average out. In the recycled ones (index 1), from whose products Q was made, they are correlated with it and shift the
    eigenvalues of slowly decaying operators; but they are small in number of terms, so that they steady the solution. A small
    weight has the best of both. Solving over Hermitian matrices, rather than symmetrising afterwards, halves the unknowns.

    Args:
        measured: M, (r, n_inner), from :func:`compressed_measurements`.
        right: B = Q* Omega, (r, n_inner).
        num_recycled: how many columns are of the first kind.

    Cost: O(n_inner r^2).

    >>> C = torch.tensor([[2.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    >>> B = torch.tensor([[1.0, 0.0, 1.0, 1.0], [2.0, 1.0, 0.0, 1.0]], dtype=torch.float64)
    >>> torch.allclose(hermitian_core(C @ B, B, 2), C)
    True
    """
    # Roots of weights: the equations are multiplied before their squares are summed.
    weights = torch.ones(measured.shape[1], dtype=torch.float64, device="cpu")
    weights[:num_recycled] = RECYCLED_WEIGHT**0.5
    return singlepass_core(measured * weights, right * weights)


def singlepass_core(measured: Tensor, right: Tensor) -> Tensor:
    r"""The Hermitian C nearest to solving C (Q* Omega) = Q* A Omega.

    .. math:: \min_{C = C^*} \| C B - M \|_F, \quad B = Q^* \Omega, \; M = Q^* A \Omega

    by the normal equations C B B* + B B* C = M B* + B M* in the eigenbasis of B B*. Solving for Hermitian C divides by sums of
    two eigenvalues; solving first and symmetrising afterwards would divide by single ones, and amplify more.

    Args:
        measured: M, (r, b), b >= r.
        right: B, (r, b).

    Cost: O(r^2 b).
    Source: Halko, Martinsson, Tropp (SIREV 2011), section 5.5.

    >>> C = torch.tensor([[2.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    >>> B = torch.tensor([[1.0, 0.0, 1.0], [2.0, 1.0, 0.0]], dtype=torch.float64)
    >>> torch.allclose(singlepass_core(C @ B, B), C)
    True
    """
    weights, turn = torch.linalg.eigh(right @ right.mH)
    products = turn.mH @ (measured @ right.mH) @ turn
    # Entry (i, j) of C in the eigenbasis of B B* is determined by w_i + w_j: badly only where both directions were hardly
    # measured. There it is set to 0, the smallest solution, as a pseudo-inverse does.
    sums = weights[:, None] + weights
    floor = 2 * len(weights) * torch.finfo(weights.dtype).eps * float(weights.max()) if len(weights) else 0.0
    core = torch.where(sums > floor, (products + products.mH) / sums.clamp(min=floor or 1.0), 0)
    turned: Tensor = turn @ core @ turn.mH
    return turned


def nystrom_factors(coefficients: Tensor, gram: Tensor, shift: float) -> tuple[Tensor, Tensor]:
    r"""Eigenvalues and rotation of the shifted Nystrom approximation of a positive semidefinite A.

    .. math:: \hat A = Y_\nu (\Omega^* Y_\nu)^{-1} Y_\nu^* - \nu I, \quad Y_\nu = Y + \nu \Omega = Q R

    Args:
        coefficients: R, (r, b).
        gram: Omega* Y_nu, (b, b), positive definite up to rounding.
        shift: nu, the size of the rounding in Omega* Y over ||Omega||^2: it makes the inverse stable.

    Returns:
        eigenvalues (r,) in descending order, not below 0, and W with A_hat = (Q W) diag (Q W)*.

    Cost: O(b^3).
    Source: Tropp, Yurtsever, Udell, Cevher (NIPS 2017), Alg. 3.
    """
    values, vectors = torch.linalg.eigh((gram + gram.mH) / 2)
    floor = len(values) * torch.finfo(values.dtype).eps * float(values.abs().max()) if len(values) else 0.0
    # The shift made the Gram matrix definite up to rounding; what still lies below the floor is rounding, and its inverse
    # root would be the largest number of all.
    roots = torch.where(values > floor, values.clamp(min=floor or 1.0).rsqrt(), 0)
    rotation, sizes, _ = torch.linalg.svd(coefficients @ (vectors * roots), full_matrices=False)
    return (sizes.square() - shift).clamp(min=0), rotation


def indefinite_nystrom_core(coefficients: Tensor, gram: Tensor, rank: int) -> Tensor:
    r"""The core of the Nystrom approximation of an indefinite Hermitian A, its middle factor truncated.

    .. math:: C = R \, [\Omega^* A \Omega]_r^+ \, R^*

    where [.]_r keeps the r eigenvalues largest in magnitude: without the truncation, eigenvalues of the middle factor that
    happen to lie near 0 make the error unbounded.

    Args:
        coefficients: R, (q, b).
        gram: Omega* A Omega, (b, b).
        rank: r, best b/2 to 2b/3.

    Cost: O(b^3).
    Source: Park, Nakatsukasa (SIMAX 2023).
    """
    values, vectors = torch.linalg.eigh((gram + gram.mH) / 2)
    kept = values.abs().argsort(descending=True)[:rank]
    floor = len(values) * torch.finfo(values.dtype).eps * float(values.abs().max()) if len(values) else 0.0
    kept = kept[values[kept].abs() > floor]
    factor = coefficients @ vectors[:, kept]
    core: Tensor = (factor / values[kept]) @ factor.mH
    return core


def generalized_nystrom_core(left: Tensor, coefficients: Tensor) -> Tensor:
    r"""The core of the generalised Nystrom approximation A ~ Y (Psi* Y)^+ (Psi* A) = Q C P*.

    .. math:: C = (\Psi^* Q)^+ S^*, \quad A^* \Psi = P S

    which is the same while Y has full rank, and stays stable when it has not: Q has no noise directions.

    Args:
        left: Psi* Q, (l, r), l >= r, best l = 1.5 r to 2 r.
        coefficients: S, (p, l).

    Cost: O(l r p).
    Source: Nakatsukasa (2020); Tropp, Yurtsever, Udell, Cevher (SIMAX 2017), Alg. 4.
    """
    return least_squares(left, coefficients.mH)


def truncation_rank(sizes: Tensor, num_left: int, num_measured: int | None = None) -> int:
    r"""Return how many directions of the range to keep so that least squares with l equations amplify least.

    .. math:: \arg\min_r \; \Big(\sum_{i > r} s_i^2 + l s_q^2 \Big) \Big(1 + \frac{r}{l - r - 1}\Big)

    The first factor is what is left out, with as much again as l times the smallest for what was not seen; the second is the
    expected amplification by the pseudo-inverse of an l x r Gaussian matrix.

    Args:
        sizes: s, (q,) in descending order, of the measurements that the range comes from.
        num_left: l >= q.
        num_measured: how many measurements; more than q tell that the range is exhausted, and nothing is unseen.

    Source: the error bound of Tropp, Yurtsever, Udell, Cevher (SIMAX 2017), theorem 4.3, with measured values put in.

    >>> slow, fast = torch.ones(20, dtype=torch.float64), 0.1 ** torch.arange(20, dtype=torch.float64)
    >>> truncation_rank(slow, 20), truncation_rank(fast, 20), truncation_rank(slow[:3], 8, 8)
    (1, 18, 3)
    """
    if not len(sizes):
        return 0
    squares = sizes.square()
    ranks = torch.arange(1, len(sizes) + 1, dtype=squares.dtype, device="cpu")
    unseen = 0.0 if num_measured is not None and len(sizes) < num_measured else num_left * squares[-1]
    left_out = squares.flip(0).cumsum(0).flip(0) - squares + unseen
    amplified = 1 + ranks / (num_left - ranks - 1).clamp(min=1 / num_left)
    return int((left_out * amplified).argmin()) + 1
