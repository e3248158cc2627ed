"""eigsh_for_overlap: the interval holds the exact overlap, is as narrow as asked, and says where it cannot be."""

import pytest
import torch

import curvscope as cs
from curvscope.errors import InvalidArgument


def problem(values, seed=0):
    generator = torch.Generator().manual_seed(seed)
    size = len(values)
    U = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q
    A = (U * values) @ U.T
    ranking = cs.Ranking(torch.randperm(size, generator=generator), "random")
    exact = U[ranking.order].square().cumsum(0).cumsum(1).diagonal() / torch.arange(1, size + 1)
    return (A + A.T) / 2, ranking, exact


SIGNS = torch.tensor([1.0, -1.0], dtype=torch.float64)


@pytest.mark.parametrize("rtol", [1e-1, 1e-3])
def test_every_interval_holds_the_exact_overlap_and_is_narrow(rtol):
    values = torch.arange(1, 301, dtype=torch.float64) ** -1.2 * SIGNS.repeat(150)
    A, ranking, exact = problem(values)
    solution = cs.eigsh_for_overlap(A, ranking, 20, rtol=rtol)
    curve = cs.overlap(solution, ranking)
    assert solution.status.converged
    assert solution.k >= 20
    assert "every overlap up to k = 20 is known within" in str(solution.status)
    assert bool(((curve.upper - curve.lower) / 2 <= rtol * curve.value)[:20].all())
    assert bool((curve.lower <= exact[: solution.k] + 1e-12).all())
    assert bool((exact[: solution.k] <= curve.upper + 1e-12).all())
    assert solution.basis is None
    assert solution.cost.certificate_products >= 2 * solution.k


def test_it_goes_on_from_its_own_basis():
    """Later rounds extend the first: the products are those of one solve, not of the sum of several."""
    values = torch.arange(1, 601, dtype=torch.float64) ** -0.3
    A, ranking, _ = problem(values)
    loose = cs.eigsh_for_overlap(A, ranking, 40, block_size=4, rtol=0.3)
    tight = cs.eigsh_for_overlap(A, ranking, 40, block_size=4, rtol=1e-10)
    alone = cs.eigsh(A, k=tight.k, block_size=4, method="krylov", tol=tight.provenance["options"]["tol"])
    assert loose.cost.products < tight.cost.products < 1.5 * alone.cost.products


def test_a_tie_in_magnitude_is_named():
    """Between k = 4 and 5 the eigenspace is not determined: no interval can be narrow there, and it says so."""
    values = torch.cat([torch.tensor([9.0, 8.0, 7.0, 6.0, -6.0, 5.0]), torch.linspace(1, 0.1, 94)]).double()
    A, ranking, _ = problem(values, seed=1)
    solution = cs.eigsh_for_overlap(A, ranking, 6, rtol=1e-3)
    assert solution.status.code == "partly"
    assert "at 1 of 6 k (4; widest" in str(solution.status)
    assert float(solution.residual_norms[:6].max()) < 1e-9


def test_a_budget_that_ran_out_is_named_as_such():
    """Wide intervals of pairs that did not converge are not blamed on ties; the stated failure counts the rounds."""
    A, ranking, _ = problem(torch.arange(1, 601, dtype=torch.float64) ** -0.3)
    solution = cs.eigsh_for_overlap(A, ranking, 20, rtol=1e-6, max_products=60)
    assert solution.status.code == "partly"
    assert "raise max_products (now 60)" in str(solution.status)
    assert "nearly equal" not in str(solution.status)
    tight = cs.eigsh_for_overlap(A, ranking, 40, block_size=4, rtol=1e-10)
    assert tight.certificate.tail.failure == pytest.approx(2e-6)


def test_bad_requests():
    A, ranking, _ = problem(torch.linspace(1, 0.1, 30).double())
    for made, options, message in [
        (ranking, {"rtol": 0.0}, "rtol=0.0: choose a number above 0"),
        (ranking, {"rtol": 1.5}, "choose 0 < rtol < 1"),
        (cs.Ranking(torch.arange(7), "short"), {}, "operator's 30 parameters"),
        (ranking, {"keep_basis": True, "run": "run"}, "leave keep_basis out"),
    ]:
        with pytest.raises(InvalidArgument, match=message):
            cs.eigsh_for_overlap(A, made, 3, **options)
    with pytest.raises(TypeError, match="method"):
        cs.eigsh_for_overlap(A, ranking, 3, method="hmt")
    with pytest.raises(TypeError, match=r"use cs\.eigsh_for_overlap"):
        cs.eigsh(A, 3, certify_overlap=ranking)
