"""Masked Lanczos quadrature against dense exact overlaps: clusters, plus/minus pairs, tiny scales, a real Hessian."""

import pytest
import torch
from torch import nn

import curvscope as cs
from curvscope.errors import InvalidArgument, InvalidType
from curvscope.measurement import lanczos
from curvscope.subspaces import plan_without_vectors
from curvscope.subspaces._ritz import ritz

WHOLE = torch.tensor([0, 2, 5, 6, 7])
"""Places of the k at which there is a gap: k = 2 cuts the plus/minus pair, k = 4 and 5 the cluster."""


def spectrum(size, seed=0):
    """A matrix with isolated values, a cluster and a pair of plus and minus over an indefinite bulk; sparse eigenvectors."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.cat(
        [torch.tensor([40.0, 30.0, -30.0, 20.0, 20.0, 20.0, 12.0, -9.0]), torch.linspace(-1, 1, size - 8)]
    ).double()
    mixing = torch.randn(size, size, generator=generator, dtype=torch.float64) * 0.02
    U = torch.linalg.qr(torch.eye(size, dtype=torch.float64)[:, torch.randperm(size, generator=generator)] + mixing).Q
    A = (U * values) @ U.T
    return (A + A.T) / 2, values, U


def exact(U, values, order, k):
    V = U[:, values.abs().argsort(descending=True, stable=True)[:k]]
    return V[order[:k]].square().cumsum(0).cumsum(1).diagonal() / torch.arange(1, k + 1)


@pytest.mark.parametrize("scale", [1.0, 1e-13])
def test_every_k_lies_within_the_errors_of_the_exact_overlap(scale):
    A, values, U = spectrum(300)
    ranking = cs.masks.by_score(U[:, :8].square().sum(1) + 0.02 * torch.rand(300, generator=torch.Generator().manual_seed(1)))
    estimate = cs.overlap_without_vectors(
        scale * A, ranking, 8, eigenvalues=scale * values, num_probes=60, num_steps=60, seed=3, reorthogonalize=True
    )
    truth = exact(U, values, ranking.order, 8)
    clean = WHOLE
    assert bool(((estimate.value - truth).abs()[clean] <= 4 * estimate.stderr[clean] + 1e-9).all())
    k = torch.arange(1, 9)
    assert bool((estimate.stderr <= 1.6 * (2 / (k * truth * 60)).sqrt() * truth).all())  # the bound, and its own scatter
    assert float((estimate.coarse - estimate.value).abs()[clean].max()) < 1e-6  # resolved: half the steps say the same
    assert float(estimate.stderr.max()) > 0
    assert (estimate.products, len(estimate), estimate.size) == (60 * 60, 8, 300)


def test_the_average_over_all_signs_is_the_overlap():
    """The estimator is exact in the mean: here the mean is taken over all 2^4 signs, not over random ones."""
    A, values, U = spectrum(60)
    order = torch.tensor([5, 17, 2, 40])
    total = torch.zeros(4, dtype=torch.float64)
    for number in range(16):
        z = torch.tensor([1.0 if number >> i & 1 else -1.0 for i in range(4)], dtype=torch.float64)
        start = torch.zeros(60, 1, dtype=torch.float64)
        start[order, 0] = z
        (made,) = lanczos(lambda X: A @ X, start, 60, rows=order, reorthogonalize=True)
        found_here = ritz(made)
        for k in (1, 3, 4):
            kept = found_here.values.abs() >= values.abs().sort(descending=True).values[k - 1] - 1e-6
            total[k - 1] += (z[:k, None] * found_here.rows[:k, :] * kept).sum() / 16
    found = total / torch.arange(1, 5)
    truth = exact(U, values, order, 4)
    for k in (1, 3):  # with gaps; k = 4 cuts a cluster
        assert float(found[k - 1]) == pytest.approx(float(truth[k - 1]), abs=1e-9)


def test_without_reorthogonalisation_ghosts_share_their_weight():
    A, values, U = spectrum(200)
    ranking = cs.masks.by_score(U[:, :8].square().sum(1))
    options = {"eigenvalues": values.float(), "num_probes": 4, "num_steps": 120}
    plain = cs.overlap_without_vectors(A.float(), ranking, 8, **options)
    kept = cs.overlap_without_vectors(A.float(), ranking, 8, reorthogonalize=True, **options)
    clean = WHOLE
    torch.testing.assert_close(plain.value[clean], kept.value[clean], atol=2e-4, rtol=0)


def test_a_fixed_mask_and_thresholds_from_the_density():
    A, values, U = spectrum(300)
    mask = cs.masks.from_indices(U[:, :8].square().sum(1).topk(20).indices, 300)
    estimate = cs.overlap_without_vectors(A, mask, 8, num_probes=80, num_steps=40, seed=1)
    leverage = U[:, values.abs().argsort(descending=True, stable=True)[:8]].square().sum(1)
    assert abs(float(estimate[7]) - float(leverage[mask.index].sum() / 8)) <= 4 * float(estimate.stderr[7])
    assert estimate.products == 2 * 80 * 40
    assert bool(((estimate.count - torch.arange(1, 9)).abs()[WHOLE] <= 0.1 + 3 * estimate.count_stderr[WHOLE]).all())
    assert bool((estimate.count_stderr > 0).all())
    assert estimate.chance.tolist() == [20 / 300] * 8
    assert 1.0 < float(estimate.thresholds[7]) < 9.0


def test_the_edge_in_an_unresolved_bulk_is_shared_out():
    """Far fewer steps than eigenvalues above the threshold: counted whole, Ritz values would err to one side."""
    values = torch.linspace(-1, 1, 400, dtype=torch.float64)
    start = torch.ones(400, 1, dtype=torch.float64)
    (made,) = lanczos(lambda X: values[:, None] * X, start, 30)
    thresholds = torch.linspace(0.1, 0.9, 60, dtype=torch.float64)
    counted = ritz(made).weights @ ritz(made).share_above(thresholds)
    truth = (values.abs()[:, None] >= thresholds).sum(0)
    error = (counted - truth) / 400
    whole = ritz(made).weights @ (ritz(made).values.abs()[:, None] >= thresholds).double()
    assert float(error.abs().max()) < 0.01
    assert float(((whole - truth) / 400).abs().max()) > 0.02


def test_the_same_for_any_block_and_another_for_another_seed():
    A, values, _ = spectrum(80)
    order = torch.arange(10)
    base = {"eigenvalues": values, "num_probes": 5, "num_steps": 20}
    one, three = (cs.overlap_without_vectors(A, order, 10, block_size=b, **base) for b in (1, 3))
    torch.testing.assert_close(one.value[WHOLE], three.value[WHOLE], atol=1e-10, rtol=0)
    other = cs.overlap_without_vectors(A, order, 10, seed=1, **base)
    assert not torch.allclose(other.value, one.value)
    ranked = cs.overlap_without_vectors(A, cs.masks.from_order(torch.arange(80)), 10, block_size=1, **base)
    assert torch.equal(ranked.value, one.value)


def test_an_exhausted_space_ends_by_itself():
    A = torch.diag(torch.tensor([5.0, -3.0] + [0.0] * 18, dtype=torch.float64))
    estimate = cs.overlap_without_vectors(A, torch.tensor([0, 7]), 2, eigenvalues=A.diagonal(), num_steps=15)
    torch.testing.assert_close(estimate.value, torch.tensor([1.0, 0.5], dtype=torch.float64))
    assert float(estimate.stderr.max()) < 1e-12


@pytest.mark.slow
def test_a_trained_network_against_its_dense_hessian():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(120, 8, generator=generator)
    y = (x[:, :4].argmax(1)).long()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 10), nn.Tanh(), nn.Linear(10, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    for _ in range(200):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    H = cs.hessian(model, nn.CrossEntropyLoss(), [(x[:70], y[:70]), (x[70:], y[70:])])
    solution = cs.eigsh(H, 41, method="exact")
    ranking = cs.masks.by_magnitude(model)
    truth = cs.overlap(solution, ranking)
    found = cs.overlap_without_vectors(H, ranking, 40, eigenvalues=solution, num_probes=40, num_steps=90, reorthogonalize=True)
    for k in (5, 20, 40):
        assert abs(found.at(k) - truth.at(k)) <= 4 * float(found.stderr[k - 1]) + 0.02 * truth.at(k)
    assert found.to_dict()["products"] == 3600
    plan = plan_without_vectors(H, known_eigenvalues=True, num_probes=40, num_steps=90)
    assert (plan.products, plan.block_size) == (3600, 8)
    assert plan.seconds > 0
    assert plan.vectors > 24
    assert "3600 products, 8 at a time" in str(plan)
    narrow = plan_without_vectors(H, num_probes=4, memory=plan.lanczos_bytes // 2 + plan.product_bytes)
    assert 1 <= narrow.block_size < 8


@pytest.mark.parametrize(
    ("chosen", "options", "kind", "message"),
    [
        (torch.arange(5), {"k": 0}, InvalidArgument, "k=0: choose 1 to D = 20"),
        (torch.arange(5), {"k": 6}, InvalidArgument, "5 places are too few for k=6"),
        (torch.tensor([1, 1]), {"k": 2}, InvalidArgument, "different ones from 0 to 19"),
        (torch.arange(5), {"k": 2, "num_probes": 1}, InvalidArgument, "num_probes=1: choose at least 2"),
        (torch.arange(5), {"k": 2, "num_steps": 0}, InvalidArgument, "num_steps=0"),
        (torch.arange(5), {"k": 2, "block_size": 0}, InvalidArgument, "block_size=0"),
        (torch.arange(5), {"k": 2, "memory": "100 B"}, InvalidArgument, "one probe takes 480 B beside the model"),
        (torch.arange(5), {"k": 2, "eigenvalues": [3.0, 2.0]}, InvalidArgument, "give thresholds up to k=1, asked for is k=2"),
        (cs.masks.random(7), {"k": 2}, InvalidArgument, "the ranking has 7 parameters, the operator 20"),
        (torch.eye(20), {"k": 2}, InvalidType, "cannot rank parameters by a Tensor"),
    ],
)
def test_what_cannot_work_is_refused_before_any_product(chosen, options, kind, message):
    with pytest.raises(kind, match=message):
        cs.overlap_without_vectors(torch.eye(20, dtype=torch.float64), chosen, options.pop("k"), **options)
