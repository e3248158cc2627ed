"""Everything of ours that the suites know: one line enrols a new one. And the suites see what is broken."""

from functools import partial

import pytest
import torch

import curvscope as cs
from curvscope import testing
from curvscope.operators import Dense
from curvscope.operators.base import Operator
from curvscope.sketches import KINDS, TestMatrix
from curvscope.solvers import hmt, nystrom, singlepass
from curvscope.solvers.results import canonical_signs

SOLVERS = {
    "exact": lambda A, k: cs.eigsh(A, k, method="exact"),
    "krylov": lambda A, k: cs.eigsh(A, k, method="krylov", tol=1e-12 if A.dtype == torch.float64 else 1e-5),
    "seigh": lambda A, k: cs.eigsh(A, k, method="seigh"),
    "oversampled": lambda A, k: cs.eigsh(A, k, method="oversampled"),
    "hmt": lambda A, k: cs.eigsh(A, k, method="hmt"),
    "nystrom": lambda A, k: cs.eigsh(A, k, method="nystrom"),
    "singlepass": lambda A, k: cs.eigsh(A, k, method="singlepass"),
    "seigh, rademacher": lambda A, k: cs.seigh(A, num_outer=max(k, 10), k=k, sketch="rademacher", left_sketch="gaussian"),
    "seigh, ssrft": lambda A, k: cs.seigh(A, num_outer=max(k, 10), k=k, sketch="ssrft", left_sketch="ssrft"),
    "seigh, sparse sign": lambda A, k: cs.seigh(A, num_outer=max(k, 10), k=k, sketch="sparse_sign"),
    "hmt, large": lambda A, k: hmt(A, num_outer=max(k, 30), k=k),
    "nystrom, given as indefinite": lambda A, k: nystrom(A, num_outer=max(k, 20), rank=max(k, 8), k=k, definite=False),
    "singlepass, half": lambda A, k: singlepass(A, num_outer=max(k, 10), k=k),
}
REAL = torch.randn(30, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
COMPLEX = torch.randn(20, 30, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
OPERATORS = {
    "dense": lambda: cs.as_operator(REAL),
    "dense symmetric": lambda: cs.as_operator(REAL + REAL.T),
    "dense complex": lambda: cs.as_operator(COMPLEX),
    "dense Hermitian": lambda: cs.as_operator(COMPLEX @ COMPLEX.mH),
    "single precision": lambda: cs.as_operator((REAL + REAL.T).float()),
    "spectrum": lambda: cs.problems.spectrum("plus_minus", 50, rank=4),
    "spectrum, single": lambda: cs.problems.spectrum("power", 50, dtype=torch.float32),
    "spectrum, complex": lambda: cs.problems.spectrum("exponential", 50, dtype=torch.complex128),
    "spectrum, rectangular": lambda: cs.problems.spectrum("exponential", 50, columns=30),
    "spectrum, low rank + diagonal": lambda: cs.problems.spectrum("low_rank_diagonal", 60, rank=4),
}


def name(check):
    return check.__name__


@pytest.mark.parametrize("check", testing.SOLVER_CHECKS, ids=name)
@pytest.mark.parametrize("solver", SOLVERS)
def test_solvers(solver, check):
    check(SOLVERS[solver])


@pytest.mark.parametrize("check", testing.TEST_MATRIX_CHECKS, ids=name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=["real", "complex"])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_test_matrices(kind, dtype, check):
    if dtype.is_complex or KINDS[kind].real:
        check(partial(TestMatrix, kind), dtype)


@pytest.mark.parametrize("check", testing.OPERATOR_CHECKS, ids=name)
@pytest.mark.parametrize("operator", OPERATORS)
def test_operators(operator, check):
    check(OPERATORS[operator]())


class Broken(Operator):
    """A fixed symmetric matrix, spoiled in one way."""

    shape, dtype, device, hermitian = (30, 30), torch.float64, torch.device("cpu"), True

    def __init__(self, spoil):
        self.spoil, self.calls = spoil, 0

    def _apply(self, block):
        self.calls += 1
        return self.spoil(self, (REAL + REAL.T) @ block, block)

    def _fingerprint(self):
        return "broken"


SPOILED = {
    "asymmetric": lambda self, product, block: product + 0.01 * REAL @ block,
    "affine": lambda self, product, block: product + 1,
    "changing": lambda self, product, block: product * (1 + 0.01 * self.calls),
    "mixing columns": lambda self, product, block: product + 0.01 * product.mean(dim=1, keepdim=True),
    "writing into its input": lambda self, product, block: block.mul_(1.5) * 0 + product,
    "another dtype": lambda self, product, block: product.float(),
}


@pytest.mark.parametrize("fault", SPOILED)
def test_the_operator_suite_sees(fault):
    with pytest.raises(AssertionError, match="violated"):
        testing.check_operator(Broken(SPOILED[fault]))


def test_the_operator_suite_passes_what_is_not_broken():
    testing.check_operator(Broken(lambda self, product, block: product))


class Shared(TestMatrix):
    """Neighbouring seeds share columns, as in other libraries."""

    def panel(self, rows, start, stop):
        one = TestMatrix("gaussian", self.rows, seed=0, role=self.role, dtype=self.dtype)
        return one.panel(rows, start + self.seed, stop + self.seed)


def test_the_test_matrix_suite_sees_shared_columns():
    with pytest.raises(AssertionError, match="uncorrelated"):
        testing.check_test_matrix(partial(Shared, "gaussian"))


def test_the_solver_suite_sees_right_values_with_wrong_vectors():
    """Singular vectors of a symmetric matrix mix the vectors of +x and -x."""

    def by_svd(A, k):
        solution = cs.eigsh(A, k, method="exact")
        V = solution.eigenvectors.tensor
        V[:, :2] = V[:, :2] @ torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=V.dtype) / 2**0.5
        canonical_signs(solution.eigenvectors)
        return solution

    with pytest.raises(AssertionError, match="eigenspace of"):
        testing.check_solver(by_svd)
    assert isinstance(cs.as_operator(REAL), Dense)
