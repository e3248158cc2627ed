"""Every statement of a certificate, against dense spectra, from solutions of all qualities."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import curvscope as cs
from curvscope.certificates import (
    Certificate,
    ProductNoise,
    RitzSpan,
    TailNorm,
    captured_mass,
    overlap_bracket,
    product_noise,
    slack,
    tail_norm,
)
from curvscope.errors import InvalidArgument, OutOfBudget
from curvscope.tall import InMemory

D = 150
NOISELESS = ProductNoise(0.0, 0.0)


def spectrum(kind, generator):
    match kind:
        case "algebraic":
            values = torch.arange(1, D + 1, dtype=torch.float64) ** -1.0
        case "pairs and clusters":
            values = torch.linspace(0.3, 0.001, D, dtype=torch.float64)
            values[:8] = torch.tensor([2, 2, 1.5, 1.5, 1.5, 1, 0.9, 0.9])
        case "near ties":
            values = torch.arange(1, D + 1, dtype=torch.float64) ** -1.0
            values[1:16:2] = values[0:16:2] * (1 - 1e-7)
        case "slow":
            values = torch.linspace(1, 0.2, D, dtype=torch.float64)
    signs = torch.where(torch.rand(D, generator=generator) < 0.4, -1.0, 1.0)
    return values * signs


def problem(kind, seed):
    """A dense matrix, its exact pairs by magnitude."""
    generator = torch.Generator().manual_seed(seed)
    values = spectrum(kind, generator)
    U = torch.linalg.qr(torch.randn(D, D, generator=generator, dtype=torch.float64)).Q
    order = values.abs().argsort(descending=True, stable=True)
    return (U * values) @ U.T, values[order], U[:, order]


def random_basis(rows, columns, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(rows, columns, generator=generator, dtype=torch.float64)).Q


def sine(U, V):
    """||sin Theta||_F of two spaces of equal dimension."""
    return float((V - U @ (U.T @ V)).norm())


CASES = [
    (kind, seed, products)
    for kind in ("algebraic", "pairs and clusters", "slow")
    for seed in range(4)
    for products in (24, 34, 60, 110)
]
SOME = [pytest.param(*case, marks=[pytest.mark.slow] * (case[1] > 0)) for case in CASES]
"""One seed by default, the others as slow tests."""


@pytest.mark.parametrize(("kind", "seed", "products"), CASES)
def test_statements_hold(kind, seed, products):
    A, values, U = problem(kind, seed)
    solution = cs.eigsh(A, k=20, method="krylov", tol=0, max_products=products, block_size=3, seed=seed)
    statements_hold(A, values, U, cs.certify(A, solution))


@pytest.mark.parametrize(("kind", "seed", "products"), [*SOME, *(("near ties", seed, 60) for seed in range(8))])
def test_statements_hold_for_pairs_that_double_precision_refined(kind, seed, products):
    A, values, U = problem(kind, seed)
    solution = cs.eigsh(A.float(), k=20, method="krylov", tol=0, max_products=products, block_size=3, seed=seed)
    certified = cs.certify(A, solution)
    assert certified.eigenvectors.dtype == torch.float64
    assert float(certified.certificate.couplings.max()) < 1e-13
    statements_hold(A, values, U, certified)


def statements_hold(A, values, U, certified):
    """All that a certificate says, against the exact pairs."""
    certificate, theta, V = certified.certificate, certified.eigenvalues, certified.eigenvectors.to_tensor()
    tiny = 1e-10

    # the tail, and what lies beyond each k
    projector = torch.eye(D, dtype=torch.float64) - V @ V.T
    assert certificate.tail.estimate <= float(torch.linalg.matrix_norm(projector @ A @ projector, 2)) + tiny
    assert float(torch.linalg.matrix_norm(projector @ A @ projector, 2)) <= certificate.tail.bound + tiny
    for k in range(1, 20):
        assert float(values[k].abs()) <= certificate.beyond(k) + tiny

    # completeness: the first pairs are, within rho, the largest by magnitude
    j = certificate.complete
    assert bool(((values[:j].abs().sort().values - theta[:j].abs().sort().values).abs() <= certificate.rho[-1] + tiny).all())

    # eigenvalues, and vectors where a gap is proven
    distance = (theta[:, None] - values).abs().min(dim=1).values
    assert bool((distance <= certificate.radii + tiny).all())
    assert bool((certified.intervals[:, 0] <= certified.intervals[:, 1]).all())
    nearest = (theta[:, None] - values).abs().argmin(dim=1)
    for i in range(20):
        if certificate.angles[i] < 1:
            assert sine(U[:, nearest[i] : nearest[i] + 1], V[:, i : i + 1]) <= certificate.angles[i] + tiny

    # spaces and clusters
    for k in range(1, 20):
        if certificate.space_sine(k) < 1:
            assert sine(U[:, :k], V[:, :k]) <= certificate.space_sine(k) + tiny
    for group in certificate.clusters():
        bound = certificate.cluster_sine(group)
        if bound < 1:
            inside = (values[:, None] - theta[group]).abs().min(dim=1).values <= certificate.rho[-1] + tiny
            assert int(inside.sum()) == len(group)
            assert sine(U[:, inside], V[:, group]) <= bound + tiny

    # the overlap, for any mask
    for mask_seed in range(3):
        ranking = cs.masks.by_magnitude(random_basis(D, 1, mask_seed)[:, 0])
        truth, curve = cs.overlap(U[:, :20], ranking), cs.overlap(certified, ranking)
        # where two magnitudes are equal "the top k" is not one space, and the bracket must hold for each choice
        assert bool((curve.lower - tiny <= truth.value).all())
        assert bool((truth.value <= curve.upper + tiny).all())
        assert bool((curve.lower <= curve.value + tiny).all())
        assert bool((curve.value <= curve.upper + tiny).all())


def test_brackets_become_sharp():
    A, _, _ = problem("algebraic", 0)
    ranking = cs.masks.by_magnitude(random_basis(D, 1, 0)[:, 0])
    widths = []
    for products in (30, 60, 140):
        solution = cs.certify(A, cs.eigsh(A, k=20, method="krylov", tol=0, max_products=products, block_size=3))
        curve = cs.overlap(solution, ranking)
        widths.append(float((curve.upper - curve.lower)[:15].max()))
    assert widths[0] > widths[1] > widths[2]
    assert widths[2] < 1e-6


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("angle", [1e-2, 0.3, 1.5])
def test_vectors_that_mix_across_a_near_tie_cost_what_they_overlap(seed, angle):
    """Pairs 10 and 11, 1e-3 apart, turned into one another: only their own masses on the mask are at stake."""
    _, values, U = problem("algebraic", seed)
    values = values.clone()
    values[10] = values[9].sign() * (values[9].abs() - 1e-3)
    A, V = (U * values) @ U.T, U[:, :20].clone()
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    V[:, 9:11] = U[:, 9:11] @ turn
    theta = ((A @ V) * V).sum(dim=0)
    residuals = (A @ V - V * theta).norm(dim=0)
    tail = TailNorm(float(values[20].abs()), float(values[20].abs()), 1e-6, 0)
    certificate = Certificate(theta, residuals, tail, NOISELESS)
    order = random_basis(D, 1, seed)[:, 0].argsort()
    truth = captured_mass(U[order[:20], :20]).diagonal() / torch.arange(1, 21)
    captured = captured_mass(V[order[:20], :20])
    lower, upper = overlap_bracket(captured, certificate)
    assert bool((lower <= truth + 1e-12).all())
    assert bool((truth <= upper + 1e-12).all())
    if angle == 1e-2:
        root, sine = float(captured[9, 9].sqrt()), certificate.space_sine(10)
        blind = ((root + sine) ** 2 - (root - sine) ** 2) / 10  # as if the leak met the mask with its whole length
        assert sine > 0.5 * angle
        assert float(upper[9] - lower[9]) < 0.8 * blind


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("angle", [1e-3, 1e-2, 0.1])
def test_the_bracket_holds_for_the_projector_that_a_turn_changes_most(sign, angle):
    """On the line between columns 10 and 11 their masses interfere: to first order the overlap moves by the whole angle."""
    _, values, U = problem("algebraic", 0)
    values = values.clone()
    values[10] = values[9].sign() * (values[9].abs() - 1e-4)
    A, V = (U * values) @ U.T, U[:, :20].clone()
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    V[:, 9:11] = U[:, 9:11] @ turn
    line = (V[:, 9] + sign * V[:, 10]) / 2**0.5
    theta = ((A @ V) * V).sum(dim=0)
    tail = TailNorm(float(values[20].abs()), float(values[20].abs()), 1e-6, 0)
    certificate = Certificate(theta, (A @ V - V * theta).norm(dim=0), tail, NOISELESS)
    lower, upper = overlap_bracket((line @ V).square().cumsum(0).expand(20, 20), certificate)
    truth = (line @ U[:, :10]).square().sum() / 10
    assert abs(float(truth) - 0.05) > 0.9 * angle / 10
    assert lower[9] <= truth <= upper[9]


@pytest.mark.parametrize("seed", range(8))
def test_a_near_tie_that_single_precision_mixes_comes_apart_in_double(seed, tmp_path):
    A, values, U = problem("near ties", seed)
    ranking = cs.masks.by_magnitude(random_basis(D, 1, seed)[:, 0])
    solution = cs.eigsh(A.float(), k=24, method="krylov", tol=0, max_products=100, block_size=3, seed=seed)
    cs.certify(A, solution).save(tmp_path / "solution")
    certified = cs.open(tmp_path / "solution")
    # magnitudes 1 and 2, 3 and 4, ... differ by 1e-7 of their size; whether float32 can tell is chance, double precision can
    inside = certified.certificate.magnitudes[:16:2] - certified.certificate.magnitudes[1:16:2]
    torch.testing.assert_close(inside, 1e-7 * values[:16:2].abs(), rtol=1e-3, atol=0)
    curve = cs.overlap(certified, ranking)
    widest = float((curve.upper - curve.lower)[:15].max())
    assert widest < 1e-4
    truth = cs.overlap(U[:, :15], ranking).value
    assert bool(((curve.lower[:15] <= truth) & (truth <= curve.upper[:15])).all())
    assert float(certified.certificate.angles[:15].max()) < 1e-3
    rough = cs.overlap(cs.certify(A.float(), solution), ranking)
    assert float((rough.upper - rough.lower)[:15:2].min()) > 20 * widest


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("size", [8, 14, 20])
def test_every_entry_of_a_ritz_span_is_a_bound(seed, size):
    """Ritz pairs of a span that is 1e-3 off: |<v_i, u_j>|, eigenvalues and angles, against the exact ones."""
    A, values, U = problem("near ties" if seed % 2 else "algebraic", seed)
    V = torch.linalg.qr(U[:, :size] + 1e-3 * random_basis(D, size, seed + 100)).Q
    theta, turn = torch.linalg.eigh(V.T @ A @ V)
    order = theta.abs().argsort(descending=True)
    theta, V = theta[order], V @ turn[:, order]
    residual, outside = A @ V - V * theta, torch.eye(D, dtype=torch.float64) - V @ V.T
    span = RitzSpan(
        theta, residual.norm(dim=0), (V.T @ residual).norm(dim=0), float(torch.linalg.matrix_norm(outside @ A @ outside, 2))
    )
    # the comparison matrix: Theta and the block outside; eigenvalues are matched in algebraic order
    others = torch.linalg.eigvalsh(outside @ A @ outside)
    others = others[others.abs().argsort(descending=True)][: D - size]
    places = torch.cat([theta, others]).argsort().argsort()[:size]
    rising = values.argsort()
    matched, vectors = values[rising][places], U[:, rising][:, places]
    assert bool(((matched - theta).abs() <= span.radii + 1e-13).all())
    assert bool(((V.T @ vectors).square() <= span.squares + 1e-13)[~torch.eye(size, dtype=torch.bool)].all())
    left = 1 - (V.T @ vectors).square().sum(dim=1)
    assert bool((left <= span.squares_outside + 1e-12).all())
    assert bool((1 - (V * vectors).sum(dim=0).square() <= span.squared_angles + 1e-12).all())
    assert float(span.radii[: size // 2].max()) < 1e-4


def test_the_mixing_of_a_ritz_span_is_as_large_as_its_bound():
    """Two pairs 0.01 apart that meet in one direction outside: the bound is off by no more than sqrt 2 and second order."""
    theta, across, outside = torch.tensor([1.0, 0.99], dtype=torch.float64), 2e-3, 0.1
    A = torch.diag(torch.tensor([1.0, 0.99, outside], dtype=torch.float64))
    A[:2, 2] = A[2, :2] = across
    span = RitzSpan(theta, torch.full((2,), across, dtype=torch.float64), torch.zeros(2, dtype=torch.float64), outside)
    _, vectors = torch.linalg.eigh(A)
    mixed, left = float(vectors[0, 1] ** 2), float(vectors[0, 0] ** 2)
    assert mixed <= span.squares[0, 1] <= 2.5 * mixed
    assert left <= span.squares_outside[0] <= 1.1 * left
    assert float(span.squared_angles.max()) < 1e-5


def test_a_missed_pair_is_not_certified():
    """Twenty perfect pairs of which the largest was left out: residuals are all zero, and only the tail norm tells."""
    A, values, U = problem("algebraic", 1)
    keep = [i for i in range(21) if i != 4]
    solution = cs.eigsh(A, k=20, method="exact")

    missing = replace(solution, eigenvalues=values[keep], eigenvectors=InMemory(U[:, keep].contiguous()), provenance={})
    certified = cs.certify(A, missing)
    assert float(certified.residual_norms.max()) < 1e-12
    assert certified.certificate.complete == 4
    # "completeness" in the table a person reads
    assert "the first 4 of 20 pairs" in str(certified)


def test_noise_enters():
    theta, residual = torch.tensor([3.0, 2.0], dtype=torch.float64), torch.tensor([1e-6, 1e-6], dtype=torch.float64)
    tail = TailNorm(0.9, 1.0, 1e-6, 60)
    quiet = Certificate(theta, residual, tail, NOISELESS)
    loud = Certificate(theta, residual, tail, ProductNoise(1e-3, 1e-2))
    assert bool((loud.radii > quiet.radii).all())
    assert loud.residuals[0] == pytest.approx(1e-6 + 1e-3 + 3e-2)
    assert loud.beyond(1) > quiet.beyond(1)
    assert quiet.complete == 2
    assert Certificate(theta, residual, TailNorm(1.9, 2.1, 1e-6, 60), NOISELESS).complete == 1


def test_product_noise_of_rounded_products():
    A = torch.diag(torch.linspace(4, 1, 50, dtype=torch.float64))
    V = InMemory(torch.eye(50, dtype=torch.float64)[:, :6])
    random = random_basis(50, 2, 0)
    assert product_noise(A.__matmul__, V, random).floor < 1e-14

    generator = torch.Generator().manual_seed(0)

    def nondeterministic(block):
        error = torch.randn(block.shape, generator=generator, dtype=torch.float64) / 50**0.5
        return A @ block + 1e-3 * (A @ block).norm(dim=0) * error

    found = product_noise(nondeterministic, V, random)
    assert 0.5e-3 < found.relative < 5e-3
    assert 0.5e-3 < found.floor < 20e-3


def test_tail_of_small_complements_is_exact():
    A, values, U = problem("slow", 0)
    tail = tail_norm(A.__matmul__, InMemory(U[:, :140]), torch.randn(D, dtype=torch.float64), steps=60)
    assert tail.products == 10
    assert tail.failure == 0
    assert tail.bound == pytest.approx(float(values[140].abs()), rel=1e-10)
    assert tail_norm(A.__matmul__, InMemory(U), torch.randn(D, dtype=torch.float64)).bound == 0


def test_tail_bound_fails_no_more_often_than_stated():
    """A flat spectrum is the worst case; with failure 0.05 and a short run the bound may fail in 5% of trials."""
    values = torch.linspace(0, 1, 400, dtype=torch.float64)
    nothing = InMemory(torch.zeros(400, 0, dtype=torch.float64))
    failures = 0
    for seed in range(200):
        start = torch.randn(400, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        failures += tail_norm(lambda x: values[:, None] * x, nothing, start, steps=12, failure=0.05).bound < 1
    assert failures <= 10 + 3 * (200 * 0.05 * 0.95) ** 0.5


def test_too_few_steps_are_refused():
    assert slack(10**7, 4, 1e-6) == float("inf")
    with pytest.raises(InvalidArgument, match="4 steps say nothing"):
        tail_norm(lambda x: x, InMemory(torch.eye(1000)[:, :3]), torch.randn(1000), steps=4)


def test_certify_refuses_what_it_cannot_judge():
    A, _, _ = problem("algebraic", 0)
    with pytest.raises(InvalidArgument, match="pairs of order 'LA' are certified in their own precision"):
        cs.certify(A, cs.eigsh(A.float(), k=3, which="LA"))
    with pytest.raises(InvalidArgument, match="not the operator of the solution"):
        cs.certify(2 * A, cs.eigsh(A, k=3))
    with pytest.raises(InvalidArgument, match=r"up to 1\.\de\+00 away from the solution's"):
        cs.certify(2 * A, cs.eigsh(A.float(), k=3))


def test_higher_precision_that_cannot_fit_is_refused_before_any_product(monkeypatch):
    A, _, _ = problem("algebraic", 0)
    solution = cs.eigsh(A.float(), k=3)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=2 * 3 * D * 8 - 1))
    with pytest.raises(OutOfBudget, match=r"a certificate of 3 pairs takes \d+\.\d KiB .* 4\.7 KiB are left"):
        cs.certify(A, solution)


def test_a_bracket_with_nothing_known_is_the_unit_interval():
    theta = torch.ones(3, dtype=torch.float64)
    certificate = Certificate(theta, theta, TailNorm(1, 1, 1e-6, 60), NOISELESS)
    lower, upper = overlap_bracket(torch.ones(3, 3, dtype=torch.float64), certificate)
    assert lower.tolist() == [0, 0, 0]
    torch.testing.assert_close(upper, torch.ones(3, dtype=torch.float64))


def test_a_value_that_is_not_the_rayleigh_quotient_gets_no_quadratic_interval():
    """Kato-Temple is about Rayleigh quotients: a value 1e-5 off an exact pair must not claim an error of 1e-10."""
    A = torch.diag(torch.tensor([3.0, 2.0, 0.1, 0.05], dtype=torch.float64))
    V = torch.eye(4, dtype=torch.float64)[:, :2]
    exact = cs.eigsh(A, k=2)
    off = replace(exact, eigenvalues=exact.eigenvalues + 1e-5, eigenvectors=InMemory(V), provenance={})
    certified = cs.certify(A, off)
    low, high = certified.intervals.T
    assert bool(((low <= exact.eigenvalues) & (exact.eigenvalues <= high)).all())
    assert float(certified.certificate.radii.max()) < 2.1e-5
    assert float(cs.certify(A, replace(off, eigenvalues=exact.eigenvalues)).certificate.radii.max()) < 1e-14


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("values", [[0.0] * 9, [2.0] * 9, [3.0] + [0.0] * 8, [1.0, -1.0, 1.0, -1.0, 0.0]])
def test_what_is_left_of_small_matrices_with_multiple_eigenvalues_is_bounded(values, dtype):
    """A Lanczos run ends early there, in too few steps for the theorem: it goes on in another direction."""
    A = torch.diag(torch.tensor(values, dtype=dtype))
    norm = cs.spectral_norm(A)
    assert norm.upper == pytest.approx(max(values), rel=1e-5)
    assert norm.failure == 0
    for k in (1, len(values) - 1):
        certificate = cs.certify(A, cs.eigsh(A, k=k)).certificate
        assert certificate.tail.bound == pytest.approx(sorted(map(abs, values))[-1 - k], abs=1e-5)
