"""Arithmetic of operators equals arithmetic of their dense matrices."""

import numpy as np
import pytest
import torch
from torch import nn

from curvscope.errors import InvalidArgument
from curvscope.operators import as_operator, ggn, hessian

from .cases import build

BIASES = [*range(20, 25), *range(40, 43)]


@pytest.fixture(scope="module")
def pair():
    model, criterion, batches = build("mlp")
    H, G = hessian(model, criterion, batches), ggn(model, criterion, batches)
    eye = torch.eye(H.shape[0], dtype=torch.float64)
    return H, G, H @ eye, G @ eye


@pytest.mark.parametrize(
    ("expression", "dense"),
    [
        (lambda H, G: 2 * H + G, lambda H, G: 2 * H + G),
        (lambda H, G: H - G, lambda H, G: H - G),
        (lambda H, G: -H / 4, lambda H, G: -H / 4),
        (lambda H, G: (H - 0.5 * G).shift(3), lambda H, G: H - 0.5 * G + 3 * torch.eye(len(H), dtype=H.dtype)),
        (lambda H, G: 2 * H.shift(1), lambda H, G: 2 * H + 2 * torch.eye(len(H), dtype=H.dtype)),
        (lambda H, G: H.square(), lambda H, G: H @ H),
        (lambda H, G: (H - G).square(), lambda H, G: (H - G) @ (H - G)),
        (lambda H, G: (H - G).submatrix("2.*"), lambda H, G: (H - G)[25:, 25:]),
        (
            lambda H, G: H.submatrix(["0.bias", "2.bias"]),
            lambda H, G: H[[*range(20, 25), *range(40, 43)]][:, [*range(20, 25), *range(40, 43)]],
        ),
    ],
)
def test_algebra_equals_dense_algebra(pair, expression, dense):
    H, G, h, g = pair
    A, expected = expression(H, G), dense(h, g)
    assert A.shape == expected.shape
    torch.testing.assert_close(A @ torch.eye(A.shape[0], dtype=torch.float64), expected, rtol=1e-10, atol=1e-12)
    assert A.parameters.size == A.shape[0]


def test_fingerprints_tell_expressions_apart(pair):
    H, G, *_ = pair
    prints = [A.fingerprint for A in (H, G, H + G, H - G, H.square(), H.submatrix("2.*"), H.shift(1))]
    assert len(set(prints)) == len(prints)


def test_errors_name_what_does_not_fit(pair):
    H, *_ = pair
    with pytest.raises(InvalidArgument, match="cannot add"):
        H + H.submatrix("2.*")
    with pytest.raises(InvalidArgument, match="matches none"):
        H.submatrix("9.*")
    with pytest.raises(TypeError):
        H + 3


def test_scipy_round_trip(pair):
    linalg = pytest.importorskip("scipy.sparse.linalg")
    H, _, h, _ = pair
    S = H.to_scipy()
    x = np.random.default_rng(0).standard_normal((H.shape[0], 2))
    np.testing.assert_allclose(S @ x, h.numpy() @ x, atol=1e-10)
    largest = linalg.eigsh(S, k=1, which="LA", return_eigenvectors=False)[0]
    np.testing.assert_allclose(largest, torch.linalg.eigvalsh(h)[-1], rtol=1e-8)
    back = as_operator(S)
    torch.testing.assert_close(back @ torch.from_numpy(x), h @ torch.from_numpy(x))


def test_square_of_rectangular_nets_stays_symmetric():
    model = nn.Linear(2, 3).double()
    H = hessian(model, nn.MSELoss(), [(torch.ones(4, 2, dtype=torch.float64), torch.ones(4, 3, dtype=torch.float64))])
    dense = H.square() @ torch.eye(9, dtype=torch.float64)
    torch.testing.assert_close(dense, dense.T)
