"""Null models against enumeration of all masks; concentration against direct sums."""

from itertools import combinations, product

import pytest
import torch

import curvscope as cs
from curvscope.errors import InvalidArgument, InvalidType, NotFinite
from curvscope.subspaces import concentration_curve, effective_number, gini, hoyer, layer_shares, mask_size, space_layer_shares

LAYERS = {"a": torch.zeros(5), "b": torch.zeros(3)}


def overlaps(V, k, masks):
    lev = V[:, :k].square().sum(1)
    return torch.stack([lev[list(mask)].sum() / k for mask in masks])


def test_uniform_masks_by_enumeration(basis, stored):
    V, ranking = basis(8, 4), cs.masks.by_magnitude(torch.randn(8))
    null = cs.mask_null(V, ranking)
    for k in range(1, 5):
        values = overlaps(V, k, combinations(range(8), k))
        assert float(null.mean[k - 1]) == pytest.approx(k / 8)
        assert float(null.mean[k - 1]) == pytest.approx(float(values.mean()))
        assert float(null.std[k - 1]) == pytest.approx(float(values.std(correction=0)))
    curve = cs.overlap(V, ranking)
    torch.testing.assert_close(null.z(curve), (curve.value - null.mean) / null.std)
    torch.testing.assert_close(null.ratio(curve), curve.ratio)
    torch.testing.assert_close(cs.mask_null(stored(V), ranking).std, null.std)


def test_layer_matched_masks_by_enumeration(basis):
    V, ranking = basis(8, 4), cs.masks.by_magnitude(torch.randn(8))
    null = cs.mask_null(V, ranking, layers=LAYERS)
    for k in range(1, 5):
        in_a = int((ranking.order[:k] < 5).sum())
        masks = [(*a, *b) for a, b in product(combinations(range(5), in_a), combinations(range(5, 8), k - in_a))]
        values = overlaps(V, k, masks)
        assert float(null.mean[k - 1]) == pytest.approx(float(values.mean()))
        assert float(null.std[k - 1]) == pytest.approx(float(values.std(correction=0)), abs=1e-9)


@pytest.mark.parametrize("layers", [None, LAYERS])
@pytest.mark.parametrize("places", [[0, 4, 6], [1, 2, 3], [7]])
def test_masks_of_one_size_by_enumeration(basis, places, layers):
    V, m, in_a = basis(8, 4), len(places), sum(place < 5 for place in places)
    null = cs.mask_null(V, torch.tensor(places), layers=layers)
    masks = list(combinations(range(8), m))
    if layers is not None:
        masks = [(*a, *b) for a, b in product(combinations(range(5), in_a), combinations(range(5, 8), m - in_a))]
    for k in range(1, 5):
        values = overlaps(V, k, masks)
        assert float(null.mean[k - 1]) == pytest.approx(float(values.mean()))
        assert float(null.std[k - 1]) == pytest.approx(float(values.std(correction=0)), abs=1e-9)
    boolean = torch.zeros(8, dtype=torch.bool)
    boolean[places] = True
    for form in (boolean, boolean.numpy(), boolean.float() if m > 1 else boolean, cs.masks.from_indices(places, 8)):
        torch.testing.assert_close(cs.mask_null(V, form, layers=layers).std, null.std, rtol=0, atol=0)
    curve = cs.overlap(V, cs.masks.from_indices(places, 8))
    if layers is None:
        torch.testing.assert_close(null.mean, curve.chance)
    torch.testing.assert_close(null.ratio(curve), curve.value / null.mean)


def test_what_has_no_random_masks_is_refused(basis):
    with pytest.raises(InvalidType, match="columns have no random masks"):
        cs.mask_null(basis(8, 4), basis(8, 3))
    with pytest.raises(InvalidArgument, match="of 7 parameters, the vectors have 8 rows"):
        cs.mask_null(basis(8, 4), cs.masks.random(7))


def test_variance_of_random_spaces(basis):
    D, k, trials = 20, 6, 3000
    ranking = cs.masks.by_magnitude(torch.randn(D))
    mask = cs.masks.from_indices([1, 4, 5], D)
    spaces = [basis(D, k, seed) for seed in range(trials)]
    curves = [cs.overlap(space, ranking) for space in spaces]
    fixed = [cs.overlap(space, mask) for space in spaces]
    g = torch.randn(D)
    fractions = [cs.gradient_fraction(g, space) for space in spaces]
    for sample in (curves, fixed, fractions):
        values = torch.stack([curve.value for curve in sample])
        # the relative error of a sample variance is about sqrt(2 / trials) for near-Gaussian values, more for beta ones
        torch.testing.assert_close(values.var(0).sqrt(), sample[0].chance_std, rtol=5 * trials**-0.5, atol=0)
        spread = values.std(0) / trials**0.5
        assert bool(((values.mean(0) - sample[0].chance).abs() < 4 * spread).all())
    assert float(curves[0].z.abs().max()) < 5


def test_kappa_and_its_kin():
    vector = torch.tensor([0.0, -3.0, 1.0, 2.0])
    assert cs.kappa(vector, k=1) == pytest.approx(9 / 14)
    assert cs.kappa(vector, 0.5) == pytest.approx(13 / 14)
    assert cs.kappa(vector, 0.5, squared=False) == pytest.approx((13 / 14) ** 0.5)
    torch.testing.assert_close(concentration_curve(vector), torch.tensor([9.0, 13, 14, 14]).double() / 14)
    assert [mask_size(7030, rho) for rho in (0.2, 0.05, 0.01, 0.005)] == [1406, 352, 70, 35]
    assert mask_size(10, 0.25) == 2  # half to even
    p = vector.double().square() / 14
    assert cs.participation_ratio(vector)[0] == pytest.approx(1 / float(p.square().sum()))
    assert effective_number(vector)[0] == pytest.approx(float(torch.special.entr(p).sum().exp()))
    differences = (p[:, None] - p).abs().sum() / (2 * 16 * p.mean())
    assert gini(vector) == pytest.approx(float(differences))
    assert hoyer(vector) == pytest.approx((2 - 6 / 14**0.5) / 1)
    with pytest.raises(InvalidArgument, match="either rho"):
        cs.kappa(vector)
    with pytest.raises(InvalidArgument, match="zero"):
        cs.kappa(torch.zeros(3), k=1)
    with pytest.raises(NotFinite):
        hoyer(torch.tensor([1.0, float("inf")]))


def test_participation_of_columns(basis, stored):
    V = basis(50, 5)
    expected = 1 / V.pow(4).sum(0)
    torch.testing.assert_close(cs.participation_ratio(V), expected)
    torch.testing.assert_close(cs.participation_ratio(stored(V)), expected)
    torch.testing.assert_close(cs.participation_ratio(3 * V[:, :1]), expected[:1])


def test_layer_shares(basis):
    V = basis(8, 4)
    shares = space_layer_shares(V, LAYERS)
    for k in range(1, 5):
        assert float(shares["a"][k - 1]) == pytest.approx(float(V[:5, :k].square().sum()) / k)
        assert sum(float(share[k - 1]) for share in shares.values()) == pytest.approx(1)
    assert layer_shares(cs.masks.from_indices([0, 1, 7], 8), LAYERS) == {"a": pytest.approx(2 / 3), "b": pytest.approx(1 / 3)}
