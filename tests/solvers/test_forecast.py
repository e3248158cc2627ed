"""Products that are forecast from known eigenvalues, beside those that solves take."""

import pytest
import torch
from scipy.sparse import diags
from scipy.sparse.linalg import aslinearoperator

import curvscope as cs
from curvscope.errors import InvalidArgument
from curvscope.solvers import EigenProblem, Krylov, krylov_options
from curvscope.solvers.planning import _forecast as forecast
from curvscope.solvers.planning._forecast import forecast_products, krylov_products, model
from curvscope.solvers.planning._plan import _choice
from curvscope.solvers.planning._result import MethodPlan

SIZE = 4000
RANKS = torch.arange(1, SIZE + 1, dtype=torch.float64)
SIGNS = (-1.0) ** RANKS


def clustered():
    values = 1 / RANKS
    values[15:25] = values[15]  # about the 20th
    return values


SPECTRA = {
    "slow": (RANKS**-0.5 * SIGNS, 20),
    "harmonic": (1 / RANKS, 20),
    "fast": (torch.exp(-0.1 * RANKS) + 1e-9, 30),
    "cluster": (clustered(), 30),
    "outliers and a bulk": (torch.cat([torch.linspace(1, 0.5, 20, dtype=torch.float64), 1e-3 * RANKS[20:].flip(0) / SIZE]), 25),
}


def options(k, **changed):
    asked = {"tol": 1e-3, "block_size": 2, "max_products": 500} | changed
    problem = EigenProblem(cs.problems.spectrum("power", SIZE), k, tol=asked.pop("tol"), seed=1)
    return krylov_options(problem, Krylov(**asked))


@pytest.fixture(scope="module")
def solved():
    """The products that each spectrum takes, from another start than the models'."""
    counts = {}
    for name, (values, _) in SPECTRA.items():
        found = cs.eigsh(
            aslinearoperator(diags(values.float().numpy())), 20, method="krylov", block_size=2, preflight=False, progress=False
        )
        assert found.status.converged
        counts[name] = found.cost.products
    return counts


@pytest.mark.parametrize("name", SPECTRA)
def test_as_many_products_as_the_solve(name, solved):
    """From all eigenvalues, and from as few more than k as show what comes after them."""
    values, enough = SPECTRA[name]
    for known in (SIZE, enough):
        made = forecast_products(values[:known], SIZE, options(20), torch.float32)
        assert made == pytest.approx(solved[name], rel=0.15)


def test_many_pairs_are_modelled_by_some_of_them(monkeypatch):
    values = RANKS**-0.7 * SIGNS
    whole = forecast_products(values, SIZE, options(60, max_products=1000, block_size=4), torch.float32)
    monkeypatch.setattr(forecast, "MOST_PAIRS", 20)
    part = forecast_products(values, SIZE, options(60, max_products=1000, block_size=4), torch.float32)
    assert part == pytest.approx(whole, rel=0.15)
    assert part != whole


def test_no_more_than_the_budget_and_exactly_it_without_a_tolerance():
    flat = torch.linspace(1, 2, SIZE, dtype=torch.float64).flip(0)
    assert krylov_products(flat, SIZE, options(20, max_products=60), torch.float32)[1:] == (60, 60)
    assert krylov_products(flat, SIZE, options(20, max_products=60, tol=0.0), torch.float32) == (60, 60, 60)
    assert krylov_products(None, SIZE, options(20, max_products=60, tol=0.0), torch.float32) == (60, 60, 60)


def test_a_model_has_all_eigenvalues():
    known = torch.tensor([8.0, -6.0, 4.0, 3.0, -2.0, 2.0], dtype=torch.float64)
    values, counts = model(known, 1_000_000, fine=20, step=2)
    assert counts.sum() == 1_000_000
    assert len(values) < 700
    assert set(values[:3].tolist()) <= set(known.tolist())
    tail = values[3:]
    assert bool((tail.abs()[10:].diff() <= 0).all())
    assert float((tail < 0).double().mean()) == pytest.approx(1 / 3, abs=0.01)
    assert torch.equal(model(torch.zeros(3, dtype=torch.float64), 50, fine=10)[0], torch.zeros(50, dtype=torch.float64))


def test_a_plan_takes_what_is_known():
    A = cs.problems.spectrum("low_rank_diagonal", SIZE, rank=20, negative=0.3, dtype=torch.float32)
    blind = cs.plan(A, 20, method="krylov")["krylov"]
    told = cs.plan(A, 20, method="krylov", spectrum=A.values[:40])["krylov"]
    solution = cs.eigsh(A, 20, method="krylov", progress=False)
    actual = solution.cost.products + solution.cost.certificate_products
    assert told.products[1] == pytest.approx(actual, rel=0.1)
    assert told.products[0] <= actual <= told.products[2]
    assert blind.products[0] <= actual <= blind.products[2]
    assert told.products[2] / told.products[0] < blind.products[2] / blind.products[0]
    assert told.memory < blind.memory + 1e6
    from_solution, from_values = (
        cs.plan(A, 10, method="krylov", spectrum=known)["krylov"].products for known in (solution, solution.eigenvalues.flip(0))
    )
    assert from_solution == from_values


def test_blind_plans_count_residuals_once():
    assert krylov_products(None, SIZE, options(20), torch.float32)[1] + 20 == 2.3 * 20 + 60 + 17 * 2


@pytest.mark.parametrize(
    "wrong", [torch.ones(3), torch.ones(4, 4), torch.full((5,), float("nan")), torch.ones(5, dtype=torch.cfloat)]
)
def test_what_is_no_spectrum_is_refused_before_any_product(wrong):
    A = cs.problems.spectrum("power", 300)
    A._apply = lambda block: pytest.fail("multiplied")
    with pytest.raises(InvalidArgument, match=r"spectrum: got .* expected an earlier solution or a vector of 4 \(k\) to 300"):
        cs.plan(A, 4, spectrum=wrong)


@pytest.mark.parametrize(
    ("size", "products", "expected"),
    [(600, 40, "exact"), (1500, 40, "exact"), (4000, 40, "krylov"), (4000, 2000, "exact"), (40_000, 2000, "krylov")],
)
@pytest.mark.parametrize("seconds", [(0.0, 1e9), (1e9, 0.0)])
def test_the_choice_is_made_by_counts_whatever_the_clock_says(size, products, expected, seconds):
    operator = cs.problems.spectrum("power", size)
    plans = [
        MethodPlan("krylov", (1, products, products), seconds=(0, seconds[0], seconds[0])),
        MethodPlan("exact", (size, size, size), seconds=(0, seconds[1], seconds[1])),
    ]
    assert _choice(plans, operator, 2) == expected
    assert _choice(plans[:1], operator, 2) == "krylov"
    assert _choice([], operator, 2) == ""
