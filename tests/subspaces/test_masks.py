"""Rankings and masks of every kind, against sorting by hand."""

import pytest
import torch
from torch import nn

import curvscope as cs
from curvscope.errors import InvalidArgument, InvalidType, NotFinite


@pytest.fixture
def model():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))


def layers_of(model):
    return torch.repeat_interleave(torch.arange(4), torch.tensor([p.numel() for p in model.parameters()]))


def flat(model):
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def test_layerwise_takes_the_largest_of_each_layer_in_proportion(model):
    with torch.no_grad():
        model[0].weight *= 100  # scales of layers do not matter
    ranking, owner, values = cs.masks.layerwise_magnitude(model), layers_of(model), flat(model).abs()
    sizes = torch.bincount(owner)
    for k in range(1, len(owner) + 1):
        mask = ranking.mask(k)
        taken = torch.bincount(owner[mask], minlength=4)
        assert bool(((taken - k * sizes / len(owner)).abs() <= 1).all())
        for layer in range(4):
            inside, outside = values[mask & (owner == layer)], values[~mask & (owner == layer)]
            assert not len(inside) or not len(outside) or inside.min() >= outside.max()
    assert torch.equal(ranking.order, cs.masks.layerwise_magnitude(dict(model.named_parameters())).order)


def test_random_like_keeps_the_layer_counts_at_every_k(model):
    ranking, owner = cs.masks.by_magnitude(model), layers_of(model)
    like = cs.masks.random_like(ranking, model, seed=1)
    assert torch.equal(owner[like.order], owner[ranking.order])
    assert sorted(like.order.tolist()) == list(range(len(owner)))
    assert not torch.equal(like.order, ranking.order)
    assert torch.equal(like.order, cs.masks.random_like(ranking, dict(model.named_parameters()), seed=1).order)


def test_random_is_uniform_and_seeded():
    firsts = torch.stack([cs.masks.random(8, seed=seed).mask(3) for seed in range(800)]).double().mean(0)
    assert float((firsts - 3 / 8).abs().max()) < 4 * (3 / 8 * 5 / 8 / 800) ** 0.5
    assert torch.equal(cs.masks.random(50, seed=4).order, cs.masks.random(50, seed=4).order)


def test_saliencies(model):
    theta, g, h = flat(model).double(), torch.randn(47).double(), torch.randn(47).double()
    expected = {
        cs.masks.snip(model, g): (theta * g).abs(),
        cs.masks.obd(model, h): h * theta**2,
        cs.masks.fisher(model, h): h * theta**2,
        cs.masks.by_gradient(g): g.abs(),
        cs.masks.by_score(h, name="mine"): h,
    }
    for ranking, scores in expected.items():
        assert bool((scores[ranking.order].diff() <= 0).all()), ranking.name
    assert [ranking.name for ranking in expected] == ["SNIP", "OBD saliency", "Fisher saliency", "gradient", "mine"]
    named = {name: torch.ones_like(p) for name, p in model.named_parameters()}
    assert torch.equal(cs.masks.snip(model, named).order, cs.masks.by_magnitude(model).order)


def test_the_operator_gives_the_gradient(model):
    x, y = torch.randn(7, 6), torch.randint(2, (7,))
    data = [(x[:5], y[:5]), (x[5:], y[5:])]
    H = cs.hessian(model, nn.CrossEntropyLoss(), data)
    loss = nn.functional.cross_entropy(model(x), y)
    expected = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(model.parameters()))])
    torch.testing.assert_close(H.gradient(), expected)
    only = cs.hessian(model, nn.CrossEntropyLoss(), data, params="2.*")
    torch.testing.assert_close(only.gradient(), expected[35:])


def test_best_is_the_best(basis):
    V = basis(7, 2)
    ranking = cs.masks.best(V)
    for k in range(1, 7):
        best = cs.overlap(V, ranking.first(k)).value[1]
        others = [
            float(cs.overlap(V, cs.masks.from_indices(torch.tensor(index), 7)).value[1])
            for index in torch.combinations(torch.arange(7), k).tolist()
        ]
        assert float(best) == pytest.approx(max(others))
    curve = cs.best_overlap(basis(20, 6))
    for k in range(1, 7):
        own = cs.overlap(basis(20, 6), cs.masks.best(basis(20, 6), k))
        assert curve.at(k) == pytest.approx(own.at(k))


def test_masks_by_name_and_index(model):
    mask = cs.masks.by_name(model, "*.bias")
    assert mask.index.tolist() == [*range(30, 35), 45, 46]
    assert mask.count == 7
    H = cs.hessian(model, nn.CrossEntropyLoss(), [(torch.randn(3, 6), torch.tensor([0, 1, 0]))])
    assert torch.equal(cs.masks.by_name(H.parameters, ["0.bias", "2.bias"]).index, mask.index)
    assert torch.equal(cs.masks.from_indices(mask.to_bool(), 47).index, mask.index)
    assert torch.equal(cs.masks.from_order(torch.arange(5).flip(0)).places, torch.arange(5).flip(0))


def test_bad_input_is_named(model, basis):
    with pytest.raises(InvalidArgument, match="no permutation"):
        cs.masks.from_order([0, 0, 1])
    with pytest.raises(InvalidArgument, match="different places from 0 to 4"):
        cs.masks.from_indices([1, 5], 5)
    with pytest.raises(InvalidArgument, match="different places"):
        cs.masks.from_indices([1, 1], 5)
    with pytest.raises(InvalidArgument, match="at least one"):
        cs.masks.from_indices([], 5)
    with pytest.raises(InvalidArgument, match="matches none"):
        cs.masks.by_name(model, "3.*")
    with pytest.raises(InvalidArgument, match="the gradient has 3 entries for 47 parameters"):
        cs.masks.snip(model, torch.ones(3))
    with pytest.raises(InvalidArgument, match="the layers hold 47 parameters, expected D = 9"):
        cs.masks.random_like(cs.masks.random(9), model)
    with pytest.raises(NotFinite, match="the gradient hold NaN"):
        cs.masks.by_gradient(torch.tensor([float("nan")]))
    with pytest.raises(TypeError, match="a flat vector has no layers"):
        cs.masks.layerwise_magnitude(torch.ones(3))
    with pytest.raises(InvalidArgument, match="k=3: the basis has 1 to 2 columns"):
        cs.masks.best(basis(5, 2), 3)


def test_random_takes_what_the_other_masks_take():
    model = nn.Linear(3, 2)
    assert torch.equal(cs.masks.random(model, seed=1).order, cs.masks.random(8, seed=1).order)
    assert cs.masks.random(model, params="bias").size == 2
    with pytest.raises(InvalidType, match="has no layers"):
        cs.masks.random("model")
