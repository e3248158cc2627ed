"""Tall matrices in the host's memory: what all must do, and that a panel is on its way while another one is in use."""

from concurrent.futures import Future

import pytest
import torch

from curvscope import testing
from curvscope.tall import (
    InMemory,
    OnDisk,
    OnHost,
    _transfer as transfer,
    gram,
    multiply,
    orthogonality,
    orthonormalize,
    subtract,
)

CPU = torch.device("cpu")


def on_host(tensor, *, height=256, device=CPU):
    return OnHost(tensor.T.clone(), device, height=height)


@pytest.mark.parametrize("check", testing.TALL_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
@pytest.mark.parametrize("height", [256, 1 << 16])
def test_conformance(height, dtype, check):
    check(lambda tensor: on_host(tensor, height=height), dtype)


@pytest.fixture
def copier(monkeypatch):
    """In the place of the thread: says in which order panels are sent for, and arrive."""
    said = []

    def begin(load, number, device):
        said.append(("sent", number))
        future = Future()
        future.set_result(transfer.Sent(load(number).clone(), number))
        return future

    def arrived(sent):
        said.append(("used", sent.ready))
        return sent.panel

    monkeypatch.setattr(transfer, "begin", begin)
    monkeypatch.setattr(transfer, "arrived", arrived)
    return said


IN_ORDER = [("sent", 0), ("sent", 1), ("used", 0), ("sent", 2), ("used", 1), ("sent", 3), ("used", 2), ("used", 3)]


def test_the_next_panel_is_on_its_way_while_one_is_used(copier):
    tensor = torch.randn(1000, 5, dtype=torch.float64)
    W, block = on_host(tensor), torch.randn(1000, 2, dtype=torch.float64)
    assert torch.allclose(gram(W, InMemory(block)), tensor.T @ block)
    assert copier == IN_ORDER
    copier.clear()
    rest = block.clone()
    subtract(rest, W.between(1, 4), torch.ones(3, 2))
    assert torch.allclose(rest, block - tensor[:, 1:4] @ torch.ones(3, 2).double())
    assert copier == IN_ORDER


def test_in_place_work_sends_no_panel_twice(copier):
    W = on_host(torch.randn(1000, 5, dtype=torch.float64))
    multiply(W, 2 * torch.eye(5, dtype=torch.float64), into=W)
    assert copier == IN_ORDER
    copier.clear()
    for panel in W.panels(100):  # worked through in parts
        W.write_rows(panel, -W.rows(panel)[:, :2])
    assert [what for what, _ in copier].count("sent") == 4


@pytest.mark.parametrize("source", ["host", "disk"])
def test_panels_are_read_on_whatever_device(copier, source, tmp_path):
    """The tensors that are read are what the copier made of panels, never the matrix itself."""
    tensor = torch.randn(1000, 5)
    if source == "disk":
        matrix = OnDisk.create(tmp_path / "W", 1000, 5, torch.float32, tile_rows=256)
        matrix.write(0, tensor)
    else:
        matrix = on_host(tensor)
    for panel in matrix.panels():
        matrix.rows(panel).zero_()
    assert torch.equal(matrix.to_tensor(), tensor)
    assert copier == IN_ORDER


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("place", ["host", "disk"])
def test_on_a_gpu(place, tmp_path):
    device = torch.device("cuda", torch.cuda.current_device())
    tensor = torch.randn(300_000, 40)
    matrix = on_host(tensor, height=1 << 14, device=device)
    if place == "disk":
        matrix = OnDisk.create(tmp_path / "W", *tensor.shape, torch.float32, tile_rows=1 << 14, device=device)
        matrix.write(0, tensor)
    assert matrix.columns(3, 9).device == matrix.rows(slice(0, 10)).device == device
    for _ in range(3):  # buffers are used again
        torch.testing.assert_close(gram(matrix, matrix), tensor.double().T @ tensor.double(), rtol=1e-4, atol=1e-2)
    block = torch.randn(300_000, 3, device=device)
    expected = block.cpu() - tensor @ torch.ones(40, 3)
    subtract(block, matrix, torch.ones(40, 3))
    torch.testing.assert_close(block.cpu(), expected, rtol=1e-4, atol=1e-3)
    basis = orthonormalize(matrix, into=matrix if place == "host" else None).basis
    assert orthogonality(basis) <= 1e-6
    assert type(basis) is type(matrix)
