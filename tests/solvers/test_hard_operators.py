"""Operators that are not what they should be, or at the ends of the floating-point range: named, never answered wrongly."""

from dataclasses import replace

import pytest
import torch

import curvscope as cs
from curvscope.errors import InvalidType, NotFinite, NotHermitian


class ByProducts:
    """A matrix known by its products only."""

    def __init__(self, matrix):
        self.matrix, self.shape, self.dtype = matrix, matrix.shape, matrix.dtype

    def __matmul__(self, block):
        return self.matrix @ block


@pytest.mark.parametrize(("dtype", "skew"), [(torch.float64, 1e-4), (torch.float32, 0.1)])
def test_an_operator_that_is_not_symmetric_is_refused_by_all(dtype, skew, make_symmetric):
    """Its eigenvalues are not within the residuals: what is called converged, or complete, would be wrong."""
    S, _ = make_symmetric(torch.linspace(-1, 1, 200, dtype=torch.float64))
    turned = torch.randn(200, 200, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tril(-1)
    A = ByProducts((S + skew * (turned - turned.T) / turned.norm() * S.norm()).to(dtype))
    for method in ("krylov", "exact"):
        with pytest.raises(NotHermitian, match="not Hermitian"):
            cs.eigsh(A, k=3, method=method)
    solution = cs.eigsh(ByProducts(S.to(dtype)), k=3)
    with pytest.raises(NotHermitian, match="not Hermitian"):
        cs.certify(A, replace(solution, provenance={}))


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e299])
@pytest.mark.parametrize("method", ["krylov", "hmt", "nystrom"])
def test_scales_whose_squares_are_not_numbers_are_named(scale, method):
    """Norms of 1e-160 are zero: everything would be called converged, with residuals of zero."""
    A = torch.diag(scale * torch.linspace(-1, 3, 60, dtype=torch.float64))
    with pytest.raises(NotFinite, match="multiply the operator by"):
        cs.eigsh(A, k=3, method=method)
    largest = cs.eigsh(A * (1e-200 if scale > 1 else 1e200), k=1, method=method).eigenvalues
    assert 0.5 < float(largest) / (scale * (1e-200 if scale > 1 else 1e200)) < 4


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("method", ["krylov", "hmt", "nystrom", "seigh", "singlepass"])
def test_scales_of_single_precision(scale, method):
    A = torch.diag(0.7 ** torch.arange(60.0))
    expected = cs.eigsh(A, k=1, method=method, max_products=40)
    found = cs.eigsh(scale * A, k=1, method=method, max_products=40)
    torch.testing.assert_close(found.eigenvalues / scale, expected.eigenvalues, rtol=1e-5, atol=0)
    torch.testing.assert_close(found.residual_norms / scale, expected.residual_norms, rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("method", ["exact", "krylov"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_small_ends_of_a_large_operator_have_converged_to_its_rounding(method, dtype, make_symmetric):
    A, _ = make_symmetric(torch.cat([torch.tensor([1e9]), torch.linspace(-1, 1, 60)]).double(), dtype=dtype)
    found = cs.eigsh(A, k=2, which="SA", method=method)
    assert found.status.converged, found.status
    assert dtype == torch.float64 or "or rounding" in found.status.text


@pytest.mark.parametrize("method", ["seigh", "hmt", "nystrom", "singlepass"])
def test_sketches_say_where_they_give_fewer_pairs_than_asked_for(method):
    values = torch.zeros(40, dtype=torch.float64)
    values[:3] = torch.tensor([5.0, 4.0, 3.0])
    found = cs.eigsh(torch.diag(values), k=10, method=method)
    assert found.k == 3
    assert str(found.status).startswith("approximate: 3 of the 10 asked for")
    assert "asked for" not in str(cs.eigsh(torch.diag(values), k=3, method=method).status)
    singular = cs.ssvd(torch.diag(values), num_outer=20, k=10)
    assert "3 of the 10 asked for" in str(singular.status)


@pytest.mark.parametrize("size", [1, 3, 10, 40])
def test_adaptive_sketches_of_small_matrices_reach_any_target(size):
    found = cs.adaptive_seigh(torch.eye(size, dtype=torch.float64), target=1e-3)
    assert found.status.code == "approximate", found.status
    assert found.k == size


@pytest.mark.parametrize(
    ("v0", "named"),
    [
        (torch.ones(20, dtype=torch.complex64), "v0 is a"),
        ("start", "v0='start': pass one of type Tensor, one of type TallMatrix"),
    ],
)
def test_start_blocks_that_are_no_real_tensors_are_named(v0, named):
    with pytest.raises(InvalidType, match=named):
        cs.eigsh(torch.eye(20), k=2, v0=v0)


@pytest.mark.parametrize("which", ["LM", "LA", "SA", "BE"])
def test_what_is_left_beside_locked_pairs_is_not_taken_for_asymmetric(which, make_symmetric):
    """Restarts lock pairs, or leave out, that are most of the norm: what remains is only rounding."""
    for values in ([1e7] + [1e-2] * 99, [-1e7] + [1e-2] * 99, [3.0, -2.0, 1.0] + [0.0] * 97):
        A, _ = make_symmetric(torch.tensor(values, dtype=torch.float64), dtype=torch.float32)
        found = cs.eigsh(ByProducts(A), k=6, which=which, method="krylov", block_size=3, ncv=18, tol=1e-6)
        assert found.status.converged, found.status
        assert found.diagnostics["asymmetry"] < 1e-4


@pytest.mark.parametrize(("k", "block_size"), [(1, 3), (11, 3), (11, 5), (22, 3), (23, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_basis_of_the_whole_space_takes_as_many_products_as_that_has_dimensions(k, block_size, dtype, make_symmetric):
    """With room for all D columns there is nothing to restart for."""
    A, _ = make_symmetric(torch.linspace(-1, 1.1, 23, dtype=torch.float64), dtype=dtype)
    found = cs.eigsh(A, k=k, method="krylov", block_size=block_size, ncv=23, tol=0, max_products=400)
    assert (found.cost.products, found.diagnostics["restarts"]) == (23, 0)
    assert found.status.converged, found.status
    triplets = cs.svds(A, k=k, block_size=block_size, ncv=23, tol=0, max_products=400)
    assert (triplets.cost.products, triplets.status.converged) == (46, True)


@pytest.mark.parametrize(("size", "k"), [(1, 1), (3, 2), (200, 199)])
def test_no_plan_has_more_products_than_the_space_has_dimensions(size, k):
    plan = cs.plan(torch.diag(torch.arange(1.0, size + 1)), k, method="krylov")
    assert max(plan.methods[0].products) <= size + k


@pytest.mark.parametrize("seed", [0, 1])
def test_a_basis_that_spans_the_whole_space_beside_parked_directions_ends(seed):
    """Thirty dimensions, a block as a start: filling with random directions once looked for more for ever."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.tensor([20.0, 8.0, 4.0, *[0.1] * 27]).sqrt()
    x, y = (torch.randn(n, 30, generator=generator) * scale for n in (150, 300))
    start = torch.linalg.eigh(y.mT @ y).eigenvectors[:, -4:]
    solution = cs.eigsh(x.mT @ x / 150, k=6, method="krylov", v0=start, progress=False)
    expected = torch.linalg.eigvalsh(x.double().mT @ x.double() / 150).flip(0)[:6]
    assert torch.allclose(solution.eigenvalues, expected, rtol=1e-4)
