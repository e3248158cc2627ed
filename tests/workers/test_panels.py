"""Re-orthogonalisation by workers, against a basis in a run's store."""

import pytest
import torch
import worker_targets as targets

import curvscope as cs
from curvscope.measurement import DECISIONS, split_off
from curvscope.measurement._panels import Panels
from curvscope.store import Run
from curvscope.tall import InMemory, OnDisk, orthonormalize

from .test_products import same

ROWS = 1000


@pytest.fixture
def basis(tmp_path):
    """(in memory, on disk) an orthonormal basis, in small tiles."""
    Q = orthonormalize(InMemory(torch.randn(ROWS, 40, dtype=torch.float64))).basis.to_tensor()
    stored = OnDisk.create(tmp_path / "Q", ROWS, 40, torch.float64, tile_rows=64, tile_columns=4)
    stored.write(0, Q)
    return Q, stored


@pytest.mark.parametrize("count", [1, 3, 50])
def test_panels_are_those_of_one_process(immediate, basis, count):
    Q, stored = basis
    block, panels = torch.randn(ROWS, 3, dtype=torch.float64), Panels(immediate(count))
    seen = stored.between(5, 37)
    overlaps = panels.gram(seen, block)
    assert torch.allclose(overlaps, Q[:, 5:37].T @ block, atol=1e-13)
    panels.subtract(block, seen, overlaps)
    assert float((Q[:, 5:37].T @ block).abs().max()) <= 1e-12
    block = torch.randn(ROWS, 3, dtype=torch.float64)
    for one, other in zip(split_off(block, stored, panels=panels), split_off(block, InMemory(Q)), strict=True):
        assert torch.allclose(one, other, atol=1e-12)


def test_only_stored_and_wide_bases_are_dealt_out(immediate, basis):
    Q, stored = basis
    dealt = []
    workers = immediate(2)
    workers.map = lambda function, tasks: dealt.append(function) or iter([None, None])
    panels, block = Panels(workers), torch.randn(ROWS, 3, dtype=torch.float64)
    assert torch.allclose(panels.gram(InMemory(Q), block), Q.T @ block)
    assert torch.allclose(panels.gram(stored.between(0, 9), block), Q[:, :9].T @ block)
    assert not dealt
    assert torch.allclose(panels.gram(stored, block), Q.T @ block)  # out of their reach: done here, and not tried again
    assert torch.allclose(panels.gram(stored, block), Q.T @ block)
    assert len(dealt) == 1


def test_a_solve_on_disk(immediate, tmp_path, monkeypatch):
    H = cs.Recipe(targets.spectrum, size=3000).build()
    used = []
    original = Panels._dealt
    monkeypatch.setattr(Panels, "_dealt", lambda self, *args: used.append(original(self, *args)) or used[-1])
    run = Run.create(tmp_path / "run", kind="eigs", options={})
    run.manifest[DECISIONS] = {"resident": False}
    run.save()
    options = {"method": "krylov", "block_size": 1, "ncv": 40, "tol": 1e-9, "progress": False}
    found = cs.eigsh(H, 6, executor=immediate(3), run=run, **options)
    assert sum(parts is not None for parts in used) > 10
    same(found, cs.eigsh(H, 6, **options), 1e-12)
