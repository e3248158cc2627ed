"""Concentration of a spectrum against dense matrices: exact norms, estimated ones, what is refused."""

import math

import pytest
import torch

import curvscope as cs
from curvscope.errors import InvalidArgument

SPECTRA = {
    "indefinite": torch.tensor([-5.0, 4.0, 3.0, -2.0, 1.0, 0.5, 0.0]),
    "flat": torch.ones(9),
    "one outlier": torch.tensor([100.0] + [1e-3] * 20),
}


def dense(values, seed=0):
    basis = torch.linalg.qr(torch.randn(len(values), len(values), generator=torch.Generator().manual_seed(seed)).double()).Q
    return basis @ torch.diag(values.double()) @ basis.mT


@pytest.mark.parametrize("name", SPECTRA)
def test_it_is_kappa_of_all_eigenvalues(name):
    values = SPECTRA[name]
    A = dense(values)
    solution = cs.eigsh(A, k=4)
    found = cs.spectral_concentration(solution, float(torch.linalg.matrix_norm(A)))
    assert found.value.tolist() == pytest.approx([cs.kappa(values.double(), k=k) for k in (1, 2, 3, 4)], rel=1e-6)
    assert found.stderr.tolist() == [0.0] * 4
    root = cs.spectral_concentration(solution, float(torch.linalg.matrix_norm(A)), squared=False)
    assert root.at(2) == pytest.approx(cs.kappa(values.double(), k=2, squared=False), rel=1e-6)


def test_an_estimated_norm_gives_an_error_that_holds():
    values = torch.cat([torch.tensor([30.0, -20.0, 10.0]), torch.linspace(1, 2, 300)])
    A, truth = dense(values), cs.kappa(values.double(), k=3)
    solution = cs.eigsh(A, k=3)
    outside = 0
    for seed in range(20):
        found = cs.spectral_concentration(solution, cs.frobenius_norm(A, max_products=20, deflate=solution, seed=seed))
        assert 0 < float(found.stderr[2]) < 0.05
        outside += abs(found.at(3) - truth) > 2 * float(found.stderr[2])
    assert outside <= 4


def test_what_is_no_spectrum_by_magnitude_is_refused():
    A = dense(SPECTRA["indefinite"])
    with pytest.raises(InvalidArgument, match="descend by magnitude"):
        cs.spectral_concentration(torch.tensor([1.0, 3.0]), 5.0)
    with pytest.raises(InvalidArgument, match="norm of the same matrix"):
        cs.spectral_concentration(cs.eigsh(A, k=3), 1.0)
    with pytest.raises(InvalidArgument, match="positive Frobenius norm"):
        cs.spectral_concentration(cs.eigsh(A, k=3), 0.0)
    with pytest.raises(InvalidArgument, match="finite, positive Frobenius norm"):
        cs.spectral_concentration(cs.eigsh(A, k=3), math.inf)
    with pytest.raises(InvalidArgument, match="NaN"):
        cs.spectral_concentration(torch.tensor([3.0, math.nan]), 5.0)
    with pytest.raises(InvalidArgument, match="choose 1 to 3"):
        cs.spectral_concentration(cs.eigsh(A, k=3), float(torch.linalg.matrix_norm(A))).at(4)
