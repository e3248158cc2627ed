"""Operators of other libraries and of users: what their products must be, and arrays of every make."""

import numpy as np
import pytest
import torch
from scipy.sparse import linalg

import curvscope as cs
from curvscope.errors import InvalidArgument, InvalidType

SIZE = 12
S = torch.diag(torch.arange(1.0, SIZE + 1, dtype=torch.float64))


class Foreign:
    """Something with ``.shape``, ``.dtype`` and ``@``."""

    def __init__(self, multiply, dtype=torch.float64):
        self.multiply, self.dtype, self.shape = multiply, dtype, (SIZE, SIZE)

    def __matmul__(self, block):
        return self.multiply(block)


def overwriting(block):
    product = S @ block
    block.zero_()
    return product


def network(kind=cs.ggn, **options):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
    data = [(torch.randn(20, 6), torch.randint(3, (20,)))]
    return kind(model, torch.nn.CrossEntropyLoss(), data, dtype=torch.float64, **options)


@pytest.mark.parametrize("form", [cs.ggn, cs.hessian, lambda *a, **b: 2 * cs.ggn(*a, **b) + cs.hessian(*a, **b), None])
def test_scipy_takes_an_operator_as_its_own(form):
    A = cs.as_operator(S) if form is None else network(form)
    dense = A.to_dense().numpy()
    assert linalg.aslinearoperator(A).dtype == np.float64
    np.testing.assert_allclose(linalg.eigsh(A, k=3, which="LA")[0], np.linalg.eigvalsh(dense)[-3:], rtol=1e-8)
    np.testing.assert_allclose(np.sort(linalg.svds(A, k=2)[1]), np.linalg.svd(dense)[1][1::-1], rtol=1e-8)
    damped = A + 10 * cs.identity(A)
    b = np.arange(1.0, len(dense) + 1)
    np.testing.assert_allclose(
        linalg.cg(damped, b, rtol=1e-10)[0], np.linalg.solve(dense + 10 * np.eye(len(dense)), b), rtol=1e-7
    )


def test_the_dtype_is_pytorchs_for_everybody_else():
    for A in (cs.as_operator(S.float()), network(), network().submatrix("2.*"), network().to(torch.float32)):
        assert isinstance(A.dtype, torch.dtype)
        assert torch.zeros(1, dtype=A.dtype).dtype == A.dtype
        assert getattr(A, "dtype") is A.dtype  # noqa: B009 -- as SciPy asks, from another module


def test_other_dtypes_in_scipy():
    assert linalg.aslinearoperator(cs.as_operator(S.float())).dtype == np.float32
    assert linalg.aslinearoperator(cs.as_operator(S.to(torch.complex64))).dtype == np.complex64


@pytest.mark.parametrize(
    ("multiply", "message"),
    [
        (overwriting, "changes the block"),
        (lambda block: (S @ block)[:, :1], "any number of columns"),
        (lambda block: (S @ block)[:-1], "expected"),
        (lambda block: (S @ block)[:, 0], "expected"),
        (lambda block: (S @ block).float(), "its product is torch.float32"),
        (lambda block: (S @ block).to(torch.complex128), "its product is torch.complex128"),
        (lambda block: (S @ block).numpy(), "must give a tensor"),
        (lambda block: None, "must give a tensor"),
    ],
)
@pytest.mark.parametrize("method", ["krylov", "exact", "hmt"])
def test_products_of_another_form_are_named(multiply, message, method):
    with pytest.raises((InvalidArgument, InvalidType), match=message):
        cs.eigsh(Foreign(multiply), k=2, method=method)


def test_a_scipy_operator_that_overwrites_its_block_is_named():
    linalg = pytest.importorskip("scipy.sparse.linalg")

    def multiply(block):
        block *= 2
        return block

    with pytest.raises(InvalidArgument, match="changes the block"):
        cs.eigsh(linalg.LinearOperator((SIZE, SIZE), matvec=multiply, matmat=multiply, dtype=np.float64), k=2)


def test_products_that_carry_gradients_and_reuse_memory_are_fine():
    room = torch.empty(SIZE, 64, dtype=torch.float64)
    weights = S.clone().requires_grad_()

    def multiply(block):
        return room[:, : block.shape[1]].copy_((weights @ block).detach())

    for operator in (Foreign(multiply), Foreign(lambda block: weights @ block)):
        for method in ("krylov", "exact", "seigh"):
            assert cs.eigsh(operator, k=1, method=method).eigenvalues[0] > 10


def test_operators_with_the_same_row_sums_have_other_fingerprints():
    """All graph Laplacians map the vector of ones to zero: a run of one must not be taken for a run of another."""
    path, ring = (torch.diag(edges.sum(0)) - edges for edges in (torch.ones(SIZE, SIZE).double(), torch.eye(SIZE).double()))
    first, second = (cs.as_operator(Foreign(lambda block, A=A: A @ block)) for A in (path, ring))
    assert first.fingerprint != second.fingerprint
    assert first.fingerprint == cs.as_operator(Foreign(lambda block: path @ block)).fingerprint


def test_arrays_of_every_make():
    array = S.numpy()
    readonly = array.copy()
    readonly.setflags(write=False)
    for made in (readonly, array[::-1, ::-1], np.asfortranarray(array), array.astype(">f8")):
        assert float(cs.eigsh(made, k=1).eigenvalues[0]) == pytest.approx(SIZE)


@pytest.mark.parametrize("made", [S.bfloat16(), S.half(), S.numpy().astype(np.longdouble), Foreign(None, torch.bfloat16)])
def test_other_precisions_are_refused_before_any_product(made):
    with pytest.raises(InvalidArgument, match="not supported"):
        cs.eigsh(made, k=2, method="krylov")
