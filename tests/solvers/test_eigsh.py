"""Eigenpairs against matrices with known spectra: values, vectors, subspaces, residuals, claims."""

import pytest
import torch

from curvscope.errors import InvalidArgument, NotFinite
from curvscope.operators import Dense, as_operator
from curvscope.operators.base import Operator
from curvscope.solvers import eigsh, seigh
from curvscope.tall import orthogonality

D = 400

BULK = torch.linspace(-1, 1, D - 12, dtype=torch.float64) ** 3
SPECTRA = {
    "plus-minus pairs": torch.cat([torch.tensor([9.0, -9, 7, -7, 5, -5, 4, -4, 3, -3, 2, -2]), BULK]),
    "clusters": torch.cat([torch.tensor([9.0, 9, 9, 9, 7, 7, 7, 5, 5, 3, 3, 2.0]), BULK]),
    "algebraic": 10 / torch.arange(1, D + 1, dtype=torch.float64) ** 1.5,
    "tiny scale": 1e-13 * torch.cat([torch.linspace(9, 2, 12, dtype=torch.float64), BULK]),
    "rank deficient": torch.cat([torch.linspace(9, 2, 12, dtype=torch.float64), torch.zeros(D - 12, dtype=torch.float64)]),
}
K = 12


def exact_order(values):
    return values.abs().argsort(descending=True, stable=True)


def space_missed(U, V):
    """1 - overlap of two spaces of equal dimension."""
    return 1 - float((U.double().T @ V.double()).square().sum()) / U.shape[1]


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", ["exact", "krylov"])
def test_pairs_of_known_spectra(name, dtype, method, make_symmetric):
    values = SPECTRA[name].double()
    A, U = make_symmetric(values, dtype=dtype)
    options = {"tol": 1e-5, "block_size": 4} if method == "krylov" else {}
    solution = eigsh(A, k=K, method=method, **options)
    order = exact_order(values)[:K]
    unit, scale = torch.finfo(dtype).eps, float(values.abs().max())
    assert solution.status.converged, solution.status
    torch.testing.assert_close(solution.eigenvalues.abs(), values[order].abs(), rtol=0, atol=100 * unit * scale + 1e-9 * scale)
    # the same signed values (a pair +x, -x may come in either order)
    torch.testing.assert_close(solution.eigenvalues.sort().values, values[order].sort().values, rtol=0, atol=1e-5 * scale)
    assert space_missed(U[:, order], solution.eigenvectors.to_tensor()) < 1e-6
    assert orthogonality(solution.eigenvectors) <= (1e-6 if dtype == torch.float32 else 1e-12)
    recomputed = (
        A.double() @ solution.eigenvectors.to_tensor().double()
        - solution.eigenvectors.to_tensor().double() * solution.eigenvalues
    ).norm(dim=0)
    torch.testing.assert_close(solution.residual_norms, recomputed, rtol=1e-2, atol=50 * unit * scale)
    inside = (solution.intervals[:, :1] - 1e-6 * scale <= values) & (values <= solution.intervals[:, 1:] + 1e-6 * scale)
    assert bool(inside.any(dim=1).all())


@pytest.mark.parametrize("which", ["LM", "LA", "SA", "BE"])
def test_which_agrees_with_the_dense_solver(which, make_symmetric):
    values = torch.cat([torch.tensor([6.0, -5.5, 5, -4.5, 4, -3.5, 3, -2.5]), torch.linspace(-1, 1, 292)]).double()
    A, _ = make_symmetric(values)
    krylov = eigsh(A, k=5, which=which, method="krylov", tol=1e-8)
    exact = eigsh(A, k=5, which=which, method="exact")
    torch.testing.assert_close(krylov.eigenvalues, exact.eigenvalues, rtol=0, atol=1e-10)
    assert krylov.status.converged
    expected = {
        "LM": [6, -5.5, 5, -4.5, 4],
        "LA": [6, 5, 4, 3, 1],
        "SA": [-5.5, -4.5, -3.5, -2.5, -1],
        "BE": [6, 5, 4, -4.5, -5.5],
    }[which]
    torch.testing.assert_close(exact.eigenvalues, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "A", [torch.zeros(40, 40), torch.eye(40), torch.diag(torch.tensor([3.0] + [0.0] * 39)), torch.ones(40, 40)]
)
@pytest.mark.parametrize("k", [1, 5, 40])
def test_no_breakdown_on_degenerate_operators(A, k):
    solution = eigsh(A, k=k, method="krylov", tol=1e-4)
    expected = torch.linalg.eigvalsh(A.double())
    expected = expected[exact_order(expected)[:k]]
    torch.testing.assert_close(solution.eigenvalues, expected, rtol=0, atol=1e-4)
    assert orthogonality(solution.eigenvectors) <= 1e-6
    assert solution.status.converged


def test_thick_restart_keeps_both_ends(make_symmetric):
    values = torch.cat([torch.tensor([5.0, -5, 4.5, -4.5, 4, -4]), torch.linspace(-2, 2, 494)]).double()
    A, U = make_symmetric(values)
    solution = eigsh(A, k=6, method="krylov", ncv=14, block_size=2, tol=1e-8)
    assert solution.diagnostics["restarts"] > 0
    assert solution.status.converged
    assert space_missed(U[:, :6], solution.eigenvectors.to_tensor()) < 1e-12


def test_the_budget_is_used_exactly_and_failure_keeps_its_result(make_symmetric):
    A, _ = make_symmetric(torch.linspace(-1, 1, 300).double())
    solution = eigsh(A, k=20, method="krylov", tol=1e-10, max_products=53, block_size=4)
    assert solution.cost.products == 53
    assert solution.cost.certificate_products == 20
    assert solution.status.code == "partly"
    assert "max_products" in solution.status.text
    assert solution.k == 20
    assert solution.residual_norms.max() > 1e-6
    assert float(eigsh(A, k=20, method="krylov", tol=0, max_products=200).residual_norms.max()) < 1e-3


def test_residuals_of_a_cut_last_block_are_right(make_symmetric):
    A, _ = make_symmetric(SPECTRA["algebraic"])
    for products in (60, 61, 62, 63):
        solution = eigsh(A, k=10, method="krylov", tol=0, max_products=products, block_size=4)
        V = solution.eigenvectors.to_tensor()
        torch.testing.assert_close(
            solution.residual_norms, (A @ V - V * solution.eigenvalues).norm(dim=0), rtol=1e-6, atol=1e-14
        )


def test_warm_start_saves_products(make_symmetric):
    A, _ = make_symmetric(SPECTRA["plus-minus pairs"])
    cold = eigsh(A, k=6, method="krylov", tol=1e-6)
    warm = eigsh(A, k=6, method="krylov", tol=1e-6, v0=cold.eigenvectors)
    assert torch.equal(warm.eigenvalues, eigsh(A, k=6, method="krylov", tol=1e-6, v0=cold).eigenvalues)
    assert warm.status.converged
    assert warm.cost.products < cold.cost.products
    torch.testing.assert_close(warm.eigenvalues.abs(), cold.eigenvalues.abs(), rtol=1e-8, atol=0)


def test_going_on_from_a_kept_basis_loses_no_product(make_symmetric):
    A, U = make_symmetric(SPECTRA["algebraic"])
    options = {"method": "krylov", "block_size": 4, "keep_basis": True, "ncv": 300}
    few = eigsh(A, k=5, tol=1e-6, **options)
    more = eigsh(A, k=20, tol=1e-6, v0=few, **options)
    direct = eigsh(A, k=20, tol=1e-6, **options)
    assert more.status.converged
    assert space_missed(U[:, :20], more.eigenvectors.to_tensor()) < 1e-10
    assert few.cost.products < more.cost.products <= 1.15 * direct.cost.products
    again = eigsh(A, k=20, tol=1e-6, v0=more, method="krylov", ncv=300)
    assert again.cost.products <= more.cost.products + 8
    assert again.basis is None
    # of another operator only the vectors are used
    other = eigsh(2 * A, k=5, tol=1e-6, v0=few, method="krylov")
    torch.testing.assert_close(other.eigenvalues, 2 * few.eigenvalues, rtol=1e-9, atol=0)


def test_same_seed_same_bits_and_signs_are_canonical(make_symmetric):
    A, _ = make_symmetric(SPECTRA["algebraic"])
    first, second = (eigsh(A, k=5, method="krylov", seed=7) for _ in range(2))
    assert torch.equal(first.eigenvectors.to_tensor(), second.eigenvectors.to_tensor())
    V = first.eigenvectors.to_tensor()
    assert bool((V.gather(0, V.abs().argmax(0, keepdim=True)) > 0).all())


def test_seigh_is_exact_on_low_rank_and_says_that_it_is_approximate(make_symmetric):
    A, U = make_symmetric(SPECTRA["rank deficient"])
    solution = seigh(A, num_outer=20, num_inner=50, k=12)
    assert solution.status.code == "approximate"
    assert solution.cost.products == 50
    torch.testing.assert_close(solution.eigenvalues, SPECTRA["rank deficient"][:12], rtol=1e-9, atol=0)
    assert space_missed(U[:, :12], solution.eigenvectors.to_tensor()) < 1e-12
    assert solution.diagnostics["rank"] == 12
    assert solution.diagnostics["asymmetry"] < 1e-9


def test_seigh_does_not_depend_on_the_block_size(make_symmetric):
    A, _ = make_symmetric(SPECTRA["algebraic"])
    one, other = (seigh(A, num_outer=30, k=8, block_size=block) for block in (7, 60))
    torch.testing.assert_close(one.eigenvalues, other.eigenvalues, rtol=1e-9, atol=0)


def test_seigh_error_is_near_the_best_possible(make_symmetric):
    values = torch.exp(-torch.arange(D, dtype=torch.float64) / 8)
    A, _ = make_symmetric(values)
    for seed in range(5):
        solution = seigh(A, num_outer=80, num_inner=200, seed=seed)
        V = solution.eigenvectors.to_tensor()
        error = (A - V * solution.eigenvalues @ V.T).norm()
        # Tropp et al. (2019), with k = 80, s = 200, rho = 60: expected squared error below 3.4 * 7.4 * tail(61)^2
        assert error <= 3 * (3.4 * 7.4) ** 0.5 * values[60:].norm()


class Poisoned(Operator):
    hermitian = True

    def __init__(self, size, bad):
        self.shape, self.dtype, self.device, self.bad, self.count = (size, size), torch.float64, torch.device("cpu"), bad, 0

    def _apply(self, block):
        result = block.clone()
        for column in range(block.shape[1]):
            self.count += 1
            if self.count == self.bad:
                result[3, column] = float("nan")
        return result

    def _fingerprint(self):
        return "poisoned"


@pytest.mark.parametrize("method", ["exact", "krylov", "seigh"])
def test_a_product_with_nan_is_named(method):
    with pytest.raises(NotFinite, match="product 5 has NaN"):
        eigsh(Poisoned(60, bad=5), k=3, method=method)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "k=0: choose an integer from 1 to D = 10"),
        ({"k": 11}, "k=11: choose an integer from 1 to D = 10"),
        ({"k": 2.5}, "k=2.5"),
        ({"k": 2, "which": "XX"}, "which='XX': choose 'LM'"),
        ({"k": 2, "method": "householder"}, "method='householder': choose one of auto"),
        ({"k": 2, "tol": -1}, "tol=-1"),
        ({"k": 5, "method": "krylov", "max_products": 3}, "max_products=3 is less than k=5"),
        ({"k": 2, "method": "krylov", "ncv": 3}, "ncv=3: choose at least"),
        ({"k": 2, "method": "krylov", "block_size": 0}, "block_size=0"),
        ({"k": 2, "method": "krylov", "v0": torch.ones(3)}, "v0 has shape"),
        ({"k": 2, "method": "krylov", "v0": torch.zeros(10)}, "v0 must be finite and not zero"),
        ({"k": 2, "method": "exact", "ncv": 5}, "ncv has no meaning"),
    ],
)
def test_bad_requests_fail_before_any_product(arguments, message):
    operator = Poisoned(10, bad=1)
    with pytest.raises(InvalidArgument, match=message):
        eigsh(operator, **arguments)
    assert operator.count == 0


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (torch.ones(3, 4), "square"),
        (torch.tensor([[1.0, 2], [0, 1]]), "Hermitian"),
        (1j * torch.eye(3, dtype=torch.complex64), "Hermitian"),
    ],
)
def test_operators_that_have_no_real_eigenpairs(matrix, message):
    with pytest.raises(InvalidArgument, match=message):
        eigsh(matrix, k=1)


@pytest.mark.parametrize(
    ("outer", "inner", "message"),
    [(0, 5, "num_outer=0: choose an integer"), (6, 5, "<= num_outer <= num_inner <= D"), (5, 11, "<= num_inner <= D")],
)
def test_seigh_sizes(outer, inner, message):
    with pytest.raises(InvalidArgument, match=message):
        seigh(torch.eye(10), num_outer=outer, num_inner=inner)


def test_operators_of_other_libraries():
    from scipy.sparse.linalg import aslinearoperator, eigsh as scipy_eigsh

    A = torch.diag(torch.arange(1.0, 51, dtype=torch.float64))
    linear = aslinearoperator(A.numpy())
    solution = eigsh(linear, k=4, method="krylov", tol=1e-8)
    torch.testing.assert_close(solution.eigenvalues.sort().values, torch.from_numpy(scipy_eigsh(linear, k=4)[0]).sort().values)
    assert isinstance(as_operator(A), Dense)
    assert as_operator(A.numpy()).fingerprint == as_operator(A).fingerprint
    with pytest.raises(TypeError, match="cannot make an operator of a str"):
        as_operator("H")


def test_an_operator_that_changes_is_refused_before_the_work():
    import curvscope as cs

    class Shuffled:
        """Another noise in each pass, as an augmenting loader would give."""

        def __iter__(self):
            yield torch.randn(8, 4), torch.arange(8) % 3

    model = torch.nn.Linear(4, 3)
    H = cs.hessian(model, torch.nn.CrossEntropyLoss(), Shuffled())
    with pytest.raises(RuntimeError, match=r"not one fixed symmetric matrix.*augmentation.*preflight=False"):
        eigsh(H, k=2)
    assert eigsh(H, k=2, preflight=False).k == 2
