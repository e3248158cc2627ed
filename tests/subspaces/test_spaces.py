"""Overlap of any two subspaces, with intervals that hold the truth; fractions of gradients; matrices over checkpoints."""

import numpy as np
import pytest
import torch

import curvscope as cs
from curvscope.errors import InvalidArgument, NotFinite
from curvscope.subspaces import leverage, similarity_matrix


def truth(first, second, k):
    return float((first[:, :k].T @ second[:, :k]).square().sum()) / k


def test_two_bases_at_every_k(basis, stored):
    A, B = basis(40, 9), basis(40, 6, 1)
    curve = cs.overlap(A, B)
    assert len(curve) == 6
    for k in range(1, 7):
        assert curve.at(k) == pytest.approx(truth(A, B, k))
    assert cs.overlap(stored(A), stored(B)).value.tolist() == pytest.approx(curve.value.tolist())
    assert cs.overlap(B, A).value.tolist() == pytest.approx(curve.value.tolist())
    assert cs.overlap(A, A).value.tolist() == pytest.approx([1] * 9)
    assert curve.at(6) == pytest.approx(cs.grassmann.similarity(A[:, :6], B))


def test_a_fixed_mask_at_every_k(basis, stored):
    V, mask = basis(40, 9), cs.masks.from_indices([3, 17, 20, 39], 40)
    curve = cs.overlap(V, mask)
    for k in range(1, 10):
        assert curve.at(k) == pytest.approx(float(V[mask.index, :k].square().sum()) / k)
    assert curve.chance.tolist() == pytest.approx([0.1] * 9)
    assert cs.overlap(stored(V), mask).value.tolist() == pytest.approx(curve.value.tolist())


def test_two_rankings_at_every_k():
    one, other = cs.masks.random(30, seed=1), cs.masks.random(30, seed=2)
    curve = cs.overlap(one, other)
    for k in (1, 7, 29, 30):
        assert curve.at(k) == pytest.approx(int((one.mask(k) & other.mask(k)).sum()) / k)


def test_rankings_read_only_their_rows(basis, stored):
    V = basis(4000, 5)
    matrix, ranking = stored(V), cs.masks.random(4000)
    curve = cs.overlap(matrix, ranking, check=False)
    assert matrix.largest_read == 25
    torch.testing.assert_close(curve.value, cs.overlap(V, ranking).value)


def test_gradient_fraction(basis):
    V, g = basis(40, 9), torch.randn(40)
    curve = cs.gradient_fraction(g, V)
    for k in range(1, 10):
        expected = float((V[:, :k].T @ g.double()).square().sum() / g.double().square().sum())
        assert curve.at(k) == pytest.approx(expected)
        assert float(curve[k - 1]) == pytest.approx(expected)
    np.testing.assert_allclose(np.asarray(curve), curve.value)
    torch.testing.assert_close(curve.chance, torch.arange(1, 10).double() / 40)
    assert cs.gradient_fraction(V[:, 0], V).value.tolist() == pytest.approx([1] * 9)
    with pytest.raises(InvalidArgument, match="the gradient is zero"):
        cs.gradient_fraction(torch.zeros(40), V)
    with pytest.raises(InvalidArgument, match=r"shape \(39,\), expected \(40,\)"):
        cs.gradient_fraction(torch.zeros(39), V)
    with pytest.raises(NotFinite):
        cs.gradient_fraction(torch.full((40,), float("nan")), V)


def test_leverage_sums_to_k(basis):
    assert float(leverage(basis(30, 4), 3).sum()) == pytest.approx(3)


@pytest.fixture(scope="module")
def certified():
    """Two operators with known eigenvectors, solved badly enough that intervals have a width."""
    pairs = []
    for seed in (0, 1):
        A = cs.problems.spectrum("power", 300, rank=1, decay=1.0, negative=0.3, seed=seed)
        solution = cs.eigsh(A, k=30, method="krylov", block_size=4, tol=0, max_products=92)
        pairs.append((cs.certify(A, solution), A.exact_eigenvectors(30).to_tensor()))
    return pairs


def check(curve, exact):
    exact = torch.tensor(exact, dtype=torch.float64)
    assert bool((curve.lower <= exact + 1e-12).all())
    assert bool((exact <= curve.upper + 1e-12).all())
    width = curve.upper - curve.lower
    assert float(width.min()) < 1e-6  # it says something
    assert float(width.max()) > 1e-3  # and the test is not of zero widths
    assert curve.failure > 0


def test_intervals_hold_the_overlap_of_the_true_spaces(certified):
    (first, U), (second, W) = certified
    both = [truth(U, W, k) for k in range(1, 31)]
    check(cs.overlap(first, second), both)
    check(cs.overlap(U, second), both)
    check(cs.overlap(first, W), both)
    mask = cs.masks.from_indices(range(40), 300)
    check(cs.overlap(first, mask), [float(U[:40, :k].square().sum()) / k for k in range(1, 31)])
    g = U @ torch.linspace(1, 2, 30).double() + 0.5 * torch.randn(300, dtype=torch.float64)
    check(cs.gradient_fraction(g, first), [float((U[:, :k].T @ g).norm() / g.norm()) ** 2 for k in range(1, 31)])


def test_the_interval_knows_the_errors_of_both():
    """An accurate solution beside a rough one: the interval of the first alone would exclude the truth."""
    solutions, exact = [], []
    for seed, products in ((0, 280), (1, 45)):
        A = cs.problems.spectrum("power", 300, rank=1, decay=1.0, negative=0.3, seed=seed)
        solutions.append(cs.certify(A, cs.eigsh(A, k=20, method="krylov", tol=0, max_products=products, block_size=4)))
        exact.append(A.exact_eigenvectors(20).to_tensor())
    both = torch.tensor([truth(*exact, k) for k in range(1, 21)], dtype=torch.float64)
    for curve in (cs.overlap(*solutions), cs.overlap(*solutions[::-1])):
        assert bool((curve.lower <= both + 1e-12).all())
        assert bool((both <= curve.upper + 1e-12).all())
    alone = cs.overlap(solutions[0], solutions[1].eigenvectors)
    assert bool(((both < alone.lower - 1e-9) | (both > alone.upper + 1e-9)).any())


def test_matrices_over_checkpoints(basis, certified):
    spaces = [basis(40, 6, seed) for seed in range(4)]
    matrix = cs.overlap_matrix(spaces, [2, 6])
    for i in range(4):
        for j in range(4):
            for place, k in enumerate((2, 6)):
                assert float(matrix.value[place, i, j]) == pytest.approx(truth(spaces[i], spaces[j], k))
    assert matrix.lower is None
    torch.testing.assert_close(matrix.value[1], similarity_matrix(spaces))
    rankings = [cs.masks.random(40, seed=seed) for seed in range(3)]
    masks = [ranking.first(6) for ranking in rankings]
    torch.testing.assert_close(cs.overlap_matrix(rankings, [6]).iou[0], similarity_matrix(masks, "iou"))
    with_bounds = cs.overlap_matrix([solution for solution, _ in certified], [3, 20])
    assert bool((with_bounds.lower <= with_bounds.value).all())
    assert bool((with_bounds.value <= with_bounds.upper).all())
    assert float(with_bounds.upper[0, 0, 1] - with_bounds.lower[0, 0, 1]) < 0.1
    with pytest.raises(InvalidArgument, match="k=7: spaces 0 and 1 have 6 columns"):
        cs.overlap_matrix(spaces, [7])


def test_plot(basis):
    from matplotlib.figure import Figure

    axes = cs.overlap(basis(30, 4), cs.masks.random(30)).plot(Figure().subplots())
    assert axes.get_legend_handles_labels()[1] == ["random", "chance"]
    assert axes.get_xlabel() == "k"


def test_bad_input_is_named(basis):
    mask = cs.masks.from_indices([1], 9)
    with pytest.raises(TypeError, match=r"overlap\(basis, mask\)"):
        cs.overlap(mask, basis(9, 2))
    with pytest.raises(TypeError, match="one dimension only"):
        cs.overlap(mask, cs.masks.random(9))
    with pytest.raises(InvalidArgument, match="the mask has 9 parameters, the vectors 8 rows"):
        cs.overlap(basis(8, 2), mask)
    with pytest.raises(InvalidArgument, match="dimensions 9 and 8"):
        cs.overlap(basis(9, 2), basis(8, 2))
