"""What a test matrix is beyond what the suite of tests/testing asks of every kind."""

import numpy as np
import pytest
import scipy.fft
import torch

from curvscope.errors import InvalidArgument
from curvscope.sketches import KINDS, TILE_ROWS, TestMatrix, inverse_unitary, unitary
from curvscope.sketches._sparse_sign import strips
from curvscope.sketches._transforms import dct, inverse_dct
from curvscope.tall import InMemory


def test_gaussian_has_gaussian_moments():
    x = TestMatrix("gaussian", 200_000, seed=0, role="probe", dtype=torch.float64).columns(0, 1)
    assert float(x.pow(4).mean()) == pytest.approx(3, abs=6 * 96**0.5 / 200_000**0.5)
    z = TestMatrix("gaussian", 200_000, seed=0, role="probe", dtype=torch.complex128).columns(0, 1)
    # complex normal: E|z|^4 = 2, variance of |z|^4 is 4! - 4 = 20; E z^2 = 0
    assert float(z.abs().pow(4).mean()) == pytest.approx(2, abs=6 * 20**0.5 / 200_000**0.5)
    assert abs(complex(z.square().mean())) < 6 * 2**0.5 / 200_000**0.5


def test_phases_lie_on_the_unit_circle():
    z = TestMatrix("phase", 1000, seed=0, role="probe", dtype=torch.complex128).columns(0, 3)
    torch.testing.assert_close(z.abs(), torch.ones_like(z.abs()))
    assert z.imag.abs().max() > 0.9


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_ssrft_columns_are_orthogonal(dtype):
    x = TestMatrix("ssrft", 61, seed=0, role="probe", dtype=dtype).columns(0, 61)
    torch.testing.assert_close(x.mH @ x, 61 * torch.eye(61, dtype=dtype))
    with pytest.raises(InvalidArgument, match="61 columns, column 61 was asked for"):
        TestMatrix("ssrft", 61, seed=0, role="probe", dtype=dtype).columns(60, 62)


def test_sparse_sign_has_one_entry_a_row_in_every_strip():
    x = TestMatrix("sparse_sign", 500, seed=0, role="left", dtype=torch.float64).columns(0, 128)
    ends = 0
    for start, width in strips(128):
        assert start == ends
        ends = start + width
        strip = x[:, start:ends]
        assert bool(((strip != 0).sum(dim=1) == 1).all())
        torch.testing.assert_close(strip.abs().sum(dim=1), torch.full((500,), width**0.5, dtype=torch.float64))
    assert ends == 128
    assert int((x[:, :32] != 0).sum(dim=1)[0]) == 8
    assert int((x != 0).sum(dim=1)[0]) == 12


def test_columns_do_not_depend_on_how_many_there_are_when_applied():
    psi = TestMatrix("sparse_sign", 300, seed=0, role="left", dtype=torch.float64)
    W = InMemory(torch.randn(300, 4, dtype=torch.float64))
    assert torch.equal(psi.adjoint_multiply(W, 0, 20), psi.adjoint_multiply(W, 0, 77)[:20])


class Watched(InMemory):
    """Remembers the most entries that were asked for at once."""

    most = 0

    def rows(self, index):
        found = super().rows(index)
        self.most = max(self.most, found.numel())
        return found

    def columns(self, start, stop):
        found = super().columns(start, stop)
        self.most = max(self.most, found.numel())
        return found


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"phase"}))
def test_a_matrix_is_applied_to_small_pieces(kind):
    """A matrix on disk is in memory in the pieces that are asked for: 8,192 rows, or 2 columns."""
    rows, columns = TILE_ROWS + 1000, 40
    W = Watched(torch.ones(rows, columns))
    TestMatrix(kind, rows, seed=0, role="left", dtype=torch.float32).adjoint_multiply(W, 0, 70)
    assert W.most == (2 * rows if kind == "ssrft" else 8192 * columns)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 9, 64, 101])
def test_transforms_agree_with_scipy(n):
    x = torch.randn(3, n, dtype=torch.float64)
    np.testing.assert_allclose(dct(x).numpy(), scipy.fft.dct(x.numpy(), norm="ortho"), atol=1e-13)
    torch.testing.assert_close(inverse_dct(dct(x)), x)
    z = torch.randn(3, n, dtype=torch.complex128)
    torch.testing.assert_close(inverse_unitary(unitary(z)), z)


def test_what_cannot_be_made_is_named():
    choices = ", ".join(sorted(KINDS))
    with pytest.raises(InvalidArgument, match=f"sketch='gausian': choose one of {choices}"):
        TestMatrix("gausian", 10, seed=0, role="right")
    with pytest.raises(InvalidArgument, match="phase test matrices are complex, the operator is"):
        TestMatrix("phase", 10, seed=0, role="right")
    with pytest.raises(InvalidArgument, match="at least 1 row"):
        TestMatrix("gaussian", 0, seed=0, role="right")
    with pytest.raises(InvalidArgument, match="floating point"):
        TestMatrix("gaussian", 3, seed=0, role="right", dtype=torch.int64)
    with pytest.raises(InvalidArgument, match="the test matrix has 3 rows, the matrix 4"):
        TestMatrix("gaussian", 3, seed=0, role="right").adjoint_multiply(InMemory(torch.zeros(4, 1)), 0, 2)
