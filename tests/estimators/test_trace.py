"""Trace, diagonal and norms against dense matrices, and the leave-one-out formulas against leaving one out."""

import math

import pytest
import torch
from torch import nn

import curvscope as cs
from curvscope.errors import InvalidArgument
from curvscope.estimators._deflation import Deflation
from curvscope.estimators._estimate import student
from curvscope.estimators._probing import XNysTrace, XTrace, _left_out
from curvscope.operators import as_operator

METHODS = ("krylov", "hutchinson", "hutch++", "xtrace", "xnystrace")
MOST = [pytest.param(method, marks=[pytest.mark.slow] * (method == "xnystrace")) for method in METHODS]
"""For tests of hundreds of samples: xnystrace, whose correction is that of xtrace, is a slow one."""


def matrix(size=60, *, definite=True, decay=0.8, dtype=torch.float64):
    generator = torch.Generator().manual_seed(5)
    values = decay ** torch.arange(size, dtype=torch.float64)
    if not definite:
        values[1::3] *= -1
    U = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q
    A = (U * values) @ U.T
    return ((A + A.T) / 2).to(dtype)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    data = [(torch.randn(20, 5, dtype=torch.float64), torch.arange(20) % 3)]
    return model, nn.CrossEntropyLoss(), data


def dense(operator):
    return operator @ torch.eye(operator.shape[0], dtype=operator.dtype)


def joined(source):
    return torch.cat([block for _, block in source.samples()])


def test_xtrace_leaves_one_out():
    A = matrix(definite=False)
    source = XTrace(Deflation(as_operator(A), lambda block: A @ block, None), seed=1)
    source.extend(5)
    source.extend(9)  # in two rounds
    ours, W = joined(source), source.signs(0, 9)
    for i in range(9):
        Q = torch.linalg.qr(A @ torch.cat([W[:, :i], W[:, i + 1 :]], dim=1)).Q
        P = torch.eye(60, dtype=torch.float64) - Q @ Q.T
        rest = P @ A @ P
        assert torch.allclose(ours[:, i], (A - rest).diagonal() + W[:, i] * (rest @ W[:, i]), atol=1e-11)
        assert float(ours[:, i].sum()) == pytest.approx(float((Q.T @ A @ Q).trace() + W[:, i] @ rest @ W[:, i]))


def test_xnystrace_leaves_one_out():
    A = matrix()
    source = XNysTrace(Deflation(as_operator(A), lambda block: A @ block, None), seed=1)
    source.extend(9)
    ours, W = joined(source), source.signs(0, 9)
    for i in range(9):
        others = torch.cat([W[:, :i], W[:, i + 1 :]], dim=1)
        Y = A @ others
        approximation = Y @ torch.linalg.solve(others.T @ Y, Y.T)
        rest = A - approximation
        assert torch.allclose(ours[:, i], approximation.diagonal() + W[:, i] * (rest @ W[:, i]), atol=1e-8)


@pytest.mark.parametrize("kind", [XTrace, XNysTrace])
def test_the_correction_leaves_two_out(kind):
    A = matrix(decay=0.95)

    def made(kept):
        source = kind(Deflation(as_operator(A), lambda block: A @ block, None), seed=1)
        source.signs = lambda start, stop: W[:, kept[start:stop]]
        source.extend(len(kept))
        return source

    W = kind(Deflation(as_operator(A), lambda block: A @ block, None), seed=1).signs(0, 8)
    every = made(list(range(8)))
    naive = float(joined(every).sum(dim=0).std()) / 8**0.5
    without = torch.stack([joined(made([i for i in range(8) if i != j])).sum(dim=0).mean() for j in range(8)])
    told = float((without - without.mean()).square().sum() * 7 / 8) ** 0.5
    assert every.correction() == pytest.approx(max(1.0, told / naive) ** 0.5, rel=1e-6)


@pytest.mark.parametrize("method", MOST)
@pytest.mark.parametrize("deflated", [False, True])
def test_estimates_are_unbiased_and_their_errors_are_told(method, deflated):
    A = matrix(40, definite=method == "xnystrace", decay=0.95)
    solution = cs.eigsh(A, 5, method="exact") if deflated else None
    values, errors = [], []
    for seed in range(200):
        found = cs.trace(A, method=method, max_products=18, seed=seed, deflate=solution)
        assert found.products <= 18
        values.append(found.value)
        errors.append(found.stderr)
    values, errors = torch.tensor(values), torch.tensor(errors)
    scatter = float(values.std())
    assert abs(float(values.mean()) - float(A.trace())) < 4 * scatter / 200**0.5 + 1e-10
    assert 0.8 * scatter < float(errors.square().mean().sqrt()) < 1.7 * scatter


@pytest.mark.parametrize("method", MOST)
def test_diagonals_are_unbiased(method):
    A = matrix(30, definite=method == "xnystrace", decay=0.9)
    runs = [cs.diagonal(A, method=method, max_products=12, seed=seed) for seed in range(300)]
    values = torch.stack([found.value for found in runs])
    scatter = values.std(dim=0) / 300**0.5
    assert bool(((values.mean(dim=0) - A.diagonal()).abs() < 5 * scatter).all())
    told = torch.stack([found.stderr for found in runs]).square().mean(dim=0).sqrt()
    ratio = told / values.std(dim=0)
    assert 0.5 < float(ratio.median()) < 2.5


def test_low_rank_is_exact():
    A = matrix(80, definite=False, decay=0.9)
    values, vectors = torch.linalg.eigh(A)
    top = values.abs().argsort(descending=True)[:6]
    A = (vectors[:, top] * values[top]) @ vectors[:, top].T
    for method in ("krylov", "xtrace", "hutch++"):
        found = cs.trace(A, method=method, max_products=30)
        assert found.value == pytest.approx(float(A.trace()), abs=1e-11)
        assert found.stderr < 1e-11
        assert torch.allclose(cs.diagonal(A, method=method, max_products=30).value, A.diagonal(), atol=1e-11)
    square = A @ A
    found = cs.trace(square, method="xnystrace", max_products=20)
    assert found.value == pytest.approx(float(square.trace()), abs=1e-8)


@pytest.mark.parametrize("scale", [1e-13, 1e8])
def test_any_scale(scale):
    A = matrix(100)
    for method in METHODS:
        small, one = (cs.trace(factor * A, method=method, max_products=24) for factor in (scale, 1.0))
        assert small.value == pytest.approx(scale * one.value, rel=1e-6)
    assert cs.spectral_norm(scale * A).value == pytest.approx(scale, rel=1e-6)


def test_layers_come_from_the_same_products_and_add_up(network):
    H, G = cs.hessian(*network), cs.ggn(*network)
    for operator, method in ((H, "krylov"), (H, "xtrace"), (H, "hutchinson"), (H, "hutch++"), (G, "xnystrace")):
        found = cs.trace(operator, method=method, max_products=24)
        A = dense(operator)
        assert list(found.layers) == ["0.weight", "0.bias", "2.weight", "2.bias"]
        assert sum(layer.value for layer in found.layers.values()) == pytest.approx(found.value)
        for name, place in operator.parameters.slices.items():
            layer = found.layers[name]
            assert layer.value == pytest.approx(float(A[place, place].trace()), abs=6 * layer.stderr + 1e-12)
    norms = cs.frobenius_norm(H, max_products=36)
    A = dense(H)
    assert math.hypot(*(layer.value for layer in norms.layers.values())) == pytest.approx(norms.value)
    for name, place in H.parameters.slices.items():
        assert norms.layers[name].value == pytest.approx(float(A[place].norm()), abs=5 * norms.layers[name].stderr)


def test_automatic_methods(network):
    H, G = cs.hessian(*network), cs.ggn(*network)
    exact = cs.trace(H)  # 39 parameters, 100 products
    assert exact.products == 39
    assert exact.stderr == 0
    assert exact.value == pytest.approx(float(dense(H).trace()))
    assert torch.allclose(cs.diagonal(H).value, dense(H).diagonal())
    assert cs.trace(G, max_products=10).products == 10  # a sample each
    deflated = cs.trace(H, max_products=11, deflate=cs.eigsh(H, 10))
    assert deflated.products == 11
    assert deflated.stderr < cs.trace(H, max_products=11, method="hutchinson").stderr


@pytest.mark.parametrize("method", METHODS)
def test_stops_at_the_wanted_width(method):
    A = matrix(400, decay=0.97)
    found = cs.trace(A, method=method, max_products=300, rtol=0.05)
    assert found.products < 300
    assert found.interval[1] - found.interval[0] <= 0.1 * found.value
    assert found.value == pytest.approx(float(A.trace()), abs=5 * found.stderr)
    entries = cs.diagonal(A, method=method, max_products=390, rtol=0.3)
    assert entries.products < 390
    assert float((entries.value - A.diagonal()).norm()) < 0.6 * float(A.diagonal().norm())


def test_intervals_of_few_samples_hold_the_truth_as_often_as_they_say():
    # On a flat spectrum a sample is a sum of many terms, about normal: 3 binomial standard deviations about 0.95.
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(100, 100, dtype=torch.float64, generator=generator)
    A, count = A + A.T, 500
    found = [cs.trace(A, method="hutchinson", max_products=6, seed=seed) for seed in range(count)]
    held = sum(low <= float(A.trace()) <= high for low, high in (estimate.interval for estimate in found)) / count
    assert abs(held - 0.95) < 3 * math.sqrt(0.95 * 0.05 / count)
    assert {estimate.degrees for estimate in found} == {5}


def test_width_of_an_interval_is_students():
    from scipy.stats import t

    for degrees in (1, 2, 3, 4, 7, 29, 1000):
        assert student(degrees) == pytest.approx(float(t.ppf(0.975, degrees)), rel=2e-3)
    assert student(0) == math.inf
    assert student(math.inf) == pytest.approx(1.96, abs=1e-4)


def test_frobenius_norm_is_exact_where_all_columns_are_allowed(network):
    H = cs.hessian(*network)
    found, A = cs.frobenius_norm(H, max_products=H.shape[0]), dense(H)
    assert found.value == pytest.approx(float(A.norm()))
    assert (found.stderr, found.products) == (0, H.shape[0])
    for name, rows in H.parameters.slices.items():
        assert found.layers[name].value == pytest.approx(float(A[rows].norm()))
        assert found.layers[name].stderr == 0
    assert cs.frobenius_norm(H, max_products=H.shape[0] - 1).stderr > 0


def test_frobenius_norm_with_and_without_known_pairs():
    A = matrix(300, definite=False, decay=0.9)
    for solution in (None, cs.eigsh(A, 10, method="krylov")):
        square = [cs.frobenius_norm(A, max_products=10, deflate=solution, seed=seed).value ** 2 for seed in range(60)]
        mean, scatter = sum(square) / 60, float(torch.tensor(square).std()) / 60**0.5
        assert mean == pytest.approx(float(A.norm()) ** 2, abs=4.5 * scatter + 1e-9)
    found = cs.frobenius_norm(A, rtol=0.1, max_products=300)
    assert found.products < 300
    assert found.stderr * 1.96 <= 0.1 * found.value


def test_what_pairs_of_a_sketch_may_be_off_is_in_the_standard_error():
    A = matrix(300, definite=False, decay=0.9)
    rough = cs.eigsh(A, 5, method="seigh")
    assert float(rough.residual_norms.max()) > 0.1
    for estimator, exact in ((cs.trace, A.trace()), (cs.frobenius_norm, A.norm())):
        found = estimator(A, max_products=50, deflate=rough)
        assert found.value == pytest.approx(float(exact), abs=2 * found.stderr)


def test_spectral_norm_is_bracketed():
    A = matrix(300, definite=False, decay=0.9)
    for rtol in (0.05, 0.3):
        norm = cs.spectral_norm(-A, rtol=rtol)
        assert norm.value <= 1 + 1e-12  # 1 to the rounding of the matrix itself
        assert 1 <= norm.upper <= (1 + rtol) * norm.value
    assert cs.spectral_norm(A, rtol=0.3).products < norm.products + 1 < 100
    assert "in [" in str(norm)


def test_triangles_add_up(network):
    H = cs.hessian(*network)
    A = dense(H)
    X = torch.randn(39, 2, dtype=torch.float64)
    low, strict = cs.block_triangular(H), cs.block_triangular(H, lower=False, diagonal=False)
    assert torch.allclose(low @ X + strict @ X, A @ X)
    expected = A.clone()
    for place in H.parameters.slices.values():
        expected[: place.start, place] = 0
    assert torch.allclose(low @ X, expected @ X)
    assert torch.allclose(low.adjoint_matmul(X), expected.T @ X)
    with pytest.raises(InvalidArgument, match="add up to D = 39"):
        cs.block_triangular(H, blocks=[20, 20])
    with pytest.raises(InvalidArgument, match="sizes of the blocks"):
        cs.block_triangular(A)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "hutch"}, "choose one of"),
        ({"max_products": 5}, "at least 6"),
        ({"rtol": 0.0}, "above 0"),
        ({"method": "exact", "max_products": 20}, "D = 60 products"),
    ],
)
def test_ill_requests(options, words):
    with pytest.raises(InvalidArgument, match=words):
        cs.trace(matrix(), **{"max_products": 20} | options)


def test_indefinite_operators_are_recognised():
    with pytest.raises(InvalidArgument, match="xtrace"):
        cs.trace(matrix(definite=False), method="xnystrace", max_products=20)
    single = matrix(dtype=torch.float32, decay=0.3)  # definite up to rounding
    found = cs.trace(single, method="xnystrace", max_products=40)
    assert found.value == pytest.approx(float(single.trace()), rel=1e-5)


def test_another_operators_solution_is_refused():
    for estimator in (cs.trace, cs.diagonal, cs.frobenius_norm):
        with pytest.raises(InvalidArgument, match="not a solution of this operator"):
            estimator(matrix(), deflate=cs.eigsh(2 * matrix(), 3), max_products=20)


@pytest.mark.parametrize("method", ["krylov", "xtrace", "xnystrace", "hutch++", "hutchinson"])
@pytest.mark.parametrize("values", [[3.0], [1.0, -1.0], [2.0, 2.0, 2.0]])
def test_matrices_so_small_that_signs_repeat_are_measured_exactly(values, method):
    A = torch.diag(torch.tensor(values, dtype=torch.float64))
    for seed in range(5):
        assert cs.trace(A, method=method, seed=seed).value == pytest.approx(sum(values))
        assert cs.diagonal(A, method=method, seed=seed).value.tolist() == pytest.approx(values)


@pytest.mark.parametrize("method", ["auto", "krylov", "xtrace", "hutch++", "hutchinson"])
def test_all_pairs_known_leave_nothing_to_estimate(method):
    A = matrix(40, definite=False)
    solution = cs.eigsh(A, k=40)
    found = cs.trace(A, method=method, max_products=20, deflate=solution)
    assert found.value == pytest.approx(float(A.trace()))
    assert (found.products, found.stderr < 1e-11) == (0, True)
    torch.testing.assert_close(cs.diagonal(A, method=method, max_products=20, deflate=solution).value, A.diagonal())


def test_a_sign_that_repeats_leaves_the_others_their_directions():
    """Columns 0 and 1 reach the same, column 2 one more: only that one is left out with it."""
    left_out = _left_out(torch.tensor([[1.0, 1.0, 0.5], [0.0, 0.0, 2.0]], dtype=torch.float64))
    torch.testing.assert_close(left_out.abs(), torch.tensor([[0.0, 0, 0], [0, 0, 1]], dtype=torch.float64))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_gauss_newton_matrix_of_any_criterion_is_not_taken_for_semidefinite(sign):
    """G of a concave criterion has no positive eigenvalue; xnystrace is for matrices without negative ones."""
    model = torch.nn.Sequential(torch.nn.Linear(6, 12), torch.nn.Tanh(), torch.nn.Linear(12, 3)).double()
    data = [(torch.randn(30, 6, dtype=torch.float64), torch.randn(30, 3, dtype=torch.float64))]
    G = cs.ggn(model, lambda output, target: sign * (output - target).square().mean(), data, dtype=torch.float64)
    exact = float((G @ torch.eye(G.shape[0], dtype=torch.float64)).diagonal().sum())
    found = cs.trace(G, max_products=40, progress=False)
    assert abs(found.value - exact) < 4 * found.stderr < abs(exact)
