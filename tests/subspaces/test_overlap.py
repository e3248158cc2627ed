"""Overlap against its definition by projectors, and rankings against sorting."""

import pytest
import torch
from torch import nn

import curvscope as cs
from curvscope.errors import InvalidArgument, NotFinite
from curvscope.subspaces import Ranking
from curvscope.tall import InMemory


def random_basis(rows, columns, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(rows, columns, generator=generator, dtype=torch.float64)).Q


def test_every_k_equals_the_projector_formula():
    V, weights = random_basis(50, 20), torch.randn(50)
    ranking = cs.masks.by_magnitude(weights)
    curve = cs.overlap(V, ranking)
    for k in range(1, 21):
        mask = torch.diag(ranking.mask(k).double())
        projector = V[:, :k] @ V[:, :k].T
        assert curve.at(k) == pytest.approx(float(torch.trace(mask @ projector)) / k, abs=1e-14)
    torch.testing.assert_close(curve.chance, torch.arange(1, 21) / 50.0, check_dtype=False)
    torch.testing.assert_close(curve.ratio, curve.value / curve.chance)


def test_extremes():
    ranking = cs.masks.by_magnitude(torch.arange(10.0))
    aligned = torch.eye(10, dtype=torch.float64)[:, ranking.order]
    torch.testing.assert_close(cs.overlap(aligned, ranking).value, torch.ones(10, dtype=torch.float64))
    opposite = aligned.flip(1)[:, :5]
    torch.testing.assert_close(cs.overlap(opposite, ranking).value, torch.zeros(5, dtype=torch.float64))


def test_chance_level_is_the_mean_over_random_spaces():
    D, k, trials = 60, 12, 400
    ranking = cs.masks.by_magnitude(torch.randn(D))
    values = torch.stack([cs.overlap(random_basis(D, k, seed), ranking).value[-1] for seed in range(trials)])
    # one overlap varies by less than sqrt(2) k (D - k) / (D^2 k)-ish; judged by the sample's own standard error
    assert abs(float(values.mean()) - k / D) < 4 * float(values.std()) / trials**0.5


def test_float32_vectors_and_tall_matrices():
    V = random_basis(30, 4)
    ranking = cs.masks.by_magnitude(torch.randn(30))
    exact = cs.overlap(V, ranking).value
    torch.testing.assert_close(cs.overlap(InMemory(V.float()), ranking).value, exact, rtol=1e-5, atol=1e-7)


def test_ranking_follows_the_operators_parameter_order():
    model = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 2))
    model[0].bias.requires_grad_(False)
    ranking = cs.masks.by_magnitude(model)
    H = cs.hessian(model, nn.CrossEntropyLoss(), [(torch.randn(4, 3), torch.tensor([0, 1, 0, 1]))])
    flat = H.parameters.flatten({name: p.detach() for name, p in model.named_parameters()})
    assert ranking.size == H.shape[0]
    assert torch.equal(ranking.order, flat.abs().argsort(descending=True, stable=True))
    only = cs.masks.by_magnitude(model, params="2.*")
    assert only.size == 6
    assert torch.equal(cs.masks.by_magnitude(dict(model[2].named_parameters())).order, only.order)


def test_ties_keep_the_flat_order():
    assert cs.masks.by_magnitude(torch.tensor([1.0, -1, 2, 1])).order.tolist() == [2, 0, 1, 3]


def test_bad_input_is_named():
    ranking = cs.masks.by_magnitude(torch.randn(30))
    with pytest.raises(InvalidArgument, match="the ranking has 30 parameters, the vectors 31 rows"):
        cs.overlap(random_basis(31, 3), ranking)
    with pytest.raises(InvalidArgument, match="not orthonormal"):
        cs.overlap(torch.ones(30, 2), ranking)
    with pytest.raises(TypeError, match="cannot compare a list"):
        cs.overlap([1], ranking)
    with pytest.raises(TypeError, match="cannot rank a list"):
        cs.masks.by_magnitude([1])
    with pytest.raises(NotFinite):
        cs.masks.by_magnitude(torch.tensor([1.0, float("nan")]))
    with pytest.raises(InvalidArgument, match="curve goes from 1 to 3"):
        cs.overlap(random_basis(30, 3), ranking).at(4)
    with pytest.raises(InvalidArgument, match="choose 0 to D = 30"):
        ranking.mask(31)


def test_bases_of_other_precision_are_compared():
    """A solution in single precision with what the certificate in double made of it."""
    V = random_basis(30, 4)
    torch.testing.assert_close(cs.overlap(V.float(), V).value, torch.ones(4, dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(cs.overlap(V, V.float()).value, torch.ones(4, dtype=torch.float64), atol=1e-6, rtol=0)


def test_columns_that_are_not_numbers_are_refused():
    with pytest.raises(InvalidArgument, match="nan"):
        cs.overlap(random_basis(30, 4) * float("nan"), random_basis(30, 4))


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_shares_of_gradients_of_any_scale(scale):
    V, g = random_basis(30, 4), torch.randn(30, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(cs.gradient_fraction(scale * g, V).value, cs.gradient_fraction(g, V).value)


@pytest.mark.parametrize("order", [[0, 0, 1], [0, 1, 3], [-1, 0, 1], [0.0, 1.0, 2.0], [[0, 1, 2]]])
def test_orders_that_are_no_permutation_are_refused(order):
    with pytest.raises(InvalidArgument, match="permutation"):
        Ranking(torch.tensor(order), "example")
