"""The spectral density against spectra that are known."""

import math

import pytest
import torch

import curvscope as cs
from curvscope.errors import InvalidArgument, NotFinite, OutOfBudget
from curvscope.estimators import reach
from curvscope.estimators._distribution import cells, cumulative, distance
from curvscope.estimators._gauss import quadrature
from curvscope.measurement import lanczos


def known(values, dtype=torch.float64, seed=0):
    """A dense symmetric matrix with these eigenvalues."""
    values = torch.as_tensor(values, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    U = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator, dtype=torch.float64)).Q
    return ((U * values) @ U.T).to(dtype)


def indefinite(size=400):
    bulk = torch.linspace(-1, 1, size - 6, dtype=torch.float64)
    return torch.cat([torch.tensor([9.0, 7.0, 6.5, 5.0, -4.0, -3.5], dtype=torch.float64), bulk])


def test_quadrature_gives_moments_exactly():
    values = indefinite(60)
    A = known(values)
    v = torch.randn(60, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    v /= v.norm(dim=0)
    found = quadrature(lanczos(lambda block: A @ block, v.clone(), 12, unit=2e-16, reorthogonalize=True), 12, 2e-16)
    power = v.clone()
    for degree in range(24):  # an m-point Gauss rule is exact up to degree 2 m - 1
        exact = (v * power).sum(dim=0)
        assert torch.allclose((found.weights * found.nodes**degree).sum(dim=1), exact, rtol=1e-10), degree
        power = A @ power


def test_radii_hold_an_eigenvalue():
    values = indefinite(60)
    A, v = known(values), torch.eye(60, 2, dtype=torch.float64)
    found = quadrature(lanczos(lambda block: A @ block, v.clone(), 20, unit=2e-16, reorthogonalize=True), 20, 2e-16)
    nearest = (found.nodes[..., None] - values).abs().min(dim=-1).values
    assert bool((nearest <= found.radii + 1e-10).all())


def test_a_recurrence_ends_where_its_space_does_and_others_go_on():
    A = torch.diag(torch.tensor([3.0, 3.0, 3.0, -1.0, -1.0, 2.0, 5.0], dtype=torch.float64))
    starts = torch.zeros(7, 2, dtype=torch.float64)
    starts[0, 0] = starts[3, 0] = 0.5**0.5  # two eigenvectors: two steps are all there are
    starts[:, 1] = 7**-0.5
    found = quadrature(lanczos(lambda block: A @ block, starts.clone(), 6, unit=2e-16, reorthogonalize=True), 6, 2e-16)
    assert torch.allclose(found.weights[0], torch.tensor([0.5, 0.5, 0, 0, 0, 0], dtype=torch.float64))
    assert torch.allclose(found.nodes[0, :2], torch.tensor([-1.0, 3.0], dtype=torch.float64))
    assert torch.allclose(found.weights[1, :4], torch.tensor([2, 1, 3, 1], dtype=torch.float64) / 7)


def test_distribution_function_of_atoms_and_cells():
    nodes, radii = torch.tensor([[0.0, 1.0, 4.0]]).double(), torch.tensor([[9.0, 9.0, 0.0]]).double()
    left, right = reach(nodes, radii)
    assert left.tolist() == [[-9.0, 0.5, 4.0]]
    assert right.tolist() == [[0.5, 2.5, 4.0]]
    weights = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64)
    narrow = cells(nodes, radii, weights)  # towards a lighter neighbour in the ratio of the weights
    assert narrow[0].tolist() == [[-9.0, 0.5, 4.0]]
    assert narrow[1][0].tolist() == pytest.approx([0.3, 2.0, 4.0])
    points = torch.tensor([-9.0, 0.5, 1.5, 2.5, 3.0, 4.0, 5.0]).double()
    assert torch.allclose(cumulative(left, right, weights, points)[0], torch.tensor([0, 0.5, 0.65, 0.8, 0.8, 1, 1]).double())
    before = cumulative(left, right, weights, points, inclusive=False)[0]
    assert float(before[5]) == pytest.approx(0.8)


def test_distance_of_lines_that_cross():
    breaks = torch.tensor([0.0, 1.0, 3.0]).double()
    above, below = torch.tensor([-1.0, 2.0, 0.0]).double(), torch.tensor([0.0, 1.0, 2.0]).double()
    assert distance(breaks, above, below) == pytest.approx(0.5 + 4.0)  # two triangles of 1/4; a strip of height 2


def test_wasserstein_distance_is_scipys():
    from scipy.stats import wasserstein_distance

    values = indefinite(150)
    found = cs.density(known(values), num_probes=3, num_steps=15, method="lanczos")
    points = torch.linspace(-5, 10, 60_001, dtype=torch.float64)
    ours = found.cdf(points).diff()
    theirs = wasserstein_distance((points[1:] + points[:-1]) / 2, values, ours, torch.ones(150))
    assert found.distance(values) == pytest.approx(theirs, abs=3e-4)


def test_masses_lie_within_their_standard_errors():
    values = indefinite(400)
    A = torch.diag(values)  # uniformly random probes do not see the eigenvectors
    intervals = [(4.5, 99), (6, 8), (-5, -2), (-0.5, 0.25), (0.0, 99), (-2, 2)]
    inside = torch.zeros(len(intervals))
    for seed in range(60):
        found = cs.density(A, num_probes=4, num_steps=25, seed=seed, method="lanczos")
        for i, (low, high) in enumerate(intervals):
            exact = float(((values >= low) & (values <= high)).double().mean())
            mass = found.mass(low, high)
            inside[i] += abs(mass.value - exact) <= 3 * mass.stderr
    assert bool((inside >= 0.95 * 60).all()), inside
    assert found.mass().value == pytest.approx(1)
    assert found.count(4.5, 99).value == pytest.approx(400 * found.mass(4.5, 99).value)


def test_known_pairs_count_exactly():
    values = indefinite(300)
    A = known(values)
    solution = cs.eigsh(A, 8, method="krylov", tol=1e-10)
    found = cs.density(A, deflate=solution, num_probes=2, num_steps=20, method="lanczos")
    assert found.count(4.9, 99).value == pytest.approx(4, abs=1e-12)
    assert found.count(4.9, 99).stderr < 1e-9
    assert found.count().value == pytest.approx(300)
    assert len(found.exact) == 8
    plain = cs.density(A, num_probes=2, num_steps=4, method="lanczos")  # too few to find the pairs by itself
    assert found.sum(torch.abs).value == pytest.approx(float(values.abs().sum()), abs=4 * found.sum(torch.abs).stderr)
    assert found.distance(values) < plain.distance(values)
    assert found.trace.stderr < 0.5 * plain.trace.stderr
    assert found.trace.value == pytest.approx(float(values.sum()), abs=4 * found.trace.stderr)
    assert found.frobenius_norm.value == pytest.approx(float(values.norm()), abs=4 * found.frobenius_norm.stderr)


def test_what_all_probes_have_found_counts_exactly_as_often_as_it_is_there():
    values = torch.cat([torch.tensor([9.0, 9.0, 9.0, 7.0, -6.0, -6.0]), torch.linspace(-0.1, 0.1, 394)]).double()
    found = cs.density(known(values), num_probes=5, num_steps=40, method="lanczos")
    assert found.exact[-4:].tolist() == pytest.approx([7, 9, 9, 9])
    assert found.exact[:2].tolist() == pytest.approx([-6, -6])
    assert found.count(8, 10).value == pytest.approx(3, abs=1e-12)
    assert found.count(8, 10).stderr < 1e-9
    assert found.count().value == pytest.approx(400)
    assert found.extremes()[:5].tolist() == pytest.approx([9, 9, 9, 7, 0.1], abs=0.01)
    blind = cs.density(known(values), num_probes=5, num_steps=40, method="lanczos", reorthogonalize=False)
    assert len(blind.exact) == 0
    assert found.trace.stderr < 0.3 * blind.trace.stderr
    assert found.trace.value == pytest.approx(float(values.sum()), abs=4 * found.trace.stderr)
    single = cs.density(known(values, torch.float32), num_probes=5, num_steps=40, method="lanczos")
    assert single.exact[-4:].tolist() == pytest.approx([7, 9, 9, 9], rel=1e-5)


def test_all_eigenvalues_of_a_small_operator():
    values = indefinite(120)
    found = cs.density(known(values), num_probes=4, num_steps=50)
    assert found.products == 120  # fewer than 4 x 50
    assert torch.allclose(found.exact, values.sort().values, atol=1e-12)
    assert found.distance(values) < 1e-12
    assert found.mass(0, 99).stderr == 0
    assert found.trace.value == pytest.approx(float(values.sum()))
    assert found.bulk_edges("ratio") == pytest.approx((-1, 1))
    assert "120 exact" in str(found)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e9])
def test_outliers_edges_and_extremes_at_any_scale(scale):
    values = scale * indefinite(2000)
    A = torch.diag(values)
    found = cs.density(A, num_probes=3, num_steps=60, method="lanczos")
    assert torch.allclose(found.extremes()[:4], scale * torch.tensor([9, 7, 6.5, 5]).double(), rtol=1e-9)
    assert torch.allclose(found.extremes(False)[:2], scale * torch.tensor([-4, -3.5]).double(), rtol=1e-9)
    exact = {rule: cs.count_outliers(values, rule) for rule in ("gap", "ratio")}
    assert {rule: found.outliers(rule) for rule in exact} == exact == {"gap": 4, "ratio": 4}
    low, high = found.bulk_edges()
    assert low == pytest.approx(-scale, rel=2e-2)
    assert high == pytest.approx(scale, rel=2e-2)
    assert found.quantile(0.5) == pytest.approx(0, abs=0.1 * scale)


def test_bulk_of_marchenko_and_pastur():
    n, alpha = 1200, 0.25
    X = torch.randn(n, int(alpha * n), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = cs.density(X.T @ X / n, num_probes=10, num_steps=40, method="lanczos")
    low, high = (1 - alpha**0.5) ** 2, (1 + alpha**0.5) ** 2
    assert found.range == pytest.approx((low, high), rel=0.05)
    ends = torch.linspace(low, high, 7, dtype=torch.float64)
    for left, right in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        x = torch.linspace(left, right, 10_001, dtype=torch.float64)
        law = ((high - x) * (x - low)).clamp(min=0).sqrt() / (2 * math.pi * alpha * x)
        mass = found.mass(left, right)
        assert mass.value == pytest.approx(float(torch.trapezoid(law, x)), abs=4 * mass.stderr)


def test_curves_integrate_to_one():
    values = indefinite(500)
    found = cs.density(torch.diag(values), num_probes=2, num_steps=30, method="lanczos")
    width = found.grid[1] - found.grid[0]
    assert float((found.density * width).sum()) == pytest.approx(1)
    shares = 0.0
    for sign in (1, -1):
        middles, decades = found.logarithmic(300, sign=sign, floor=1e-9)
        shares += float((decades * (middles[1] / middles[0]).log10()).sum())
    assert shares == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_seeds_and_chunks_of_probes(dtype):
    A = known(indefinite(200), dtype)
    first = cs.density(A, num_probes=4, num_steps=10, method="lanczos", seed=3)
    again = cs.density(A, num_probes=4, num_steps=10, method="lanczos", seed=3, memory=2 * 8 * 200 * 18)
    assert torch.allclose(first.nodes, again.nodes, rtol=1e-4 if dtype == torch.float32 else 1e-10)
    other = cs.density(A, num_probes=4, num_steps=10, method="lanczos", seed=4)
    assert not torch.allclose(first.nodes, other.nodes)
    loose = cs.density(A, num_probes=4, num_steps=10, method="lanczos", seed=3, reorthogonalize=False)
    assert loose.distance(indefinite(200)) == pytest.approx(first.distance(indefinite(200)), rel=0.3)


def test_ill_requests_are_refused_before_any_product():
    A = torch.diag(torch.arange(1.0, 31.0, dtype=torch.float64))
    for options, words in [
        ({"num_probes": 0}, "at least 1"),
        ({"num_steps": 0}, "at least 1"),
        ({"method": "kpm"}, "choose one of"),
        ({"deflate": cs.eigsh(2 * A, 2)}, "not a solution of this operator"),
    ]:
        with pytest.raises(InvalidArgument, match=words):
            cs.density(A, **options)
    with pytest.raises(InvalidArgument, match="Hermitian"):
        cs.density(torch.randn(4, 4))
    with pytest.raises(OutOfBudget, match="reorthogonalize=False"):
        cs.density(A, method="lanczos", memory=1000)
    with pytest.raises(OutOfBudget, match="lanczos"):
        cs.density(A, method="exact", memory=1000)
    found = cs.density(A)
    for action in (lambda: found.mass(2, 1), lambda: found.quantile(2), lambda: found.logarithmic(sign=0)):
        with pytest.raises(InvalidArgument):
            action()
    with pytest.raises(InvalidArgument, match="rule"):
        found.outliers("knee")


def test_products_that_are_not_finite_are_named():
    class Broken:
        shape, dtype = (50, 50), torch.float64

        def __matmul__(self, block):
            return block * float("nan")

    with pytest.raises(NotFinite):
        cs.density(Broken(), num_probes=2, num_steps=5, method="lanczos")


def test_zero_and_multiples_of_the_identity():
    zero = cs.density(torch.zeros(90, 90, dtype=torch.float64), num_probes=2, num_steps=5, method="lanczos")
    assert zero.range == (0, 0)
    assert zero.mass(-1, 1).value == pytest.approx(1)
    assert zero.outliers() == 0
    assert math.isfinite(float(zero.density.sum()))
    one = cs.density(2 * torch.eye(80, dtype=torch.float64), num_probes=2, num_steps=5, method="lanczos")
    assert one.count(1.9, 2.1).value == pytest.approx(80)


def test_plot_tells_estimated_from_exact():
    from matplotlib.figure import Figure

    A = known(indefinite(200))
    found = cs.density(A, deflate=cs.eigsh(A, 5), num_probes=2, num_steps=10, method="lanczos")
    for scale in ("linear", "log"):
        axes = found.plot(Figure().subplots(), scale=scale)
        labels = [text.get_text() for text in axes.get_legend().get_texts()]
        assert any(label.startswith("exact pairs") for label in labels)
        assert any("estimated" in label for label in labels)
    with pytest.raises(InvalidArgument):
        found.plot(Figure().subplots(), scale="cubic")


def test_the_density_integrates_to_one_where_ends_are_not_resolved():
    for steps in (2, 10):
        found = cs.density(torch.diag(torch.arange(1.0, 201.0, dtype=torch.float64)), method="lanczos", num_steps=steps)
        assert float(found.density.sum() * found.grid.diff().mean()) == pytest.approx(1)


def test_a_single_step_is_refused():
    """One node has no width: it would be given with a standard error of zero."""
    with pytest.raises(InvalidArgument, match="2 steps"):
        cs.density(torch.eye(50), method="lanczos", num_steps=1)


@pytest.mark.parametrize("rule", ["gap", "ratio", "elbow"])
def test_equal_eigenvalues_have_no_outliers(rule):
    A = torch.diag(torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(30))
    U = torch.linalg.qr(torch.randn(60, 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q
    for made in (A, U @ A @ U.T, (U @ A @ U.T).float()):
        assert cs.density((made + made.T) / 2, method="exact").outliers(rule) == 0
