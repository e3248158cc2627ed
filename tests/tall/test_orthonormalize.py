"""Orthonormal bases of well and badly conditioned matrices, judged by their definition."""

import importlib

import pytest
import torch

from curvscope.errors import InvalidArgument
from curvscope.tall import InMemory, TallMatrix, gram, multiply, orthogonality, orthonormalize, subtract
from curvscope.tall._compress import compressed


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
    monkeypatch.setattr("curvscope.tall._matrix.PANEL_BYTES", 8 * 3 * 300)
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


WIDE = (1 << 12, 64)
module = importlib.import_module("curvscope.tall._orthonormalize")


@pytest.fixture
def compressing(monkeypatch):
    """WIDE is wide enough to be compressed first."""
    monkeypatch.setattr(module, "MIN_SHAPE_TO_COMPRESS", (WIDE[1], WIDE[0] // WIDE[1]))


def with_large_rows():
    W = 1e-3 * torch.randn(WIDE)
    W[torch.randperm(WIDE[0])[:50]] = torch.randn(50, WIDE[1])
    return W


def with_unit_rows():
    W = torch.zeros(WIDE)
    W[torch.randperm(WIDE[0])[: WIDE[1]]] = torch.eye(WIDE[1])
    return W


WIDE_ONES = {
    "condition 1e2": lambda: matrix_of_condition(*WIDE, 1e2, torch.float32),
    "condition 1e6": lambda: matrix_of_condition(*WIDE, 1e6, torch.float32),
    "condition 1e7": lambda: matrix_of_condition(*WIDE, 1e7, torch.float32),
    "double": lambda: matrix_of_condition(*WIDE, 1e10, torch.float64),
    "complex": lambda: torch.randn(WIDE, dtype=torch.complex64),
    "one sign": lambda: torch.rand(WIDE),
    "scales": lambda: torch.randn(WIDE) * torch.logspace(8, -8, WIDE[1]),
    "large rows": with_large_rows,
    "unit rows": with_unit_rows,
    "nothing but large rows": lambda: torch.cat([torch.randn(80, WIDE[1]), torch.zeros(WIDE[0] - 80, WIDE[1])]),
}


@pytest.mark.parametrize("name", WIDE_ONES)
def test_wide_matrices_take_no_gram_matrix_in_double(name, compressing, monkeypatch):
    monkeypatch.setattr(module, "gram", lambda *args, **options: pytest.fail("taken"))
    W = WIDE_ONES[name]()
    found = orthonormalize(InMemory(W), noise=0.0)
    monkeypatch.undo()
    unit, high = torch.finfo(W.dtype).eps, found.coefficients.dtype
    assert found.basis.shape == WIDE
    assert orthogonality(found.basis, spectral=True) <= (1e-13 if W.dtype == torch.float64 else 1e-6)
    assert found.orthogonality == pytest.approx(orthogonality(found.basis), abs=1e-14 if W.dtype == torch.float64 else 4e-7)
    assert (found.basis.tensor.to(high) @ found.coefficients - W).norm() <= 40 * unit * W.to(high).norm()


@pytest.mark.parametrize("break_it", [False, True])
def test_a_compression_that_misses_directions_is_found_out(break_it, compressing, monkeypatch):
    """Then further rounds measure and repair what it left."""
    W = matrix_of_condition(*WIDE, 1e2, torch.float32)
    rounds, turned = [], module._turned
    monkeypatch.setattr(module, "_turned", lambda *args, measure: rounds.append(measure) or turned(*args, measure=measure))
    if break_it:
        missed = torch.full((WIDE[1], 1), WIDE[1] ** -0.5, dtype=torch.float64)
        monkeypatch.setattr(
            module, "compressed", lambda *args: compressed(*args) @ (torch.eye(WIDE[1]) - 0.99 * missed @ missed.T)
        )
    found = orthonormalize(InMemory(W))
    assert rounds == ([True, True, False] if break_it else [True, False])
    assert orthogonality(found.basis, spectral=True) <= 1e-6
    assert (found.basis.tensor.double() @ found.coefficients - W).norm() <= 1e-4 * W.norm()


def test_rank_of_a_wide_matrix_is_not_told_from_its_compression(compressing):
    W = torch.randn(WIDE)
    W[:, 50:] = W[:, :14]
    found = orthonormalize(InMemory(W))
    assert found.basis.shape == (WIDE[0], 50)
    assert orthogonality(found.basis, spectral=True) <= 1e-6
    assert (found.basis.tensor.double() @ found.coefficients - W).norm() <= 40 * torch.finfo(W.dtype).eps * W.norm()


@pytest.mark.parametrize("name", ["condition 1e6", "large rows", "unit rows", "complex"])
def test_compressed_keeps_lengths(name):
    """Of all vectors in the range: the singular values of S Q are within what random signs leave."""
    W = WIDE_ONES[name]()
    Q = torch.linalg.qr(W.to(torch.complex128 if W.is_complex() else torch.float64)).Q
    sizes = torch.linalg.svdvals(compressed(InMemory(Q), 4 * WIDE[1]))
    assert float(sizes[-1]) > 0.3
    assert float(sizes[0]) < 1.7
