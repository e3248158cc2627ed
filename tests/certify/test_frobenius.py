"""A-posteriori estimates against exact norms, closed-form probabilities and brute force."""

import math

import pytest
import torch
from scipy.stats import chi2

import curvscope as cs
from curvscope.certificates import failure_probabilities, probes_needed, sample
from curvscope.errors import InvalidArgument
from curvscope.problems import spectrum
from curvscope.tall import InMemory

F64 = torch.float64


@pytest.mark.parametrize("dtype", [F64, torch.complex128])
def test_samples_are_the_errors_of_every_truncation(dtype):
    A = torch.randn(20, 30, dtype=dtype)
    U = torch.linalg.qr(torch.randn(20, 4, dtype=dtype)).Q
    V = torch.linalg.qr(torch.randn(30, 4, dtype=dtype)).Q
    s = torch.tensor([4.0, 3, 2, 1], dtype=F64)
    probes = torch.randn(30, 5, dtype=dtype)
    products = A @ probes
    found = sample(probes, products, InMemory(U), s, InMemory(V))
    assert torch.equal(products, A @ probes)  # they are used again by those who grow a sketch
    torch.testing.assert_close(found.norm, (A @ probes).abs().square().sum(0))
    for rank in range(5):
        truncated = (U[:, :rank] * s[:rank]) @ V[:, :rank].mH
        torch.testing.assert_close(found.error[rank], ((A - truncated) @ probes).abs().square().sum(0))


def test_small_errors_do_not_cancel():
    A = spectrum("exponential", 200, rank=1, decay=1.0)
    solution = cs.eigsh(A, 12, method="exact")
    estimate = cs.posterior_error(A, solution, num_probes=40)
    expected = float(A.values[12:].norm())  # 2e-5
    assert estimate.error == pytest.approx(expected, rel=0.5)
    exact = torch.stack([A.values[r:].norm() for r in range(13)])
    assert bool(((estimate.truncation_errors / exact - 1).abs() < 0.5).all())


@pytest.mark.parametrize("solve", ["seigh", "ssvd"])
def test_estimate_lies_within_its_standard_errors_and_bounds(solve):
    if solve == "seigh":
        A = spectrum("power", 300, decay=1, negative=0.4)
        solution = cs.seigh(A, num_outer=30)
        V = solution.eigenvectors.to_tensor()
        difference = A @ torch.eye(300, dtype=F64) - (V * solution.eigenvalues) @ V.T
    else:
        A = spectrum("power", 300, columns=200, decay=1)
        solution = cs.ssvd(A, num_outer=30)
        difference = A @ torch.eye(200, dtype=F64) - (solution.U.tensor * solution.S) @ solution.V.tensor.T
    estimate = cs.posterior_error(A, solution, num_probes=60, seed=5)
    true = float(difference.norm())
    assert abs(estimate.error - true) < 5 * estimate.error_stderr
    assert abs(estimate.norm - float(A.values.norm())) < 5 * estimate.norm_stderr
    low, high = estimate.bounds(0.99)
    assert low < true < high
    assert estimate.norm_bounds(0.99)[0] < float(A.values.norm()) < estimate.norm_bounds(0.99)[1]
    values = solution.eigenvalues if solve == "seigh" else solution.S
    assert estimate.approximation == pytest.approx(float(values.norm()))
    assert estimate.relative == pytest.approx(estimate.error / estimate.norm)
    assert estimate.products == 60
    assert "60 probes" in str(estimate)


def test_probes_share_nothing_with_the_sketch_and_the_block_size_changes_nothing():
    A = spectrum("power", 200)
    solution = cs.seigh(A, num_outer=20, seed=0)
    one, other = (cs.posterior_error(A, solution, num_probes=20, seed=0, block_size=b) for b in (3, 20))
    torch.testing.assert_close(one.samples.error, other.samples.error)
    # Probes that were columns of the sketch would see no error at all.
    assert one.error == pytest.approx(cs.posterior_error(A, solution, num_probes=20, seed=1).error, rel=0.5)


def test_failure_probabilities_are_those_of_theory():
    for probes, low, high in ((10, 0.38, 0.62), (50, 0.008, 0.094), (100, 6e-5, 0.009)):
        assert failure_probabilities(probes, 0.5) == (pytest.approx(low, rel=0.1), pytest.approx(high, rel=0.1))
    assert failure_probabilities(10, 0.5, is_complex=True) == pytest.approx(failure_probabilities(20, 0.5))
    assert failure_probabilities(10, 1.5)[0] == 0


def test_bounds_hold_for_rank_one_errors_exactly():
    """There q estimate / truth is chi-squared with q degrees of freedom: the worst case, known in closed form."""
    for probes in (1, 5, 10, 50, 200):
        for epsilon in (0.1, 0.3, 0.5, 0.9):
            low, high = failure_probabilities(probes, epsilon)
            assert chi2.cdf(probes * (1 - epsilon), probes) <= low
            assert chi2.sf(probes * (1 + epsilon), probes) <= high


def test_bounds_of_an_estimate_invert_the_probabilities():
    estimate = cs.posterior_error(torch.eye(30, dtype=F64), cs.eigsh(torch.eye(30, dtype=F64), 5), num_probes=25)
    low, high = estimate.bounds(0.9)
    assert failure_probabilities(25, 1 - (estimate.error / high) ** 2)[0] == pytest.approx(0.05, rel=1e-6)
    assert failure_probabilities(25, (estimate.error / low) ** 2 - 1)[1] == pytest.approx(0.05, rel=1e-6)
    wider = estimate.bounds(0.99)
    assert wider[0] < low < high < wider[1]


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("epsilon", [0.2, 0.5])
def test_probes_needed_is_the_smallest_number(confidence, epsilon):
    probes = probes_needed(confidence, epsilon)
    assert sum(failure_probabilities(probes, epsilon)) <= 1 - confidence < sum(failure_probabilities(probes - 1, epsilon))


@pytest.mark.parametrize("confidence", [None, 0.95])
def test_scree_holds_the_true_one(confidence):
    A = spectrum("power", 300, decay=1.5)
    curve = cs.scree(A, cs.seigh(A, num_outer=60), num_probes=60, confidence=confidence)
    true = torch.stack([A.values[r:].square().sum() for r in range(61)]) / A.values.square().sum()
    allowed = 0.3 if confidence is None else 0.0  # point estimates are no bounds
    assert bool((curve.lower <= true * (1 + allowed)).all())
    assert bool((true <= curve.upper * (1 + allowed)).all())
    rank = curve.smallest_rank(0.1)
    assert rank is not None
    assert float(true[rank]) <= 0.1 * (1 + allowed)
    assert curve.smallest_rank(0) is None
    axes = curve.plot()
    assert [line.get_label() for line in axes.lines] == ["upper bound", "lower bound"]
    assert curve.plot(axes) is axes


def test_scree_formula():
    A = torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.5], dtype=F64))
    solution = cs.eigsh(A, 2, method="exact")
    estimate = cs.posterior_error(A, solution, num_probes=10)
    curve = cs.scree(A, solution, num_probes=10)
    tails, error, norm = [math.hypot(3, 2), 2.0, 0.0], estimate.error, estimate.norm
    expected = torch.tensor([((t + error) / norm) ** 2 for t in tails], dtype=F64)
    torch.testing.assert_close(curve.upper, expected)
    expected = torch.tensor([min(1, max(0, t - error) ** 2 / norm**2) for t in tails], dtype=F64)
    torch.testing.assert_close(curve.lower, expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda A, s: cs.posterior_error(A, s, num_probes=0), "num_probes=0"),
        (lambda A, s: cs.posterior_error(torch.eye(4), s), "pass the operator that was decomposed"),
        (lambda A, s: cs.posterior_error(A, s).bounds(1.0), "confidence=1.0"),
        (lambda A, s: probes_needed(0.9, 1.5), "relative_error=1.5"),
        (lambda A, s: probes_needed(2, 0.5), "confidence=2"),
        (lambda A, s: probes_needed(0.9, 1e-7), "takes more than 10,000,000 probes"),
        (lambda A, s: failure_probabilities(0, 0.5), "num_probes=0"),
        (lambda A, s: failure_probabilities(3, 0), "relative_error=0"),
    ],
)
def test_bad_requests(call, message):
    A = torch.eye(6)
    with pytest.raises(InvalidArgument, match=message):
        call(A, cs.eigsh(A, 2))
    with pytest.raises(TypeError, match="expected a solution"):
        cs.posterior_error(A, A)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [F64, torch.complex128])
@pytest.mark.parametrize("rank", [1, 40])
def test_probability_bounds_hold_over_seeded_trials(rank, dtype):
    """2,000 trials of the whole function; a count of violations may exceed its expected bound by 4 binomial deviations."""
    trials, probes = 2000, 10
    values = torch.ones(rank, dtype=F64)
    A = spectrum("exponential", 60, rank=1, decay=50.0, dtype=dtype) if rank == 1 else torch.eye(rank, dtype=dtype)
    A = cs.as_operator(A)
    nothing = cs.eigsh(torch.zeros(A.shape[0], A.shape[0], dtype=F64), 1)
    if dtype.is_complex:
        nothing.eigenvectors.tensor = nothing.eigenvectors.tensor.to(dtype)
        nothing.eigenvectors.dtype = dtype
    true = float(values.norm())
    ratios = [
        cs.posterior_error(A, nothing, num_probes=probes, seed=seed, progress=False).error ** 2 / true**2
        for seed in range(trials)
    ]
    ratios = torch.tensor(ratios)
    for epsilon in (0.3, 0.5, 0.7, 0.9):
        low, high = failure_probabilities(probes, epsilon, is_complex=dtype.is_complex)
        for bound, violated in ((low, ratios <= 1 - epsilon), (high, ratios >= 1 + epsilon)):
            assert float(violated.double().mean()) <= bound + 4 * (bound * (1 - bound) / trials) ** 0.5
