"""Angles against closed forms and SciPy; metrics against their definitions by projectors; the axioms; what chance gives."""

import math
import sys

import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy.linalg import subspace_angles

import curvscope as cs
from curvscope import grassmann
from curvscope.errors import InvalidArgument

MANIFOLD = ("geodesic", "chordal_2", "chordal_f", "projection_2", "projection_f", "fubini_study")
HARD = [0.0, 1e-15, 1e-12, 1e-8, 1e-4, 0.3, math.pi / 4, 1.2, math.pi / 2 - 1e-8, math.pi / 2 - 1e-12, math.pi / 2]


def tilted(theta, size, rotation):
    """Two bases at given principal angles, each with its columns mixed, in general position."""
    theta = torch.tensor(theta, dtype=torch.float64)
    k = len(theta)
    first, second = torch.zeros(size, k, dtype=torch.float64), torch.zeros(size, k, dtype=torch.float64)
    first[:k] = torch.eye(k, dtype=torch.float64)
    second[:k], second[k : 2 * k] = torch.diag(theta.cos()), torch.diag(theta.sin())
    mix = torch.linalg.qr(torch.randn(k, k, dtype=torch.float64)).Q
    return rotation @ first @ mix, rotation @ second @ mix.flip(1)


def test_angles_at_both_ends(basis):
    first, second = tilted(HARD, 40, basis(40, 40))
    found = cs.grassmann.angles(first, second)
    torch.testing.assert_close(found, torch.tensor(HARD, dtype=torch.float64), rtol=0, atol=1e-14)
    # without general position there is no rounding of the input: relative accuracy
    Q = torch.eye(4, dtype=torch.float64)
    for angle in (1e-15, 1e-9):
        turned = torch.tensor([[math.cos(angle)], [math.sin(angle)], [0.0], [0.0]], dtype=torch.float64)
        assert float(cs.grassmann.angles(Q[:, :1], turned)) == pytest.approx(angle, rel=1e-12)


@pytest.mark.parametrize(("one", "other"), [(3, 3), (2, 5), (5, 2), (7, 6)])
def test_angles_equal_scipys(basis, one, other):
    first, second = basis(12, one, 1), basis(12, other, 2)
    expected = torch.from_numpy(subspace_angles(first.numpy(), second.numpy())).flip(0)
    torch.testing.assert_close(cs.grassmann.angles(first, second), expected, rtol=0, atol=1e-14)


def test_stored_and_single_precision_columns(basis, stored, monkeypatch):
    monkeypatch.setattr(sys.modules["curvscope.subspaces.grassmann._angles"], "PANEL_BYTES", 1)
    monkeypatch.setattr("curvscope.tall._matrix.PANEL_BYTES", 1)
    first, second = tilted(HARD, 3000, torch.eye(3000, dtype=torch.float64))
    one, other = stored(first), stored(second)
    torch.testing.assert_close(cs.grassmann.angles(one, other), torch.tensor(HARD, dtype=torch.float64), rtol=0, atol=1e-14)
    assert one.largest_read < first.numel() / 5
    # the spans of float32 columns are compared, not their rounding
    first, second = basis(500, 6, 1, torch.float32), basis(500, 6, 1, torch.float32)
    mixed = (first.double() @ basis(6, 6)).float()
    exact = torch.linalg.qr(first.double()).Q, torch.linalg.qr(mixed.double()).Q
    expected = torch.from_numpy(subspace_angles(*(q.numpy() for q in exact))).flip(0)
    torch.testing.assert_close(cs.grassmann.angles(first, mixed), expected, rtol=1e-6, atol=1e-14)
    assert float(cs.grassmann.angles(first, second).max()) < 1e-14


def test_masks_are_coordinate_subspaces(basis):
    V, ranking = basis(30, 4), cs.masks.by_magnitude(torch.randn(30))
    axes = torch.eye(30, dtype=torch.float64)
    for k in (2, 4, 6):
        mask = ranking.first(k)
        expected = cs.grassmann.angles(axes[:, mask.index], V)
        torch.testing.assert_close(cs.grassmann.angles(mask, V), expected, rtol=0, atol=1e-14)
        torch.testing.assert_close(cs.grassmann.angles(V, mask), expected, rtol=0, atol=1e-14)
    near = torch.linalg.qr(axes[:, ranking.first(4).index] + 1e-10 * torch.randn(30, 4, dtype=torch.float64)).Q
    small = cs.grassmann.angles(ranking.first(4), near)
    torch.testing.assert_close(small, cs.grassmann.angles(axes[:, ranking.first(4).index], near), rtol=1e-5, atol=0)
    assert 1e-11 < float(small.min()) < float(small.max()) < 1e-8
    one, other = cs.masks.from_indices([0, 1, 2], 9), cs.masks.from_indices([2, 3], 9)
    assert cs.grassmann.angles(one, other).tolist() == [0.0, math.pi / 2]


def projector(Q):
    return Q @ Q.T


@pytest.mark.parametrize("seed", range(3))
def test_metrics_by_their_definitions(basis, seed):
    Q1, Q2 = basis(15, 4, seed), basis(15, 4, seed + 100)
    P1, P2 = projector(Q1), projector(Q2)
    left, cosines, right = torch.linalg.svd(Q1.T @ Q2)
    turned = Q2 @ (left @ right).T  # Procrustes: the basis of the second space closest to Q1
    expected = {
        "geodesic": cosines.acos().norm(),
        "chordal_2": torch.linalg.matrix_norm(Q1 - turned, 2),
        "chordal_f": (Q1 - turned).norm(),
        "projection_2": torch.linalg.matrix_norm(P1 - P2, 2),
        "projection_f": (P1 - P2).norm() / 2**0.5,
        "fubini_study": (Q1.T @ Q2).det().abs().acos(),
        "overlap": 1 - (Q1.T @ Q2).square().sum() / 4,
        "hamming": (P1 - P2).square().sum(),
    }
    for metric, value in expected.items():
        assert cs.grassmann.distance(Q1, Q2, metric) == pytest.approx(float(value), abs=1e-12), metric
        largest = grassmann.largest_distance(metric, (4, 4))
        assert cs.grassmann.similarity(Q1, Q2, metric) == pytest.approx(1 - float(value) / largest, abs=1e-12), metric


def test_masks_by_counting_bits():
    one, other = torch.rand(40) < 0.5, torch.rand(40) < 0.3
    masks = [cs.masks.from_indices(bits, 40) for bits in (one, other)]
    assert cs.grassmann.distance(*masks, "hamming") == pytest.approx(int((one ^ other).sum()))
    iou = int((one & other).sum()) / int((one | other).sum())
    assert cs.grassmann.similarity(*masks, "iou") == pytest.approx(iou)
    assert cs.grassmann.distance(*masks, "iou") == pytest.approx(1 - iou)


seeds = st.integers(0, 10**6)


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(1, 5), st.sampled_from(MANIFOLD))
def test_axioms_and_invariance(seed, k, metric):
    generator = torch.Generator().manual_seed(seed)

    def draw(rows, columns):
        return torch.linalg.qr(torch.randn(rows, columns, generator=generator, dtype=torch.float64)).Q

    A, B, C, turn, inside = draw(11, k), draw(11, k), draw(11, k), draw(11, 11), draw(k, k)

    def d(X, Y):
        return cs.grassmann.distance(X, Y, metric)

    assert d(A, A @ inside) < 1e-13 * k + (3e-8 if metric == "fubini_study" else 0)
    assert d(A, B) > 0
    assert d(A, B) == pytest.approx(d(B, A), abs=1e-13)
    assert d(A, C) <= d(A, B) + d(B, C) + 1e-12
    assert d(turn @ A, turn @ B @ inside) == pytest.approx(d(A, B), abs=1e-12)
    assert d(A, B) <= grassmann.largest_distance(metric, (k, k)) + 1e-12


@settings(max_examples=40, deadline=None)
@given(seeds, st.sampled_from(("iou", "hamming")))
def test_mask_metrics_obey_the_triangle_inequality(seed, metric):
    generator = torch.Generator().manual_seed(seed)
    A, B, C = (cs.masks.from_indices(torch.randperm(9, generator=generator)[: 1 + seed % 7], 9, name=str(i)) for i in range(3))
    assert cs.grassmann.distance(A, C, metric) <= sum(cs.grassmann.distance(*pair, metric) for pair in ((A, B), (B, C))) + 1e-12


@settings(max_examples=25, deadline=None)
@given(seeds, st.sampled_from(MANIFOLD[:-1]))
def test_different_dimensions(seed, metric):
    generator = torch.Generator().manual_seed(seed)
    spaces = [torch.linalg.qr(torch.randn(9, 1 + (seed >> i) % 4, generator=generator).double()).Q for i in (0, 2, 4)]

    def d(X, Y):
        return cs.grassmann.distance(X, Y, metric, unequal="metric")

    A, B, C = spaces
    assert d(A, C) <= d(A, B) + d(B, C) + 1e-12
    whole = torch.linalg.qr(torch.cat([A, torch.randn(9, 2, generator=generator).double()], 1)).Q
    assert cs.grassmann.distance(A, whole, metric) < 1e-13
    assert d(A, whole) == pytest.approx(
        grassmann.distance_of_angles(torch.full((2,), math.pi / 2, dtype=torch.float64), metric), abs=1e-12
    )


def test_fubini_study_neither_underflows_nor_rounds():
    theta = torch.full((5000,), 1.0, dtype=torch.float64)
    assert grassmann.log_cosine(theta) == pytest.approx(5000 * math.log(math.cos(1)))
    assert grassmann.distance_of_angles(theta, "fubini_study") == math.pi / 2
    small = torch.full((10,), 1e-9, dtype=torch.float64)
    assert grassmann.distance_of_angles(small, "fubini_study") == pytest.approx(10**0.5 * 1e-9, rel=1e-12)
    nearly = torch.full((10,), 1.5, dtype=torch.float64)
    assert grassmann.similarity_of_angles(nearly, "fubini_study") == pytest.approx(2 / math.pi * math.cos(1.5) ** 10, rel=1e-12)
    right = torch.full((1,), math.pi / 2 - 1e-5, dtype=torch.float64)
    assert grassmann.similarity_of_angles(right, "projection_2") == pytest.approx(0.5e-10, rel=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 12), seeds)
def test_bijections(k, seed):
    generator = torch.Generator().manual_seed(seed)
    one, other = (torch.randperm(20, generator=generator)[:k] for _ in range(2))
    masks = [cs.masks.from_indices(index, 20) for index in (one, other)]
    overlap = cs.grassmann.similarity(*masks, "overlap")
    iou, bits = cs.grassmann.similarity(*masks, "iou"), cs.grassmann.distance(*masks, "hamming")
    assert grassmann.iou_from_overlap(overlap) == pytest.approx(iou)
    assert grassmann.overlap_from_iou(iou) == pytest.approx(overlap)
    assert grassmann.hamming_from_overlap(overlap, k) == pytest.approx(bits)
    assert grassmann.overlap_from_hamming(bits, k) == pytest.approx(overlap)
    assert grassmann.hamming_from_iou(iou, k) == pytest.approx(bits)
    assert grassmann.iou_from_hamming(bits, k) == pytest.approx(iou)
    distance = cs.grassmann.distance(*masks, "projection_f")
    assert grassmann.projection_f_from_overlap(overlap, k) == pytest.approx(distance)
    assert grassmann.overlap_from_projection_f(distance, k) == pytest.approx(overlap, abs=1e-12)
    # the paper's Hamming formula, o = 1 - bits / k, is wrong by the factor 2 unless the masks are equal
    assert (1 - bits / k == pytest.approx(overlap)) == (bits == 0)


@pytest.mark.parametrize(("size", "first", "second"), [(30, 4, 4), (30, 2, 7), (9, 6, 5), (5, 5, 2)])
def test_random_angles_have_the_law_of_random_spaces(basis, size, first, second):
    """Means of two functions of the angles, by 400 QR factorisations and by 400 small draws."""
    generator = torch.Generator().manual_seed(3)
    drawn = torch.stack([grassmann.random_angles(size, first, second, generator) for _ in range(400)])
    whole = torch.stack([cs.grassmann.angles(basis(size, first, i), basis(size, second, 1000 + i)) for i in range(400)])
    for function in (lambda theta: theta.cos().square().mean(1), lambda theta: theta.mean(1)):
        one, other = function(drawn), function(whole)
        spread = ((one.var() + other.var()) / 400).sqrt()
        assert abs(float(one.mean() - other.mean())) <= 4 * float(spread) + 1e-12
    overlaps = drawn.cos().square().mean(1)
    expected = max(first, second) / size
    assert abs(float(overlaps.mean()) - expected) <= 4 * float(overlaps.std()) / 20 + 1e-12


def test_baselines(basis):
    chance = grassmann.baseline(2000, 20, samples=300)
    assert chance.mean == pytest.approx(0.01, abs=4 * chance.std / 300**0.5)
    assert chance.quantile(0.05) < chance.median < chance.quantile(0.95)
    assert chance.z(cs.grassmann.similarity(basis(2000, 20), basis(2000, 20, 1))) < 5
    assert chance.ratio(0.02) == pytest.approx(2, rel=0.05)
    masks = grassmann.baseline(2000, 200, metric="iou", kind="masks", samples=300)
    assert masks.mean == pytest.approx(0.1 / 1.9, rel=0.02)  # intersection 20 of 380
    again = grassmann.baseline(2000, 20, samples=300)
    assert torch.equal(again.samples, chance.samples)


def test_bad_input_is_named(basis):
    with pytest.raises(InvalidArgument, match="choose one of geodesic, chordal_2"):
        cs.grassmann.distance(basis(9, 2), basis(9, 2), "cosine")
    with pytest.raises(InvalidArgument, match="dimensions 9 and 8"):
        cs.grassmann.angles(basis(9, 2), basis(8, 2))
    with pytest.raises(InvalidArgument, match="not orthonormal"):
        cs.grassmann.angles(torch.ones(9, 2), basis(9, 2))
    with pytest.raises(InvalidArgument, match="1 <= K <= D"):
        cs.grassmann.angles(torch.ones(2, 9), basis(9, 2))
    with pytest.raises(TypeError, match=r"pass ranking\.first\(k\)"):
        cs.grassmann.angles(cs.masks.random(9), basis(9, 2))
    with pytest.raises(InvalidArgument, match="two masks of k=5 differ in 0 to 2k bits"):
        grassmann.overlap_from_hamming(11, 5)
    with pytest.raises(InvalidArgument, match="unequal='pad'"):
        cs.grassmann.distance(basis(9, 2), basis(9, 2), unequal="pad")
    with pytest.raises(InvalidArgument, match="2 angles for dimensions"):
        grassmann.similarity_of_angles(torch.zeros(2), "iou", (3, 4))


@pytest.mark.parametrize("metric", grassmann.METRICS)
def test_similarities_of_different_dimensions_are_one_minus_the_share_of_the_largest_distance(metric):
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.linalg.qr(torch.randn(9, k, generator=generator).double()).Q for k in (2, 4))
    for unequal in ("inclusion", "metric"):
        share = cs.grassmann.distance(first, second, metric, unequal=unequal) / cs.grassmann.largest_distance(
            metric, (2, 4), unequal=unequal
        )
        assert cs.grassmann.similarity(first, second, metric, unequal=unequal) == pytest.approx(1 - share)
