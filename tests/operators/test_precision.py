"""Products in TF32 and bfloat16: asked for by name, put back, told apart, and their error measured."""

import pytest
import torch
from torch import nn

import curvscope as cs
from curvscope.certificates import ProductNoise
from curvscope.errors import InvalidArgument
from curvscope.system import TF32_EPS, _precision as switches, float32_products, in_tf32

CRITERION = nn.CrossEntropyLoss()


def made(**options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 4))
    data = [(torch.randn(20, 8), torch.randint(0, 4, (20,))), (torch.randn(9, 8), torch.randint(0, 4, (9,)))]
    return options.pop("make", cs.hessian)(model, options.pop("loss", CRITERION), data, **options)


@pytest.fixture
def with_tf32(monkeypatch):
    monkeypatch.setattr(switches, "has_tf32", lambda device: True)


def test_tf32_is_on_for_the_products_alone(with_tf32):
    seen = []

    def loss(model, batch):
        seen.append(in_tf32())
        return CRITERION(model(batch[0]), batch[1])

    H = made(loss=loss, precision="tf32", strategy="double_backward")
    H.derivatives()  # is verified against differences in float64
    seen.clear()
    H @ torch.ones(H.shape[0])
    assert seen
    assert all(seen)
    assert not in_tf32()
    seen.clear()
    with float32_products(tf32=True):  # whatever PyTorch's own settings are
        H = made(loss=loss, strategy="double_backward")
        H @ torch.ones(H.shape[0])
        assert not any(seen)
        assert in_tf32()


PLACES = {
    "everything": torch.backends,
    "matrix products on GPUs": torch.backends.cuda.matmul,
    "convolutions on GPUs": torch.backends.cudnn.conv,
    "convolutions on the CPU": torch.backends.mkldnn.conv,
}


@pytest.mark.parametrize("value", ["tf32", "ieee", "none"])
@pytest.mark.parametrize("place", PLACES)
def test_settings_under_their_newer_name_are_put_back(with_tf32, place, value):
    def settings():
        """What holds, and what would if another precision were wanted everywhere from now on."""
        everything = torch.backends.fp32_precision
        found = [[each.fp32_precision for each in PLACES.values()]]
        for wanted in ("tf32", "ieee"):
            torch.backends.fp32_precision = wanted
            found.append([each.fp32_precision for each in PLACES.values()])
        torch.backends.fp32_precision = everything
        return found

    before = PLACES[place].fp32_precision
    try:
        PLACES[place].fp32_precision = value
        now = settings()
        for options in ({}, {"precision": "tf32"}):
            H = made(**options)
            H @ torch.ones(H.shape[0])
            assert settings() == now
    finally:
        PLACES[place].fp32_precision = before


def test_what_is_recorded(with_tf32):
    plain, coarse, half = made(), made(precision="tf32"), made(dtype=torch.bfloat16)
    assert len({H.fingerprint for H in (plain, coarse, half)}) == 3
    assert made(precision=None).fingerprint == plain.fingerprint
    for H, name, unit in ((plain, "float32", 2**-23), (coarse, "tf32", TF32_EPS), (half, "bfloat16", 2**-7)):
        H @ torch.ones(H.shape[0])
        assert H.strategy_report["arithmetic"] == name
        assert H.rounding == (2 * H + H).rounding == H.square().rounding == unit
        assert H.dtype == torch.float32
    assert cs.eigsh(coarse, 2, progress=False).provenance["products"]["arithmetic"] == "tf32"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "tf32"}, "needs an NVIDIA GPU.*the operator is on cpu"),
        ({"precision": "bf16"}, "precision='bf16': choose 'tf32'"),
        ({"precision": "tf32", "dtype": torch.float64}, "multiplies float32 numbers, the dtype is torch.float64"),
    ],
)
def test_what_cannot_be_is_refused_by_name(options, message):
    with pytest.raises(InvalidArgument, match=message):
        made(**options)


@pytest.mark.parametrize("make", [cs.hessian, cs.ggn, cs.monte_carlo_fisher])
def test_preflight_tells_the_error_of_coarse_products(make):
    H = made(make=make, dtype=torch.bfloat16)
    for short in (False, True):
        found = cs.preflight(H, short=short)
        assert found.passed, str(found)
        (check,) = [check for check in found.checks if check.name == "arithmetic"]
        assert "bfloat16, against float64" in str(found)
        assert 2**-11 < check.error < 0.05
    assert not [check for check in cs.preflight(made(make=make)).checks if check.name == "arithmetic"]


def test_the_reference_is_at_the_parameters_that_were_not_rounded():
    H, exact = made(dtype=torch.bfloat16), made()
    x = torch.randn(H.shape[0], generator=torch.Generator().manual_seed(1))
    assert torch.equal(H.exactly() @ x, exact @ x)
    assert exact.exactly() is None
    assert not torch.equal(H @ x, exact @ x)
    with torch.no_grad():
        H.objective.model[0].weight.add_(1.0)  # trained on: the parameters of the operator are known rounded only
    assert torch.allclose(H.exactly() @ x, made() @ x, rtol=0.1, atol=0.1 * float((exact @ x).abs().max()))


def test_an_error_that_is_linear_reaches_the_certificate_too(monkeypatch):
    """Rounded parameters give another matrix, as linear as the right one: only exact products tell."""
    monkeypatch.setattr("curvscope.solvers.certification._certify.product_noise", lambda *arguments: ProductNoise(0.0, 0.0))
    H = made(dtype=torch.bfloat16)
    solution = cs.certify(H, cs.eigsh(H, 3, method="krylov", tol=5e-2, progress=False), progress=False)
    v = solution.eigenvectors.columns(0, 1)[:, 0]
    error = float((H @ v - made() @ v).norm())
    assert error > 1e-3 * float(solution.eigenvalues[0].abs())
    assert float(solution.certificate.noise.at(solution.eigenvalues[0].abs())) >= 0.99 * error


@pytest.mark.parametrize("method", ["krylov", "seigh"])
def test_the_certificate_is_for_the_exact_matrix(method):
    """Intervals of a solve in bfloat16, with the noise measured, hold eigenvalues of the matrix in float64."""
    H = made(dtype=torch.bfloat16)
    exact = torch.linalg.eigvalsh((made(dtype=torch.float64) @ torch.eye(H.shape[0], dtype=torch.float64)).double())
    solution = cs.certify(H, cs.eigsh(H, 4, method=method, tol=5e-2, progress=False), progress=False)
    noise = solution.certificate.noise
    assert noise.relative > 1e-3
    distances = (solution.eigenvalues[:, None] - exact).abs().min(dim=1).values
    assert bool((distances <= solution.certificate.radii).all())
    assert float(distances.max()) > 1e-5 * float(exact.abs().max()), "else this shows nothing"
    fine = cs.certify(made(), cs.eigsh(made(), 4, method=method, progress=False), progress=False).certificate.noise
    assert noise.relative > 100 * fine.relative


def test_a_coarse_solution_is_certified_by_a_fine_operator():
    """Solved in bfloat16, made Ritz pairs of the float32 matrix: nearer to its eigenvalues, in intervals that hold them."""
    coarse, fine = made(dtype=torch.bfloat16), made()
    exact = torch.linalg.eigvalsh((made(dtype=torch.float64) @ torch.eye(fine.shape[0], dtype=torch.float64)).double())
    solution = cs.eigsh(coarse, 4, method="krylov", tol=5e-3, progress=False)  # errors of bfloat16, not of the solve
    better = cs.certify(fine, solution, progress=False)
    assert better.provenance["refined from"]["fingerprint"] == coarse.fingerprint
    before, after = ((found.eigenvalues[:, None] - exact).abs().min(dim=1).values for found in (solution, better))
    assert float(after.max()) < 0.2 * float(before.max())
    assert bool((after <= better.certificate.radii).all())
    with pytest.raises(InvalidArgument, match="not the operator of the solution"):
        cs.certify(coarse, better, progress=False)
