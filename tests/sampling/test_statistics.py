"""Statements about the population from small matrices: theorems, closed forms, and coverage where the truth is known."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.sampling import Folded, Pairs, bracket, bracket_of_sums, close_groups, estimates
from curvscope.sampling._bracket import _complement, _largest_outside
from curvscope.sampling._folded import jackknife_spread, without_each
from curvscope.sampling._student import student_quantile


def orthonormal(rows, columns, seed):
    return torch.linalg.qr(torch.randn(rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))).Q


def pairs_of(matrix, k):
    values, vectors = torch.linalg.eigh(matrix)
    return Pairs(values.flip(0)[:k], vectors.flip(1)[:, :k], rest=float(values.flip(0)[k - 1]))


def folded_of(x: Tensor, k: int, more: int = 4, folds: int = 20, combine=lambda z: z.mT @ z / len(z)) -> Folded:
    """The folds of a sample whose matrices are means of x x', in the full space."""
    parts = x.chunk(folds)
    cores = torch.stack([combine(part) for part in parts])
    shares = torch.tensor([len(part) for part in parts], dtype=torch.float64) / len(x)
    half = sum(len(part) for part in parts[: len(parts) // 2])
    whole, first, second = (pairs_of(combine(part), k + more) for part in (x, x[:half], x[half:]))
    return Folded(shares, cores, whole, (first, second))


def test_quantiles_are_scipys():
    for degrees in (1, 2, 3, 8, 9, 18, 19, 57):
        for probability in (0.6, 0.9, 0.975, 0.999):
            assert math.isclose(student_quantile(probability, degrees), scipy.stats.t.ppf(probability, degrees), rel_tol=1e-10)


@pytest.mark.parametrize("counts", [(3, 3, 3, 3), (5, 2, 4, 1, 3)])
def test_jackknife_of_a_mean_is_its_textbook_error(counts):
    """For a mean of unequal groups the pseudo-values are the groups' means."""
    generator = torch.Generator().manual_seed(1)
    groups = [torch.randn(count, dtype=torch.float64, generator=generator) for count in counts]
    shares = torch.tensor(counts, dtype=torch.float64) / sum(counts)
    means = torch.stack([group.mean() for group in groups])
    mean = (shares * means).sum()
    without = without_each(means.reshape(-1, 1, 1), shares).reshape(-1, 1)
    for number, (share, other) in enumerate(zip(shares, without, strict=True)):
        rest = torch.cat([group for place, group in enumerate(groups) if place != number])
        assert torch.isclose(other[0], rest.mean())
        assert torch.isclose(1 / share * mean - (1 / share - 1) * other[0], means[number])
    expected = ((means - mean).square() / (1 / shares - 1)).mean().sqrt()
    assert torch.isclose(jackknife_spread(mean[None], without, shares)[0], expected)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shift", [0.0, -2.0])
def test_statistics_enclose_every_eigenvalue_for_any_directions(seed, shift):
    """With the population's own matrix in every fold, the inequalities of Courant and Fischer must hold for any V."""
    basis, size, k = orthonormal(12, 12, seed), 12, 5
    values = torch.linspace(4, 0.1, size, dtype=torch.float64) + shift
    matrix = basis * values @ basis.mT
    own = pairs_of(matrix, k + 2)
    halves = tuple(Pairs(own.values, orthonormal(size, k + 2, 100 + 2 * seed + half), own.rest) for half in (0, 1))
    folded = Folded(torch.ones(6, dtype=torch.float64) / 6, matrix.expand(6, size, size), own, halves)
    limits = bracket(folded, k)
    assert (limits.lower <= values[:k] + 1e-12).all()
    for half in halves:
        for j in range(1, k + 1):
            assert _largest_outside(own, half.vectors[:, : j - 1]) >= values[j - 1] - 1e-12
    sums = bracket_of_sums(folded, k)
    assert (sums.lower <= values[:k].cumsum(0) + 1e-12).all()
    assert torch.allclose(sums.upper, values[:k].cumsum(0))


def test_bound_from_pairs_covers_the_rest_of_the_spectrum():
    """The rest of the matrix, and what residuals couple, can only raise the largest eigenvalue outside of V."""
    for seed in range(5):
        noise = torch.randn(15, 15, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        matrix, vectors = noise + noise.mT, orthonormal(15, 5, seed + 50)
        span = vectors.mT @ matrix @ vectors
        values, turn = torch.linalg.eigh(span)
        ritz = (vectors @ turn).flip(1)
        residual = matrix @ ritz - ritz * values.flip(0)
        outside = _complement(ritz)
        rest = float(torch.linalg.eigvalsh(outside.mT @ matrix @ outside)[-1])
        own = Pairs(values.flip(0), ritz, rest, float(residual.norm()))
        for j in (0, 2, 4):
            columns = orthonormal(15, j, seed + 70) if j else ritz[:, :0]
            complement = _complement(columns)
            exact = torch.linalg.eigvalsh(complement.mT @ matrix @ complement)[-1]
            assert _largest_outside(own, columns) >= exact - 1e-10


def test_folds_that_agree_leave_no_width_but_that_of_the_halves():
    core = torch.diag(torch.tensor([5.0, 2.0, 1.0], dtype=torch.float64))
    pairs = pairs_of(core, 2)
    found = estimates(Folded(torch.ones(8) / 8, core.expand(8, 3, 3), pairs, (pairs, pairs)), torch.eye(2).double())
    assert torch.allclose(found.value, torch.tensor([5.0, 2.0]).double())
    assert torch.allclose(found.upper - found.lower, torch.zeros(2).double(), atol=1e-12)


def test_bias_by_halving_removes_a_bias_of_one_over_n():
    """For x x' in one direction and noise in many, E lambda_1(n) = lambda_1 + c / n: halving estimates c / n."""
    generator, size, n, found = torch.Generator().manual_seed(3), 40, 100, []
    scale = torch.full((size,), 0.7, dtype=torch.float64)
    scale[0] = 3.0
    for _ in range(30):
        x = torch.randn(n, size, dtype=torch.float64, generator=generator) * scale
        folded = folded_of(x, 1)
        direct = x[:, 0].square().mean()  # the same noise, without the bias
        found.append([float(folded.whole.values[0] - direct), float(estimates(folded, torch.ones(1, 1).double()).bias)])
    bias, estimated = np.mean(found, 0)
    error = np.std(np.diff(found, axis=1)) / math.sqrt(len(found))
    assert abs(bias - estimated) < 4 * error + 0.15 * bias  # terms of 1 / n^2 are a tenth of it here
    assert estimated > 0.5 * bias > 0


def coverage(make, truth, n, k, seeds):
    bracketed, estimated = np.zeros(k), np.zeros(k)
    for seed in range(seeds):
        folded = folded_of(make(n, torch.Generator().manual_seed(seed)), k)
        limits, found = bracket(folded, k), estimates(folded, torch.eye(k).double())
        bracketed += ((limits.lower <= truth) & (truth <= limits.upper)).numpy()
        estimated += ((found.lower <= truth) & (truth <= found.upper)).numpy()
    return bracketed / seeds, estimated / seeds


@pytest.mark.parametrize("heavy", [False, True])
def test_limits_hold_the_population_where_it_is_known(heavy):
    """Coverage at the nominal 95 % within four standard deviations of its own sampling error."""
    spectrum, seeds = torch.tensor([20.0, 8, 4, *[0.1] * 17], dtype=torch.float64), 40

    def make(n, generator):
        z = torch.randn(n, 20, dtype=torch.float64, generator=generator)
        if heavy:  # Laplace: kurtosis 6, as products of a normal and the root of an exponential number
            z = z * torch.empty(n, 20, dtype=torch.float64).exponential_(generator=generator).sqrt()
        return z * spectrum.sqrt()

    least = 0.95 - 4 * math.sqrt(0.95 * 0.05 / seeds)
    for found in coverage(make, spectrum[:3], 200, 3, seeds):
        assert found.min() >= least


def test_estimates_are_narrower_than_brackets():
    spectrum = torch.tensor([20.0, 8, 4, *[0.1] * 17], dtype=torch.float64)
    x = torch.randn(400, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * spectrum.sqrt()
    limits, found = bracket(folded_of(x, 3), 3), estimates(folded_of(x, 3), torch.eye(3).double())
    assert (found.upper - found.lower < limits.upper - limits.lower).all()


def test_copies_are_one_group_and_their_mean_is_known():
    """Three equal eigenvalues: their own intervals are wrong for the first and the last, that of the mean is right."""
    spectrum = torch.tensor([30.0, 5, 5, 5, 1, *[0.05] * 15], dtype=torch.float64)
    held, grouped, seeds = 0, 0, 30
    for seed in range(seeds):
        x = torch.randn(300, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * spectrum.sqrt()
        folded = folded_of(x, 5)
        spread = estimates(folded, torch.eye(5).double()).spread
        grouped += (1, 3) in close_groups(folded.whole.values[:5], spread, 0.05)
        mean = estimates(folded, torch.tensor([[0, 1, 1, 1, 0]]).double() / 3)
        held += bool(mean.lower[0] <= 5 <= mean.upper[0])
    assert held / seeds >= 0.95 - 4 * math.sqrt(0.95 * 0.05 / seeds)
    assert grouped / seeds > 0.3  # copies repel one another in the sample, often by two standard errors


def test_groups_at_the_end_may_go_on():
    values, spread = torch.tensor([9.0, 5.0, 4.9]), torch.full((3,), 0.1)
    assert close_groups(values, spread, 4.8) == [(0, 0), (1, 3)]
    assert close_groups(values, spread, None) == [(0, 0), (1, 2)]
    assert close_groups(values, torch.zeros(3), 1.0) == [(0, 0), (1, 1), (2, 2)]


def test_negative_values_have_their_longer_side_below():
    cores = torch.tensor([-3.0, -5.0, -3.0, -5.0], dtype=torch.float64).reshape(4, 1, 1)
    pairs = Pairs(torch.tensor([-4.0], dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64), rest=-4.0)
    found = estimates(Folded(torch.ones(4) / 4, cores, pairs, (pairs, pairs)), torch.ones(1, 1).double())
    assert float(found.value - found.lower) > float(found.upper - found.value) > 0


def test_numerical_errors_widen_the_interval():
    cores = torch.tensor([3.0, 5.0, 3.0, 5.0], dtype=torch.float64).reshape(4, 1, 1)
    pairs = Pairs(torch.tensor([4.0], dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64), rest=0.0)
    folded = Folded(torch.ones(4) / 4, cores, pairs, (pairs, pairs))
    exact, rough = (estimates(folded, torch.ones(1, 1).double(), numerical=error) for error in (0.0, 0.25))
    assert math.isclose(float(exact.lower - rough.lower), 0.25)


def test_too_few_folds_or_pairs_are_refused():
    core = torch.eye(2).double()
    pairs = Pairs(torch.ones(1).double(), core[:, :1], 1.0)
    with pytest.raises(InvalidArgument, match="3 folds"):
        Folded(torch.ones(3) / 3, core.expand(3, 2, 2), pairs, (pairs, pairs))
    folded = Folded(torch.ones(4) / 4, core.expand(4, 2, 2), pairs, (pairs, pairs))
    with pytest.raises(InvalidArgument, match="halves have 1 pairs"):
        bracket(folded, 2)
