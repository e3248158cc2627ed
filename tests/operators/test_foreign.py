"""Matrices of other libraries: sparse ones, every SciPy LinearOperator, integers, parameters; and their arithmetic."""

import numpy as np
import pytest
import torch

import curvscope as cs
from curvscope.errors import InvalidArgument, NotFinite, NotHermitian

sparse = pytest.importorskip("scipy.sparse")
linalg = pytest.importorskip("scipy.sparse.linalg")

RANDOM = np.random.default_rng(0)
RECTANGULAR = np.where(RANDOM.random((40, 25)) < 0.3, RANDOM.standard_normal((40, 25)), 0.0)
SQUARE = np.where(RANDOM.random((30, 30)) < 0.3, RANDOM.standard_normal((30, 30)), 0.0)
SYMMETRIC = SQUARE + SQUARE.T
SCIPY = [
    getattr(sparse, f"{kind}_{form}") for kind in ("csr", "csc", "coo", "bsr", "dok", "lil") for form in ("matrix", "array")
]
TORCH = [torch.Tensor.to_sparse_coo, torch.Tensor.to_sparse_csr, torch.Tensor.to_sparse_csc]


def made(array):
    """The array in every sparse form."""
    yield from (make(array) for make in SCIPY)
    yield from (make(torch.from_numpy(array)) for make in TORCH)


@pytest.mark.filterwarnings("ignore:Sparse C:UserWarning")
@pytest.mark.parametrize("array", [RECTANGULAR, RECTANGULAR.T, SQUARE, SYMMETRIC], ids=["tall", "wide", "square", "symmetric"])
def test_products_with_sparse_matrices_and_their_adjoints(array):
    right, left = torch.randn(array.shape[1], 3).double(), torch.randn(array.shape[0], 3).double()
    for matrix in made(array):
        A = cs.as_operator(matrix)
        assert A.hermitian == (array is SYMMETRIC)
        torch.testing.assert_close(A @ right, torch.from_numpy(array) @ right)
        torch.testing.assert_close(A.adjoint_matmul(left), torch.from_numpy(array.T.copy()) @ left)
        assert A.fingerprint == cs.as_operator(matrix).fingerprint
    expected = torch.linalg.svdvals(torch.from_numpy(array))[:2]
    for matrix in (sparse.coo_array(array), torch.from_numpy(array).to_sparse_csc()):
        torch.testing.assert_close(cs.svds(matrix, k=2, tol=1e-10).S, expected)


def test_complex_sparse_matrices():
    array = SQUARE + 1j * np.roll(SQUARE, 1, axis=0)
    block = torch.randn(30, 2, dtype=torch.complex128)
    for matrix in (sparse.csr_array(array), torch.from_numpy(array).to_sparse_coo()):
        A = cs.as_operator(matrix)
        torch.testing.assert_close(A.adjoint_matmul(block), torch.from_numpy(array).mH @ block)
        assert not A.hermitian
    assert cs.as_operator(sparse.csr_array(array + array.conj().T)).hermitian


@pytest.mark.filterwarnings("ignore:Sparse C:UserWarning")
def test_integers_and_booleans_are_numbers():
    array = (SYMMETRIC != 0).astype(np.int64)
    expected = np.sort(np.abs(np.linalg.eigvalsh(array)))[::-1][:2]
    forms = [array, array.astype(bool), array.astype(np.uint8), torch.from_numpy(array), sparse.csr_matrix(array)]
    forms += [sparse.coo_array(array.astype(bool)), torch.from_numpy(array).to_sparse_csr(), linalg.aslinearoperator(array)]
    for form in forms:
        found = cs.eigsh(form, k=2, tol=1e-10).eigenvalues.abs().numpy()
        np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize("made", [np.eye(3).astype(object), np.array([["a", "b"], ["c", "d"]]), np.eye(3, dtype=np.float16)])
def test_other_dtypes_are_named(made):
    with pytest.raises(InvalidArgument, match="not supported"):
        cs.as_operator(made)


def test_results_for_parameters_carry_no_graph():
    weight = torch.nn.Linear(30, 40).weight
    assert not cs.svds(weight, k=2).S.requires_grad
    square = torch.nn.Parameter(torch.from_numpy(SYMMETRIC))
    for method in ("krylov", "exact", "seigh"):
        found = cs.eigsh(square, k=2, method=method)
        assert not found.eigenvalues.requires_grad
        assert not found.eigenvectors.to_tensor().requires_grad
    assert not cs.density(square).exact.requires_grad


def centred(matrix, **more):
    """Data less their mean: right for (n,) only, for the mean times a (n, 1) block broadcasts."""
    mean, ones = matrix.mean(axis=0), np.ones(len(matrix))
    return linalg.LinearOperator(
        matrix.shape,
        matvec=lambda v: matrix @ v - ones * (mean @ v),
        rmatvec=lambda u: matrix.T @ u - mean * (ones @ u),
        **more,
    )


class ForVectors(linalg.LinearOperator):
    """A subclass whose products take (n,), without a dtype of its own."""

    def __init__(self, matrix, dtype=None):
        super().__init__(dtype, matrix.shape)
        self.matrix, self.scale = matrix, 1.0 + np.arange(len(matrix))

    def _matvec(self, vector):
        return self.scale * (self.matrix @ vector)

    def _rmatvec(self, vector):
        return self.matrix.T @ (self.scale * vector)


def test_linear_operators_for_vectors_only():
    mean, ones = RECTANGULAR.mean(axis=0), np.ones(40)
    both = {
        "matmat": lambda block: RECTANGULAR @ block - np.outer(ones, mean @ block),
        "rmatmat": lambda block: RECTANGULAR.T @ block - np.outer(mean, ones @ block),
    }
    expected = np.linalg.svd(RECTANGULAR - mean)[1][:3]
    for operator in (
        centred(RECTANGULAR),
        centred(RECTANGULAR, dtype=float),
        centred(RECTANGULAR, **both),
        centred(RECTANGULAR).H.H,
    ):
        np.testing.assert_allclose(cs.svds(operator, k=3, tol=1e-10).S.numpy(), expected)
    doubled = centred(RECTANGULAR) * 2.0 + centred(RECTANGULAR)
    np.testing.assert_allclose(cs.svds(doubled, k=3, tol=1e-10).S.numpy(), 3 * expected)
    weighted = ForVectors(RECTANGULAR)
    expected = np.linalg.svd((1.0 + np.arange(40))[:, None] * RECTANGULAR)[1][:2]
    np.testing.assert_allclose(cs.svds(weighted, k=2, tol=1e-10).S.numpy(), expected)
    scale = 1 + RANDOM.random(30)
    operator = linalg.LinearOperator((30, 30), matvec=lambda x: scale * (SYMMETRIC @ (scale * x)), dtype=float)
    expected = np.abs(np.linalg.eigvalsh(scale[:, None] * SYMMETRIC * scale)).max()
    for method in ("krylov", "exact"):
        assert float(cs.eigsh(operator, k=1, method=method).eigenvalues.abs()) == pytest.approx(expected, rel=1e-3)


class Bare:
    """Something with ``.shape`` and ``@`` and no adjoint."""

    dtype = np.dtype(float)

    def __init__(self, array):
        self.array, self.shape = array, array.shape

    def __matmul__(self, block):
        return self.array @ block


@pytest.mark.parametrize("form", [Bare, lambda array: linalg.LinearOperator(array.shape, matvec=array.__matmul__, dtype=float)])
def test_a_missing_adjoint_is_named_where_it_is_needed(form):
    for array in (RECTANGULAR, SQUARE):
        for solve in (lambda A: cs.svds(A, k=2), lambda A: cs.ssvd(A, num_outer=4)):
            with pytest.raises(InvalidArgument, match="no products with its adjoint"):
                solve(form(array))
    found = cs.svds(form(SYMMETRIC), k=2, tol=1e-10).S  # symmetric, as two products show: its own adjoint
    torch.testing.assert_close(found, torch.linalg.svdvals(torch.from_numpy(SYMMETRIC))[:2])


def test_singular_values_of_square_operators_use_the_adjoint_that_there_is():
    expected = torch.linalg.svdvals(torch.from_numpy(SQUARE))[:3]
    operator = linalg.aslinearoperator(SQUARE)
    torch.testing.assert_close(cs.svds(operator, k=3, tol=1e-10).S, expected)
    low_rank = linalg.aslinearoperator(SQUARE[:, :3] @ RANDOM.standard_normal((3, 30)))
    torch.testing.assert_close(cs.ssvd(low_rank, num_outer=5, k=3).S, torch.linalg.svdvals(torch.from_numpy(low_rank.A))[:3])
    assert cs.posterior_error(operator, cs.svds(operator, k=3)).norm > 0


ESTIMATORS = {
    "trace": lambda A: cs.trace(A, max_products=20),
    "trace, exact": lambda A: cs.trace(A, method="exact"),
    "hutch++": lambda A: cs.trace(A, max_products=20, method="hutch++"),
    "xtrace": lambda A: cs.trace(A, max_products=20, method="xtrace"),
    "hutchinson": lambda A: cs.trace(A, max_products=20, method="hutchinson"),
    "diagonal": lambda A: cs.diagonal(A, max_products=20),
    "frobenius_norm": lambda A: cs.frobenius_norm(A, max_products=20),
    "frobenius_norm, exact": lambda A: cs.frobenius_norm(A),
    "spectral_norm": cs.spectral_norm,
    "density": lambda A: cs.density(A, num_probes=2, num_steps=8),
    "density, one probe": lambda A: cs.density(A, num_probes=1, num_steps=8),
    "density, exact": cs.density,
    "eigsh": lambda A: cs.eigsh(A, k=2, method="krylov"),
}
ASYMMETRIC = {
    "triangular": np.triu(np.random.default_rng(1).standard_normal((80, 80)), 1),
    "a permutation": np.roll(np.eye(80), 1, axis=0),
    "symmetric but for a part in a thousand": (lambda G: G + G.T + 1e-3 * G)(
        np.random.default_rng(2).standard_normal((80, 80))
    ),
}


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("kind", ASYMMETRIC)
def test_operators_that_are_not_symmetric_are_refused(name, kind):
    array = ASYMMETRIC[kind]
    for form in (
        array,
        torch.from_numpy(array).to_sparse(),
        sparse.csr_array(array),
        linalg.aslinearoperator(array),
        Bare(array),
    ):
        with pytest.raises(NotHermitian):
            ESTIMATORS[name](form)


def test_symmetric_operators_pass():
    array = (lambda G: G + G.T)(np.random.default_rng(3).standard_normal((80, 80)))
    for form in (linalg.aslinearoperator(array), Bare(array), Bare(1e-30 * array)):
        for estimate in ESTIMATORS.values():
            estimate(form)
    single = linalg.aslinearoperator(array.astype(np.float32))
    for estimate in ESTIMATORS.values():
        estimate(single)


def test_arithmetic_of_matrices():
    block = torch.randn(30, 2).double()
    A, B = torch.from_numpy(SQUARE), torch.from_numpy(SYMMETRIC)
    for left in (A, A.to_sparse(), sparse.csr_matrix(SQUARE), linalg.aslinearoperator(SQUARE)):
        operator = 2 * cs.as_operator(left).without_assumption() - cs.as_operator(B) / 4
        mixed = operator.shift(0.5)
        expected = 2 * A - B / 4 + 0.5 * torch.eye(30, dtype=torch.float64)
        torch.testing.assert_close(mixed @ block, expected @ block)
        torch.testing.assert_close(mixed.adjoint_matmul(block), expected.T @ block)
        torch.testing.assert_close(mixed.square() @ block, expected @ expected @ block)
        torch.testing.assert_close(mixed.square().adjoint_matmul(block), (expected @ expected).T @ block)
        np.testing.assert_allclose(mixed.to_scipy() @ block.numpy(), (expected @ block).numpy())
        assert not mixed.hermitian
    assert (cs.as_operator(B) * 2).shift(1.0).hermitian
    rectangular = cs.as_operator(RECTANGULAR)
    assert (2 * rectangular + rectangular).shape == (40, 25)
    for change in (lambda: rectangular.shift(1.0), rectangular.square, lambda: rectangular + cs.as_operator(SQUARE)):
        with pytest.raises(InvalidArgument):
            change()


def test_sums_of_networks_and_matrices_keep_the_names():
    model, data = torch.nn.Linear(3, 2).double(), [(torch.eye(3).double(), torch.ones(3, 2).double())]
    H = cs.hessian(model, torch.nn.MSELoss(), data)
    damped = cs.as_operator(torch.eye(8, dtype=torch.float64)) + H
    assert damped.parameters == H.parameters
    assert list(cs.trace(damped).layers) == ["weight", "bias"]
    assert not cs.trace(cs.as_operator(torch.eye(8)) * 2).layers


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scales_that_a_dtype_cannot_hold_are_named(dtype):
    scale = 1e-40 if dtype == torch.float32 else 1e-310
    A = (scale * torch.from_numpy(SYMMETRIC)).to(dtype)
    for work in (lambda A: cs.eigsh(A, k=2, method="krylov"), lambda A: cs.svds(A, k=2), *ESTIMATORS.values()):
        with pytest.raises(NotFinite, match="multiply") as error:
            work(A)
        assert "inf" not in str(error.value)
        assert ("float64" in str(error.value)) == (dtype == torch.float32)
    assert cs.spectral_norm((1e-25 * torch.from_numpy(SYMMETRIC)).float()).value > 0


def test_not_a_number_speaks_of_what_there_is():
    with pytest.raises(NotFinite) as error:
        cs.trace(linalg.LinearOperator((60, 60), matvec=lambda x: np.full(60, np.nan), dtype=float), max_products=20)
    assert "loss" not in str(error.value)
    assert "float64" not in str(error.value)
    model = torch.nn.Linear(2, 1, bias=False).double()
    with pytest.raises(NotFinite, match="loss"):
        cs.trace(cs.hessian(model, lambda model, batch: model(batch).abs().sqrt().sum(), [torch.zeros(1, 2).double()]))


def test_empty_operators_are_named():
    for work in (cs.density, cs.trace, cs.spectral_norm, cs.frobenius_norm):
        with pytest.raises(InvalidArgument, match="0 x 0"):
            work(np.zeros((0, 0)))
