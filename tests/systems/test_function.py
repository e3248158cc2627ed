"""Functions of matrices against dense float64 ones: results, errors that hold, and what is told of what cannot work."""

import pytest
import torch
from torch import nn

import curvscope as cs
from curvscope.errors import InvalidArgument, InvalidType, OutOfBudget

FUNCTIONS = {"exp": torch.exp, "log": torch.log, "sqrt": torch.sqrt, "inverse_sqrt": torch.rsqrt, "inverse": torch.reciprocal}
SPECTRA = {
    "power": torch.logspace(0, -4, 60).double(),
    "clusters": torch.cat([torch.ones(30), 2 + 1e-9 * torch.arange(15), torch.full((10,), 3.0)]).double(),
    "plus and minus pairs": torch.cat([torch.linspace(-3, -1, 25), torch.linspace(1, 3, 25)]).double(),
    "tiny": 1e-12 * torch.logspace(0, -2, 40).double(),
    "huge": 1e9 * torch.logspace(0, -2, 40).double(),
    "null space": torch.cat([torch.zeros(30), torch.linspace(0.1, 5, 25)]).double(),
    "outliers": torch.cat([torch.tensor([100.0, 50.0, 20.0]), torch.linspace(0, 0.1, 47)]).double(),
}


def matrix(values, seed=0):
    basis, _ = torch.linalg.qr(torch.randn(len(values), len(values), generator=torch.Generator().manual_seed(seed)).double())
    made = (basis * values) @ basis.T
    return (made + made.T) / 2, basis


def vectors(size, count, seed=1):
    return torch.randn(size, count, generator=torch.Generator().manual_seed(seed)).double()


def exact(values, basis, block, f, damping):
    return basis @ (f(values + damping)[:, None] * (basis.T @ block))


CASES = [
    *((kind, name, 1e-2) for kind in SPECTRA for name in ("exp", "log", "inverse_sqrt")),
    *((kind, "sqrt", 0.0) for kind in SPECTRA),
    *((kind, "inverse", 0.0) for kind in ("power", "tiny", "plus and minus pairs")),
]
CASES = [case for case in CASES if case[0] != "plus and minus pairs" or case[1] in ("exp", "inverse")]
CASES.remove(("huge", "exp", 1e-2))


@pytest.mark.parametrize(("kind", "name", "damping"), CASES)
def test_results_are_those_of_dense_matrices_and_errors_hold(kind, name, damping):
    values, block = SPECTRA[kind], vectors(len(SPECTRA[kind]), 3)
    A, basis = matrix(values)
    found = cs.function(A, block, name, damping=damping, spectrum=(float(values.min()), float(values.max())))
    truth = exact(values, basis, block, FUNCTIONS[name], damping)
    error = (found.value - truth).norm(dim=0)
    slack = 1e-13 * truth.norm(dim=0)  # rounding of the dense result itself
    assert found.converged
    assert bool((error <= found.error_bounds + slack).all())
    assert bool((found.error_bounds >= found.error_estimates * (1 - 1e-12)).all())
    assert float(found.relative_errors.max()) <= 2e-6


@pytest.mark.parametrize("name", ["exp", "sqrt", "inverse_sqrt"])
def test_bounds_hold_and_are_near_the_error_before_convergence(name):
    values = torch.linspace(0.01, 4, 80).double()
    A, basis = matrix(values, 3)
    block = vectors(80, 2)
    truth = exact(values, basis, block, FUNCTIONS[name], 0.0)
    for products in (6, 10, 16, 24):
        found = cs.function(A, block, name, spectrum=(0.01, 4), max_products=products, tol=1e-14)
        error = (found.value - truth).norm(dim=0)
        assert bool((error <= found.error_bounds).all())
        assert bool((found.error_bounds <= 100 * error).all())
        assert found.products <= products
        assert found.status.code == "partly"


def test_a_callable_and_the_names_of_others():
    values = SPECTRA["plus and minus pairs"]
    A, basis = matrix(values)
    block = vectors(len(values), 2)
    found = cs.function(A, block, lambda x: (x / 2).cos(), spectrum=(-3, 3))
    truth = exact(values, basis, block, lambda x: (x / 2).cos(), 0.0)
    assert bool(((found.value - truth).norm(dim=0) <= found.error_bounds).all())
    sign = cs.function(A, block, torch.sign, tol=1e-4)
    assert float((sign.value - exact(values, basis, block, torch.sign, 0.0)).norm()) <= 1e-3 * float(block.norm())
    positive, _ = matrix(SPECTRA["power"])
    one = vectors(60, 1)[:, 0]
    named = [cs.function(positive, one, name).value for name in ("rsqrt", "inv-sqrt", "Inverse_Sqrt")]
    torch.testing.assert_close(named[0], named[1])
    torch.testing.assert_close(named[0], named[2])


def network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 3))
    return model, nn.CrossEntropyLoss(), [(torch.randn(30, 3), torch.arange(30) % 3)]


def test_a_gauss_newton_matrix_has_its_lower_end_known():
    G = cs.ggn(*network(), dtype=torch.float64)
    values, basis = torch.linalg.eigh(G.to_dense())
    block = vectors(G.shape[0], 2)
    estimated = cs.function(G, block, "inverse_sqrt", damping=1e-2)
    assert bool(torch.isinf(estimated.error_bounds).all())
    assert "estimated" in str(estimated)
    certified = cs.function(G, block, "inverse_sqrt", damping=1e-2, spectrum=cs.certify(G, cs.eigsh(G, 3)))
    truth = exact(values.clamp(min=0), basis, block, torch.rsqrt, 1e-2)
    for found in (estimated, certified):
        error = (found.value - truth).norm(dim=0)
        assert bool((error <= found.error_estimates + 1e-12).all())
    assert bool(((certified.value - truth).norm(dim=0) <= certified.error_bounds).all())
    assert "certificate" in str(certified)


def test_single_precision_states_its_rounding():
    values = SPECTRA["power"]
    A, basis = matrix(values)
    block = vectors(60, 2).float()
    found = cs.function(A.float(), block, "sqrt", tol=1e-9, spectrum=(0, 1.0))
    truth = exact(values, basis, block.double(), torch.sqrt, 0.0)
    error = (found.value.double() - truth).norm(dim=0)
    assert found.value.dtype == torch.float32
    assert bool((error <= found.error_bounds).all())
    assert "rounding" in str(found)


def test_forms_of_the_right_hand_side():
    H = cs.hessian(*network())
    named = H.unflatten(torch.ones(H.shape[0]))
    vector = cs.function(H, torch.ones(H.shape[0]), "exp").value
    assert vector.shape == (H.shape[0],)
    torch.testing.assert_close(H.flatten(cs.function(H, named, "exp").value), vector)
    assert cs.function(H, torch.zeros(H.shape[0]), "exp").value.abs().max() == 0
    blocks = cs.function(H, torch.eye(H.shape[0]), "exp", block_size=7)
    torch.testing.assert_close(blocks.value, torch.linalg.matrix_exp(H.to_dense()), atol=1e-5, rtol=1e-5)
    assert blocks.error_estimates.shape == (H.shape[0],)


def test_what_cannot_work_is_told():
    indefinite, _ = matrix(SPECTRA["plus and minus pairs"])
    block = vectors(50, 1)
    with pytest.raises(InvalidArgument, match="not finite at"):
        cs.function(indefinite, block, "log")
    with pytest.raises(InvalidArgument, match="contradicted"):
        cs.function(indefinite, block, "exp", spectrum=(0, 5))
    with pytest.raises(InvalidArgument, match="choose one of exp, log"):
        cs.function(indefinite, block, "tanh")
    with pytest.raises(InvalidType, match="map each eigenvalue"):
        cs.function(indefinite, block, lambda x: x.sum())
    with pytest.raises(InvalidArgument, match="spectrum"):
        cs.function(indefinite, block, "exp", spectrum="all")
    with pytest.raises(InvalidArgument, match="shape"):
        cs.function(indefinite, block[:5], "exp")
    with pytest.raises(OutOfBudget, match="memory"):
        cs.function(indefinite, block, "exp", memory="1KiB")
    with pytest.raises(InvalidArgument, match="max_products=2: 3 right-hand sides need at least 3"):
        cs.function(indefinite, vectors(50, 3), "exp", max_products=2)
    other, _ = matrix(SPECTRA["plus and minus pairs"], seed=5)
    with pytest.raises(InvalidArgument, match="spectrum is not a solution of this operator"):
        cs.function(indefinite, block, "exp", spectrum=cs.certify(other, cs.eigsh(other, 3)))


@pytest.mark.parametrize("max_products", [6, 9, 40])
def test_a_budget_that_ends_in_the_first_block_leaves_products_for_the_others(max_products):
    A, _ = matrix(SPECTRA["power"])
    found = cs.function(A, vectors(60, 6), "exp", block_size=2, max_products=max_products, tol=1e-14)
    assert found.products <= max_products
    assert found.value.shape == (60, 6)
    assert found.status.code == "partly"


@pytest.mark.parametrize("name", ["log", "inverse_sqrt", "exp"])
@pytest.mark.parametrize("kind", ["power", "clusters", "null space", "outliers"])
def test_traces_of_functions_hold_the_truth(kind, name):
    values = SPECTRA[kind]
    A, _ = matrix(values)
    truth = float(FUNCTIONS[name](values + 0.01).sum())
    spectrum = (float(values.min()), float(values.max()))
    for steps in (6, 25):
        found = cs.function_trace(A, name, damping=0.01, method="lanczos", num_steps=steps, spectrum=spectrum)
        assert abs(found.value - truth) <= 4 * found.stderr + 1e-9 * abs(truth)


@pytest.mark.parametrize("spectrum", [(0.0, 0.5), (0.5, 2.0), 0.5])
@pytest.mark.parametrize("method", ["lanczos", "exact"])
def test_a_spectrum_that_a_trace_contradicts_is_told(spectrum, method):
    A, _ = matrix(torch.linspace(0.1, 1, 40).double())
    with pytest.raises(InvalidArgument, match="contradicted"):
        cs.function_trace(A, "exp", spectrum=spectrum, method=method)


def test_a_short_quadrature_is_not_wrong_without_a_word():
    values = torch.logspace(0, -6, 80).double()
    A, _ = matrix(values)
    truth = float((values + 1e-3).log().sum())
    plain = cs.density(A, num_steps=5, method="lanczos").sum(lambda x: (x + 1e-3).log())
    found = cs.logdet(A, damping=1e-3, num_steps=5, method="lanczos", spectrum=(0, 1))
    assert abs(plain.value - truth) > 4 * plain.stderr
    assert abs(found.value - truth) < 2 * found.stderr


def test_logdet_of_small_and_low_rank_matrices_is_exact():
    G = cs.ggn(*network(), dtype=torch.float64)
    dense = torch.linalg.slogdet(G.to_dense() + 0.1 * torch.eye(G.shape[0]).double())[1]
    found = cs.logdet(G, damping=0.1)
    assert found.stderr == 0
    assert found.value == pytest.approx(float(dense), abs=1e-9)
    with pytest.raises(InvalidArgument, match="not finite at"):
        cs.logdet(cs.hessian(*network(), dtype=torch.float64))
