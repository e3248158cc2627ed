"""Tall matrices read as arrays are, judged against the tensor that they hold."""

import numpy as np
import pytest
import torch

from curvscope.errors import OutOfBudget
from curvscope.tall import InMemory, OnDisk, OnHost, _array_like

X = torch.linalg.qr(torch.randn(300, 4, generator=torch.Generator().manual_seed(0))).Q


@pytest.fixture(params=["memory", "host", "disk"])
def matrix(request, tmp_path):
    if request.param == "memory":
        return InMemory(X.clone())
    if request.param == "host":
        made = OnHost.empty(300, 4, torch.float32, torch.device("cpu"))
    else:
        made = OnDisk.create(tmp_path / "V", 300, 4, torch.float32)
    made.write(0, X)
    return made


READS = [
    lambda V: V[:, 0],
    lambda V: V[:, -1],
    lambda V: V[:, :2],
    lambda V: V[:, -1:],
    lambda V: V[:, [0, 2]],
    lambda V: V[5],
    lambda V: V[-1, -1],
    lambda V: V[[1, 2]],
    lambda V: V[[1, 2], [0, 3]],
    lambda V: V[X[:, 0] > 0],
    lambda V: V[(X[:, 0] > 0).numpy()],
    lambda V: V[3:9, [0, 2]],
    lambda V: V[::7],
    lambda V: V[..., 0],
    lambda V: V[:, X[0] > 0],
    lambda V: V.T[0],
    lambda V: V.T[:2, 5:9],
    lambda V: V.T.T[:, 1],
    lambda V: torch.stack(list(V)),
    lambda V: torch.stack(list(V.T)),
    lambda V: V @ torch.ones(4),
    lambda V: V @ torch.ones(4, 2),
    lambda V: V.T @ V,
    lambda V: V @ V.T,
    lambda V: V.T @ torch.ones(300),
    lambda V: torch.ones(300) @ V,
    lambda V: torch.ones(2, 300) @ V,
    lambda V: torch.as_tensor(V),
    lambda V: torch.as_tensor(V.T),
    lambda V: torch.from_dlpack(V),
    lambda V: torch.linalg.norm(V),
    lambda V: torch.cat([V, V], dim=1),
    np.asarray,
    lambda V: np.asarray(V.T),
    lambda V: V.cpu(),
    lambda V: V.to(torch.float64),
    lambda V: V.numpy(),
]


@pytest.mark.parametrize("number", range(len(READS)))
def test_reads_as_the_tensor_that_it_holds(matrix, number):
    read = READS[number]
    found, right = np.asarray(read(matrix)), np.asarray(read(X))
    assert found.shape == right.shape
    assert np.allclose(found, right, atol=1e-6)


def test_length_and_numpy_archives(matrix, tmp_path):
    assert len(matrix) == 300
    assert matrix.numel() == 1200
    np.savez(tmp_path / "x.npz", V=matrix)
    assert np.array_equal(np.load(tmp_path / "x.npz")["V"], X.numpy())


def test_products_with_numpy_arrays_and_double_precision(matrix):
    assert np.allclose(np.ones(300) @ matrix, X.numpy().sum(axis=0), atol=1e-5)
    assert (matrix @ torch.ones(4, dtype=torch.float64)).dtype == torch.float64


def test_indices_out_of_range(matrix):
    for index in (300, -301, (0, 4), (slice(None), 4), torch.tensor([300]), torch.ones(5, dtype=torch.bool)):
        with pytest.raises(IndexError):
            matrix[index]


def test_what_does_not_fit_is_refused_before_it_is_read(tmp_path, monkeypatch):
    stored = OnDisk.create(tmp_path / "V", 300, 4, torch.float32)
    stored.write(0, X)
    monkeypatch.setattr(_array_like, "MEMORY_SHARE", 1e-12)
    monkeypatch.setattr(OnDisk, "columns", lambda *a: pytest.fail("read"))
    with pytest.raises(OutOfBudget, match=r"V\[:, :5\]"):
        np.asarray(stored)
    assert torch.allclose(stored.T @ torch.ones(300), X.sum(0), atol=1e-5)  # panels are still read
