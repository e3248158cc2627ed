"""The Lanczos recurrence against dense matrices: T = V* A V, orthonormal vectors, ends of spaces, dtypes."""

import pytest
import torch

from curvscope.measurement import lanczos


def hermitian(size, dtype, seed=0):
    matrix = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return (matrix + matrix.mH) / 2


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-12), (torch.complex128, 1e-12), (torch.float32, 2e-5)])
def test_the_small_matrix_is_that_of_the_operator_on_the_basis(dtype, close):
    A = hermitian(50, dtype)
    starts = torch.randn(50, 3, generator=torch.Generator().manual_seed(1), dtype=dtype)
    first = starts / starts.norm(dim=0)
    for column, found in enumerate(lanczos(lambda X: A @ X, starts.clone(), 12, reorthogonalize=True)):
        V = found.basis.mT
        assert float((V.mH @ V - torch.eye(12)).abs().max()) < close
        assert float((V[:, 0] - first[:, column]).abs().max()) < close
        left = A @ V - V @ found.matrix().to(dtype)
        assert float(left[:, :-1].abs().max()) < 10 * close
        assert float(left[:, -1].norm()) == pytest.approx(float(found.beside[-1]), abs=10 * close)
        assert found.norm == pytest.approx(float(starts[:, column].norm()), rel=1e-6)


@pytest.mark.parametrize("reorthogonalize", [False, True])
def test_spaces_end_by_themselves_and_the_others_are_multiplied_alone(reorthogonalize):
    values = torch.tensor([4.0, 4.0, -1.0, 2.0, 0.0, 7.0], dtype=torch.float64)
    starts = torch.zeros(6, 4, dtype=torch.float64)
    starts[:2, 0] = 1.0  # one eigenvector
    starts[[2, 3], 1] = 3.0  # two
    starts[:, 2] = 1.0  # five distinct eigenvalues
    widths = []

    def multiply(block):
        widths.append(block.shape[1])
        return values[:, None] * block

    found = lanczos(multiply, starts, 8, reorthogonalize=reorthogonalize)  # the last start is zero: in the null space of all
    assert [len(recurrence.diagonal) for recurrence in found] == [1, 2, 5, 1]
    assert widths == [4, 2, 1, 1, 1]
    assert [float(recurrence.beside[-1]) for recurrence in found] == [0.0] * 4
    exact = [[4.0], [-1.0, 2.0], [-1.0, 0.0, 2.0, 4.0, 7.0], [0.0]]
    for recurrence, expected in zip(found, exact, strict=True):
        assert torch.linalg.eigvalsh(recurrence.matrix()).tolist() == pytest.approx(expected, abs=1e-12)


def test_rows_are_those_of_the_basis_and_one_start_does_not_see_the_others():
    A = hermitian(40, torch.float64, seed=3)
    starts = torch.randn(40, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    places = torch.tensor([7, 0, 39])
    together = lanczos(lambda X: A @ X, starts.clone(), 9, rows=places, reorthogonalize=True)
    for column, found in enumerate(together):
        (alone,) = lanczos(lambda X: A @ X, starts[:, column : column + 1].clone(), 9)
        torch.testing.assert_close(found.rows, found.basis.mT[places])
        torch.testing.assert_close(found.matrix(), alone.matrix(), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(found.matrix(4), alone.matrix()[:4, :4], rtol=1e-9, atol=1e-9)
