"""The pure recoveries against dense pseudo-inverses."""

import pytest
import torch
from torch.linalg import pinv

from curvscope.errors import InvalidArgument
from curvscope.solvers.sketched import _recovery as recovery
from curvscope.tall import asymmetry

F64 = torch.float64


def gaussian(*shape, dtype=F64):
    return torch.randn(*shape, dtype=dtype)


@pytest.mark.parametrize("dtype", [F64, torch.complex128])
def test_least_squares_is_the_pseudo_inverse(dtype):
    B, right = gaussian(12, 5, dtype=dtype), gaussian(12, 4, dtype=dtype)
    torch.testing.assert_close(recovery.least_squares(B, right), pinv(B) @ right)
    B[:, 4] = B[:, 0] * (1 + 1e-13)  # dependent columns: the least-norm solution, not a huge one
    torch.testing.assert_close(recovery.least_squares(B, right), pinv(B, rtol=1e-10) @ right)
    with pytest.raises(InvalidArgument, match="at least as many rows as columns"):
        recovery.least_squares(B[:3], right[:3])


@pytest.mark.parametrize("dtype", [F64, torch.complex128])
def test_cores_are_their_formulas(dtype):
    left, inner, right = gaussian(12, 4, dtype=dtype), gaussian(12, 12, dtype=dtype), gaussian(5, 12, dtype=dtype)
    torch.testing.assert_close(recovery.oversampled_core(left, inner, right), pinv(left) @ inner @ pinv(right))
    square = right[:4]
    raw = pinv(left) @ inner @ pinv(square)
    measured = recovery.compressed_measurements(left, pinv(left) @ inner[:, :4], inner[:, 4:])
    torch.testing.assert_close(measured, pinv(left) @ inner)
    core, asymmetry = recovery.published_core(measured, square)
    torch.testing.assert_close(core, (raw + raw.mH) / 2)
    assert asymmetry == pytest.approx(float((raw - raw.mH).norm() / raw.norm()))
    S = gaussian(6, 12, dtype=dtype)
    torch.testing.assert_close(recovery.generalized_nystrom_core(left, S), pinv(left) @ S.mH)


@pytest.mark.parametrize("dtype", [F64, torch.complex128])
def test_singlepass_core_is_the_best_hermitian_one(dtype):
    M, B = gaussian(4, 9, dtype=dtype), gaussian(4, 9, dtype=dtype)
    core = recovery.singlepass_core(M, B)
    torch.testing.assert_close(core, core.mH)
    best = float((core @ B - M).norm())
    for _ in range(20):
        step = gaussian(4, 4, dtype=dtype)
        assert float(((core + 1e-4 * (step + step.mH)) @ B - M).norm()) > best
    assert recovery.singlepass_core(torch.zeros(2, 3, dtype=F64), torch.zeros(2, 3, dtype=F64)).abs().max() == 0


@pytest.mark.parametrize("dtype", [F64, torch.complex128])
def test_hermitian_core_is_the_best_of_its_weighted_problem(dtype):
    M, B = gaussian(4, 9, dtype=dtype), gaussian(4, 9, dtype=dtype)

    def misfit(core):
        rest = core @ B - M
        return float(recovery.RECYCLED_WEIGHT * rest[:, :3].norm() ** 2 + rest[:, 3:].norm() ** 2)

    core = recovery.hermitian_core(M, B, 3)
    torch.testing.assert_close(core, core.mH)
    for _ in range(20):
        step = gaussian(4, 4, dtype=dtype)
        assert misfit(core + 1e-4 * (step + step.mH)) > misfit(core)


@pytest.mark.parametrize("dtype", [F64, torch.complex128])
def test_nystrom_factors_are_the_dense_nystrom_approximation(dtype):
    G = gaussian(30, 8, dtype=dtype)
    A = G @ G.mH + 0.01 * torch.eye(30, dtype=dtype)
    omega = gaussian(30, 6, dtype=dtype)
    for shift in (0.0, 1e-3):
        Y = A @ omega + shift * omega
        Q, R = torch.linalg.qr(Y)
        expected = Y @ pinv(omega.mH @ Y, hermitian=False) @ Y.mH - shift * Q @ Q.mH
        values, rotation = recovery.nystrom_factors(R, omega.mH @ Y, shift)
        V = Q @ rotation
        torch.testing.assert_close((V * values) @ V.mH, expected, rtol=1e-8, atol=1e-8)


def test_indefinite_core_is_truncated():
    values = torch.tensor([4.0, -3.0, 2.0, 1e-9], dtype=F64)
    U = torch.linalg.qr(gaussian(4, 4)).Q
    core = recovery.indefinite_nystrom_core(torch.eye(4, dtype=F64), (U * values) @ U.T, 3)
    torch.testing.assert_close(core, (U[:, :3] / values[:3]) @ U[:, :3].T, rtol=1e-6, atol=1e-9)


def test_asymmetry_of_nothing_is_nothing():
    assert asymmetry(torch.zeros(3, 3)) == 0


def test_bearable_rank_is_large_for_fast_decay_and_leaves_room_for_slow():
    fast, slow = torch.exp(-0.5 * torch.arange(60, dtype=F64)), torch.ones(60, dtype=F64)
    assert recovery.truncation_rank(fast, 60) >= 54
    assert recovery.truncation_rank(slow, 60) <= 30
    assert recovery.truncation_rank(1e-13 * fast, 60) == recovery.truncation_rank(fast, 60)
    assert recovery.truncation_rank(fast[:0], 60) == 0
