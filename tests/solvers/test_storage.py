"""Solutions on disk come back whole, or not at all."""

import shutil

import pytest
import torch
from torch import nn

import curvscope as cs
from curvscope.errors import RunConflict, RunNotFound


@pytest.fixture
def solution():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    H = cs.hessian(model, nn.CrossEntropyLoss(), [(torch.randn(9, 4), torch.arange(9) % 2)])
    return cs.eigsh(H, k=5)


def test_round_trip(solution, tmp_path):
    solution.save(tmp_path / "a" / "solution")
    again = cs.open(tmp_path / "a" / "solution")
    assert torch.equal(again.eigenvalues, solution.eigenvalues)
    assert torch.equal(again.residual_norms, solution.residual_norms)
    assert torch.equal(again.eigenvectors.to_tensor(), solution.eigenvectors.to_tensor())
    assert again.eigenvectors.dtype == torch.float32
    assert again.order == "LM"
    assert again.status == solution.status
    assert again.cost == solution.cost
    assert again.provenance == solution.provenance
    assert again.parameters == solution.parameters
    assert str(again) == str(solution)
    assert [tuple(t.shape) for t in again.vector(0).values()] == [(3, 4), (3,), (2, 3), (2,)]
    torch.testing.assert_close(again.parameters.flatten(again.vector(1)), solution.eigenvectors.columns(1, 2)[:, 0])
    assert list((tmp_path / "a").iterdir()) == [tmp_path / "a" / "solution"]


def test_nothing_is_overwritten(solution, tmp_path):
    solution.save(tmp_path / "s")
    with pytest.raises(RunConflict, match="exists"):
        solution.save(tmp_path / "s")


def test_a_failed_save_leaves_nothing(solution, tmp_path, monkeypatch):
    monkeypatch.setattr("json.dumps", lambda *a, **k: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        solution.save(tmp_path / "s")
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_is_named(solution, tmp_path):
    with pytest.raises(RunNotFound, match="holds no solution"):
        cs.open(tmp_path)
    solution.save(tmp_path / "s")
    shutil.rmtree(tmp_path / "s" / "eigenvectors.zarr")
    with pytest.raises(RunNotFound, match="lacks its vectors"):
        cs.open(tmp_path / "s")


def test_vectors_of_nameless_operators(tmp_path):
    solution = cs.eigsh(torch.diag(torch.tensor([3.0, 1.0])), k=1)
    with pytest.raises(ValueError, match="no named parameters"):
        solution.vector(0)
    solution.save(tmp_path / "s")
    assert cs.open(tmp_path / "s").parameters is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128])
def test_singular_triplets_come_back(tmp_path, dtype):
    A = torch.randn(12, 7, dtype=dtype, generator=torch.Generator().manual_seed(0))
    solution = cs.ssvd(A, num_outer=3)
    solution.save(tmp_path / "s")
    again = cs.open(tmp_path / "s")
    for name in ("U", "V"):
        stored, given = getattr(again, name).to_tensor(), getattr(solution, name).to_tensor()
        assert torch.equal(stored, given)
        assert stored.dtype == dtype
    assert torch.equal(again.S, solution.S)
    assert torch.equal(again.residual_norms, solution.residual_norms)
    assert (again.status, again.cost, again.provenance, again.diagnostics) == (
        solution.status,
        solution.cost,
        solution.provenance,
        solution.diagnostics,
    )
    assert str(again) == str(solution)
    with pytest.raises(RunNotFound, match=r"curvscope\.open reads either"):
        cs.Solution.load(tmp_path / "s")
    shutil.rmtree(tmp_path / "s" / "V.zarr")
    with pytest.raises(RunNotFound, match="lacks its vectors"):
        cs.open(tmp_path / "s")
