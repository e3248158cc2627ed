"""Products of operators, products from the left, submatrices by index or mask, against dense matrices."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import curvscope as cs
from curvscope.errors import InvalidArgument, InvalidType

from .cases import dense_hessian


@pytest.fixture(scope="module")
def network() -> tuple:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    data = [(torch.randn(5, 3).double(), torch.arange(5) % 2)]
    plain = {"strategy": "double_backward"}
    H, G = cs.hessian(model, nn.CrossEntropyLoss(), data, **plain), cs.ggn(model, nn.CrossEntropyLoss(), data, **plain)
    return model, H, G, dense_hessian(model, nn.CrossEntropyLoss(), data), dense(G)


def dense(operator: cs.Operator) -> Tensor:
    return operator @ torch.eye(operator.shape[1], dtype=operator.dtype)


def test_products_of_two_operators(network):
    _, H, G, h, g = network
    P = H @ G
    torch.testing.assert_close(dense(P), h @ g, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(P.adjoint_matmul(torch.eye(26).double()), (h @ g).T, rtol=1e-9, atol=1e-12)
    assert not P.hermitian
    assert P.parameters == H.parameters
    assert P.fingerprint != (G @ H).fingerprint
    torch.testing.assert_close(dense(2 * (H @ (G @ H)) + H), 2 * h @ g @ h + h, rtol=1e-9, atol=1e-12)
    assert (H @ H).hermitian
    torch.testing.assert_close(dense(H @ H), h @ h, rtol=1e-9, atol=1e-12)
    values = cs.svds(P, k=2, progress=False).S
    torch.testing.assert_close(values, torch.linalg.svdvals(h @ g)[:2], rtol=1e-4, atol=0)


def test_products_with_matrices_from_elsewhere():
    torch.manual_seed(1)
    a, b = torch.randn(4, 6, dtype=torch.complex128), torch.randn(6, 3, dtype=torch.complex128)
    P = cs.as_operator(a) @ cs.as_operator(b)
    torch.testing.assert_close(dense(P), a @ b)
    torch.testing.assert_close(P.adjoint_matmul(torch.eye(4, dtype=a.dtype)), (a @ b).mH)
    with pytest.raises(InvalidArgument, match="inner dimensions differ"):
        _ = cs.as_operator(a) @ cs.as_operator(a)
    with pytest.raises(InvalidArgument, match="dtype and device"):
        _ = cs.as_operator(a.real.clone()) @ cs.as_operator(b)


def test_products_from_the_left(network):
    _, H, _, h, _ = network
    torch.manual_seed(2)
    rows = torch.randn(3, 26).double()
    torch.testing.assert_close(rows @ H, rows @ h, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(rows[0] @ H, rows[0] @ h, rtol=1e-9, atol=1e-12)
    a, x = torch.randn(4, 6, dtype=torch.complex128), torch.randn(2, 4, dtype=torch.complex128)
    torch.testing.assert_close(x @ cs.as_operator(a), x @ a)
    torch.testing.assert_close(x[0] @ cs.as_operator(a), x[0] @ a)
    with pytest.raises(InvalidArgument, match=r"pass \(26,\) or \(b, 26\)"):
        _ = torch.ones(2, 25).double() @ H
    assert isinstance(rows.numpy() @ H, np.ndarray)
    with pytest.raises(InvalidType, match=r"str.*torch\.as_tensor"):
        _ = "a" @ H


def test_submatrices_by_index_and_mask(network):
    model, H, G, h, g = network
    index = torch.tensor([7, 2, 25])
    choices = {
        "index": (index, index),
        "list": ([7, 2, 25], index),
        "array": (np.array([7, 2, 25]), index),
        "bool": (torch.arange(26) % 3 == 0, torch.arange(0, 26, 3)),
        "mask": (cs.masks.by_magnitude(model).first(5), cs.masks.by_magnitude(model).first(5).index),
    }
    for which, rows in choices.values():
        S = H.submatrix(which)
        torch.testing.assert_close(dense(S), h[rows][:, rows], rtol=1e-9, atol=1e-12)
        assert S.hermitian
        assert S.shape == (len(rows), len(rows))
    by_name = {name: torch.rand(p.shape) < 0.5 for name, p in model.named_parameters()}
    kept = torch.cat([mask.flatten() for mask in by_name.values()])
    S = H.submatrix(by_name)
    torch.testing.assert_close(dense(S), h[kept][:, kept], rtol=1e-9, atol=1e-12)
    assert [S.parameters.slices[name].stop - S.parameters.slices[name].start for name in S.parameters.names] == [
        int(mask.sum()) for mask in by_name.values() if mask.any()
    ]
    product = (H @ G).submatrix(index)  # not Hermitian
    torch.testing.assert_close(product.adjoint_matmul(torch.eye(3).double()), (h @ g)[index][:, index].T, rtol=1e-9, atol=1e-12)
    named = (H @ G).submatrix("0.*")
    assert not named.hermitian
    torch.testing.assert_close(named.adjoint_matmul(torch.eye(16).double()), (h @ g)[:16, :16].T, rtol=1e-9, atol=1e-12)


def test_pairs_of_the_hessian_restricted_to_a_mask(network):
    model, H, _, h, _ = network
    mask = cs.masks.by_magnitude(model).first(10)
    solution = cs.eigsh(H.submatrix(mask), k=3, progress=False)
    expected = torch.linalg.eigvalsh(h[mask.index][:, mask.index])
    torch.testing.assert_close(solution.eigenvalues, expected[expected.abs().argsort(descending=True)][:3])
    assert sum(tensor.numel() for tensor in solution.vector(0).values()) == 10
    A = cs.as_operator(h)
    torch.testing.assert_close(dense(A.submatrix(mask)), h[mask.index][:, mask.index])


@pytest.mark.parametrize(
    ("which", "error", "message"),
    [
        ([1, 1], InvalidArgument, "twice"),
        ([26], InvalidArgument, "choose among 0 to 25"),
        ([-1], InvalidArgument, "choose among 0 to 25"),
        (torch.zeros(26, dtype=torch.bool), InvalidArgument, "no rows"),
        (torch.ones(25, dtype=torch.bool), InvalidArgument, "25 entries"),
        (torch.ones(26), InvalidType, "places or a mask"),
        ({"0.weight": torch.ones(4, 3)}, InvalidArgument, "no tensor for parameter '0.bias'"),
        ("9.*", InvalidArgument, "matches none"),
    ],
)
def test_what_is_no_submatrix_is_said(network, which, error, message):
    with pytest.raises(error, match=message):
        network[1].submatrix(which)


class FromTheLeft:
    """x @ A alone, as some sketching libraries have it."""

    def __init__(self, matrix: Tensor | np.ndarray) -> None:
        self.matrix, self.shape, self.dtype = matrix, matrix.shape, matrix.dtype

    def __rmatmul__(self, rows: Tensor | np.ndarray) -> Tensor | np.ndarray:
        return rows @ self.matrix


class FromBothSides(FromTheLeft):
    def __matmul__(self, block: Tensor) -> Tensor:
        return self.matrix @ block


def test_foreign_operators_that_multiply_from_the_left():
    torch.manual_seed(3)
    a = torch.randn(6, 6, dtype=torch.complex128)
    hermitian = a + a.mH
    for given in (hermitian, hermitian.numpy(), hermitian.real.clone()):
        A = cs.as_operator(FromTheLeft(given))
        torch.testing.assert_close(dense(A), torch.as_tensor(given))
    expected = torch.linalg.eigvalsh(hermitian.real)
    found = cs.eigsh(FromTheLeft(hermitian.real.clone()), k=2, progress=False).eigenvalues
    torch.testing.assert_close(found, expected[expected.abs().argsort(descending=True)][:2])
    rectangular = torch.randn(6, 4, dtype=torch.complex128)
    B = cs.as_operator(FromBothSides(rectangular))
    torch.testing.assert_close(B.adjoint_matmul(torch.eye(6, dtype=a.dtype)), rectangular.mH)
    with pytest.raises(InvalidArgument, match="x @ A alone"):
        cs.as_operator(FromTheLeft(rectangular)) @ torch.ones(4, dtype=a.dtype)
