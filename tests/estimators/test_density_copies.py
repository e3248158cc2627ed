"""Densities of spectra with many copies: null spaces, few distinct eigenvalues, known ranks."""

import math

import pytest
import torch

import curvscope as cs
from curvscope.estimators import _gauss, _low_rank as low_rank, _quadrature as quadrature
from curvscope.estimators._resolved import take_out
from curvscope.measurement import lanczos
from curvscope.operators import RankBound
from curvscope.operators.base import Operator

SIZE = 600
GAUSS = torch.randn(SIZE, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


class Diagonal(Operator):
    """Eigenvalues on the diagonal: uniformly random probes do not see the eigenvectors, the statistics are the same."""

    hermitian, dtype, device = True, torch.float64, torch.device("cpu")

    def __init__(self, values, bound=None):
        self.values, self.shape, self.bound = values, (len(values), len(values)), bound

    def _apply(self, block):
        return self.values[:, None] * block

    def _fingerprint(self):
        return "diagonal"

    def rank_bound(self):
        return self.bound


def with_bulk(*tops, width=0.1):
    """Eigenvalues, each (value, copies), above a bulk."""
    tops = [torch.full((copies,), value, dtype=torch.float64) for value, copies in tops]
    return torch.cat([*tops, width * GAUSS[: SIZE - sum(len(top) for top in tops)]])


def covariance(samples):
    X = torch.randn(samples, SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return torch.cat([torch.zeros(SIZE - samples).double(), torch.linalg.eigvalsh(X @ X.T / samples)])


SPECTRA = {
    "sample covariance": covariance(150),
    "zeros below two groups": torch.cat([torch.zeros(500), torch.linspace(1, 2, 90), torch.linspace(5, 10, 10)]).double(),
    "zeros in the middle": torch.cat([torch.zeros(540), torch.linspace(-3, -1, 20), torch.linspace(1, 2, 40)]).double(),
    "50 copies": with_bulk((2.0, 50)),
    "8 copies": with_bulk((2.0, 8)),
    "9 and 3 copies": with_bulk((2.0, 9), (-2.0, 3)),
    "a narrow cluster of 20": torch.cat([1 + 1e-7 * GAUSS[:20], 0.1 * GAUSS[20:]]),
    "10 distinct values": torch.arange(1.0, 11).double().repeat_interleave(60),
    "hypercube": torch.tensor([bin(i).count("1") for i in range(SIZE)]).double(),
    "all equal": torch.full((SIZE,), 2.0).double(),
    "one huge": torch.cat([torch.tensor([1e4]).double(), GAUSS[1:]]),
}


@pytest.mark.parametrize("probes", [1, 2, 8])
@pytest.mark.parametrize("name", SPECTRA)
def test_masses_and_sums_are_within_their_standard_errors(name, probes):
    values = SPECTRA[name]
    low, high = float(values.min()), float(values.max())
    cuts = [low + share * (high - low) + 1e-6 for share in (0.01, 0.3, 0.7, 0.96)]
    for seed in range(3):
        found = cs.density(Diagonal(values), num_probes=probes, num_steps=30, method="lanczos", seed=seed)
        assert found.count().value == pytest.approx(SIZE)
        pairs = [(found.trace, values.sum()), (found.frobenius_norm, values.norm())]
        pairs += [(found.count(high=cut), (values <= cut).sum()) for cut in cuts]
        for estimate, exact in pairs:
            assert abs(estimate.value - float(exact)) <= 4 * estimate.stderr + 1e-7 * abs(float(exact)), estimate
        assert "Spectrum of a 600-parameter" in str(found)
        assert len(found.extremes()) >= len(found.exact[found.exact >= high])
        assert found.bulk_edges()[0] <= found.bulk_edges()[1]


@pytest.mark.parametrize(("copies", "counted"), [(1, 1), (3, 3), (6, 6), (8, 0), (9, 0), (40, 0)])
def test_copies_are_counted_only_where_their_number_is_known(copies, counted):
    for seed in range(4):
        found = cs.density(Diagonal(with_bulk((2.0, copies))), num_steps=30, method="lanczos", seed=seed)
        assert int((found.exact > 1.9).sum()) == counted


def test_rounding_of_small_eigenvalues_is_no_second_copy():
    """As in the Laplacian of a barbell: recurrences end, and Ritz vectors of small eigenvalues beside large ones are rough."""
    small = 4 * torch.sin(torch.arange(22) * math.pi / 48).double() ** 2
    values = torch.cat([small, torch.full((SIZE - 24,), 500.0), torch.full((2,), 501.0)]).double()
    for seed in range(3):
        found = cs.density(Diagonal(values), num_steps=50, method="lanczos", seed=seed)
        torch.testing.assert_close(found.exact, torch.cat([small, values[-2:]]), rtol=1e-6, atol=1e-9)
        assert found.trace.value == pytest.approx(float(values.sum()))


def test_simple_eigenvalues_above_many_zeros_leave_nothing_open():
    """The recurrences come to an end, the simple eigenvalues are counted, and zeros are the rest."""
    values = torch.cat([torch.zeros(SIZE - 12), torch.arange(1.0, 13)]).double()
    found = cs.density(Diagonal(values), num_steps=30, method="lanczos")
    assert len(found.exact) == 12
    assert (found.count(-0.5, 0.5).value, found.trace.value) == pytest.approx((SIZE - 12, 78))
    assert found.trace.stderr < 1e-9


def test_counts_that_contradict_the_plain_quadrature_are_not_used(monkeypatch):
    values = SPECTRA["sample covariance"]

    def wrong(found, unit, count):
        taken, weights = take_out(found, unit, count)
        gone = weights.where(found.nodes.abs() > 1e-9, 0.0)  # 8 zeros for 450, as if the rest were known
        return torch.cat([taken, torch.zeros(8).double()]), gone / gone.sum(dim=1, keepdim=True)

    monkeypatch.setattr(quadrature, "take_out", wrong)
    with pytest.warns(RuntimeWarning, match="contradict the plain quadrature"):
        found = cs.density(Diagonal(values), num_steps=30, method="lanczos")
    assert found.trace.value == pytest.approx(float(values.sum()), abs=4 * found.trace.stderr)


def test_weights_of_recurrences_are_shares():
    start = torch.randn(SIZE, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = with_bulk((2.0, 5))
    made = lanczos(lambda block: values[:, None] * block, start, 25, unit=2e-16, reorthogonalize=True)
    found = _gauss.quadrature(made, 25, 2e-16)
    _, weights = take_out(found, 2e-16, SIZE)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(3).double())


# --- known ranks ----------------------------------------------------------------------------------------------------------


def classifier(samples=20, classes=4):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 12), torch.nn.Tanh(), torch.nn.Linear(12, classes))
    return model, [(torch.randn(samples, 6), torch.randint(classes, (samples,)))]


@pytest.mark.parametrize(
    ("make", "loss", "rank", "words"),
    [
        (cs.ggn, torch.nn.CrossEntropyLoss(), 60, "N (C - 1) for N = 20"),
        (cs.empirical_fisher, torch.nn.CrossEntropyLoss(), 20, "N = 20 samples"),
        (cs.monte_carlo_fisher, torch.nn.CrossEntropyLoss(), 20, "N = 20 samples"),
    ],
)
def test_ranks_of_matrices_of_few_samples(make, loss, rank, words):
    operator = make(*[classifier()[0], loss, classifier()[1]], dtype=torch.float64)
    D = operator.shape[0]
    exact = torch.linalg.eigvalsh(operator @ torch.eye(D, dtype=torch.float64))
    assert operator.rank_bound().rank == rank
    assert int((exact > 1e-12 * exact[-1]).sum()) <= rank
    found = cs.density(operator)
    torch.testing.assert_close(found.exact, exact, rtol=1e-9, atol=1e-12)
    assert found.products == 2 * (rank + low_rank.MORE) < D + 50
    assert words in str(found)
    assert (2 * operator).rank_bound().rank == rank
    assert operator.square().rank_bound().rank == rank
    assert operator.shift(1.0).rank_bound() is None
    limited = cs.density(operator, num_probes=4, num_steps=8)  # too few products for the range
    zeros = limited.count(-1e-9, 1e-9)
    assert f"at least {D - rank} zeros" in str(limited)
    assert abs(zeros.value - int((exact.abs() < 1e-9).sum())) <= 4 * zeros.stderr


def test_ranks_of_other_losses_count_outputs():
    torch.manual_seed(0)
    model, data = torch.nn.Linear(30, 2).double(), [(torch.randn(5, 30).double(), torch.randn(5, 2).double())]
    assert cs.ggn(model, torch.nn.MSELoss(), data).rank_bound().rank == 10
    found = cs.density(cs.ggn(model, torch.nn.MSELoss(), data))
    assert (found.products, int((found.exact > 1e-12).sum())) == (36, 10)
    assert cs.hessian(model, torch.nn.MSELoss(), data).rank_bound() is None


def test_a_bound_that_is_wrong_is_noticed():
    values = torch.cat([torch.zeros(SIZE - 30), torch.linspace(1, 2, 30)]).double()
    with pytest.warns(RuntimeWarning, match="rank is larger than the bound 25"):
        found = cs.density(Diagonal(values, RankBound(25, "a mistake")), num_steps=40)
    assert abs(found.trace.value - 45) <= 4 * found.trace.stderr + 1e-9
    right = cs.density(Diagonal(values, RankBound(30, "by construction")), num_steps=40)
    assert (right.trace.value, right.trace.stderr) == (pytest.approx(45), 0)
    assert not math.isnan(right.quantile(0.5))
