"""Orthonormal bases of well and badly conditioned matrices, judged by their definition."""

import pytest
import torch

from curvscope.errors import InvalidArgument
from curvscope.tall import InMemory, TallMatrix, gram, multiply, orthogonality, orthonormalize, subtract


def matrix_of_condition(rows, columns, condition, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    left = torch.linalg.qr(torch.randn(rows, columns, generator=generator, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(columns, columns, generator=generator, dtype=torch.float64)).Q
    sizes = torch.logspace(0, -torch.log10(torch.tensor(float(condition))).item(), columns, dtype=torch.float64)
    return (left * sizes @ right.T).to(dtype)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.float64, 1e-13)])
@pytest.mark.parametrize("condition", [1, 1e3, 1e6])
def test_orthonormal_and_spanning(dtype, bound, condition):
    W = matrix_of_condition(3000, 30, condition, dtype)
    result = orthonormalize(InMemory(W))
    assert result.basis.shape == (3000, 30)
    assert orthogonality(result.basis) <= bound
    assert result.orthogonality == pytest.approx(orthogonality(result.basis), abs=bound / 10)
    error = result.basis.tensor.double() @ result.coefficients - W.double()
    # W has norm of order 1; each round rounds once, in the units of the largest direction
    assert error.norm() <= 40 * torch.finfo(dtype).eps * W.double().norm()


def test_columns_of_very_different_size():
    W = torch.randn(500, 4, dtype=torch.float32, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [1e8, 1, 1e-6, 1e-8]
    )
    result = orthonormalize(InMemory(W), noise=0.0)
    assert result.basis.shape == (500, 4)
    assert orthogonality(result.basis) <= 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rank_is_revealed(dtype):
    W = matrix_of_condition(1000, 5, 10, dtype)
    repeated = torch.cat([W, W @ torch.randn(5, 7, dtype=dtype, generator=torch.Generator().manual_seed(1))], dim=1)
    result = orthonormalize(InMemory(repeated))
    assert result.basis.shape == (1000, 5)
    assert (multiply(result.basis, result.coefficients).tensor - repeated).norm() <= 1e-5 * repeated.norm()


def test_zero_matrix_has_rank_zero():
    result = orthonormalize(InMemory(torch.zeros(10, 3)))
    assert result.basis.shape == (10, 0)
    assert result.coefficients.shape == (0, 3)


def test_more_columns_than_rows():
    W = torch.randn(4, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    result = orthonormalize(InMemory(W))
    assert result.basis.shape == (4, 4)
    torch.testing.assert_close(result.basis.tensor @ result.coefficients, W)


def test_panels_cover_the_matrix_once(monkeypatch):
    monkeypatch.setattr("curvscope.tall.matrix.PANEL_BYTES", 8 * 3 * 300)
    A = torch.randn(1000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    B = torch.randn(1000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert len(list(InMemory(A).panels())) > 2
    torch.testing.assert_close(gram(InMemory(A), InMemory(B)), A.T @ B)
    torch.testing.assert_close(multiply(InMemory(A), torch.eye(3, 2, dtype=torch.float64)).tensor, A[:, :2])
    W = B.clone()
    subtract(W, InMemory(A), torch.ones(3, 2, dtype=torch.float64))
    torch.testing.assert_close(W, B - A.sum(1, keepdim=True))
    rotated = InMemory(A.clone())
    rotated.rotate(torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64))
    torch.testing.assert_close(rotated.tensor, A[:, [1, 0, 2]])


def test_gram_of_many_float32_rows_is_summed_in_double():
    column = torch.full((2_000_000, 1), 1.0) + 1e-3 * torch.arange(2_000_000)[:, None] / 2_000_000
    exact = float(column.double().square().sum())
    assert float(gram(InMemory(column), InMemory(column))) == pytest.approx(exact, rel=1e-5)
    assert float(gram(InMemory(column), InMemory(column), double=True)) == pytest.approx(exact, rel=1e-12)


class Copying(TallMatrix):
    """As a matrix on disk: what is read is a copy, what is to stay must be written."""

    def __init__(self, tensor):
        self.stored, self.shape, self.dtype, self.device = tensor, tuple(tensor.shape), tensor.dtype, tensor.device
        self.reads = self.writes = 0

    def columns(self, start, stop):
        return self.stored[:, start:stop].clone()

    def rows(self, index):
        self.reads += 1
        return self.stored[index].clone()

    def write_rows(self, panel, block):
        self.writes += 1
        self.stored[panel] = block

    def between(self, start, stop):
        return Copying(self.stored[:, start:stop])

    def write(self, start, block):
        self.stored[:, start : start + block.shape[1]] = block

    def empty_like(self, columns):
        return Copying(torch.empty(self.shape[0], columns, dtype=self.dtype))


@pytest.mark.parametrize("condition", [2, 1e6, 1e7])
@pytest.mark.parametrize("columns", [30, 200])  # one block of columns, and several
def test_in_place_and_elsewhere(condition, columns):
    W = matrix_of_condition(3000, columns, condition, torch.float32)
    for matrix, into in ((InMemory(W), None), *((m, m) for m in (InMemory(W.clone()), Copying(W.clone())))):
        found = orthonormalize(matrix, into=into, noise=0.0)
        basis = found.basis.to_tensor()
        assert basis.shape == (3000, columns)
        assert orthogonality(found.basis, spectral=True) <= 1e-6
        assert found.orthogonality == pytest.approx(orthogonality(found.basis), abs=1e-7)
        error = basis.double() @ found.coefficients - W.double()
        assert error.norm() <= 40 * torch.finfo(W.dtype).eps * W.double().norm()
        assert into is None or torch.equal(into.columns(0, columns), basis)


def test_well_conditioned_takes_two_reads_and_one_write():
    matrix = Copying(matrix_of_condition(5000, 20, 2, torch.float32))
    orthonormalize(matrix, into=matrix)
    assert (matrix.reads, matrix.writes) == (2, 1)


def test_rank_deficiency_in_place_and_elsewhere():
    W = matrix_of_condition(1000, 5, 10, torch.float64)
    W = torch.cat([W, W], dim=1)
    target = InMemory(torch.zeros(1000, 10, dtype=torch.float64))
    found = orthonormalize(InMemory(W), into=target)
    assert found.basis.shape == (1000, 5)
    assert torch.equal(found.basis.to_tensor(), target.tensor[:, :5])
    torch.testing.assert_close(found.basis.to_tensor() @ found.coefficients, W)
    with pytest.raises(InvalidArgument, match="must have the same shape and dtype"):
        orthonormalize(InMemory(W), into=InMemory(W[:, :9]))
    with pytest.raises(InvalidArgument, match="must have the same shape and dtype"):
        orthonormalize(InMemory(W), into=InMemory(W.float()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_gram_of_a_matrix_with_itself_is_the_whole_one(dtype):
    A = torch.randn(500, 230, dtype=dtype, generator=torch.Generator().manual_seed(0))
    matrix = InMemory(A)
    torch.testing.assert_close(gram(matrix, matrix), A.mH @ A)
    torch.testing.assert_close(gram(matrix, matrix, double=True), A.mH @ A)
