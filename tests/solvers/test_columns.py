"""Columns measured by independent jobs: in any order, by processes at a time, not twice; what the last call adds."""

import multiprocessing

import pytest
import torch

import curvscope as cs
from curvscope.errors import InvalidArgument, NotFinite, RunConflict
from curvscope.measurement import InRun
from curvscope.solvers import _columns as module, measure_columns
from curvscope.store import Lock

SIZE, K, PROBE = 300, 20, 1
"""80 products: three tiles, the last of 16 columns. One more product tells that a foreign object multiplies."""


class Counted:
    """A matrix that counts the columns it is multiplied with; blocks of them are scaled."""

    scale = 1.0

    def __init__(self):
        values = (-0.85) ** torch.arange(SIZE, dtype=torch.float64)
        self.matrix, self.shape, self.dtype, self.products = torch.diag(values), (SIZE, SIZE), torch.float64, 0

    def __matmul__(self, block):
        self.products += 1 if block.ndim == 1 else block.shape[1]
        return self.matrix @ block * (self.scale if block.ndim == 2 and block.shape[1] > PROBE else 1.0)


def whole():
    return cs.eigsh(Counted(), k=K, method="seigh", seed=3)


@pytest.mark.parametrize("order", [[(0, 32), (32, 64), (64, 80)], [(64, 80), (0, 32), (32, 64)], [(32, 80)], [(0, 80)]])
def test_jobs_in_any_order_give_the_same_pairs(order, tmp_path):
    for part in order:
        assert measure_columns(Counted(), part, run=tmp_path, k=K, seed=3) == part[1] - part[0]
        assert measure_columns(Counted(), part, run=tmp_path, k=K, seed=3) == 0
    last = Counted()
    solution = cs.eigsh(last, k=K, method="seigh", seed=3, run=tmp_path)
    missing = 80 - sum(stop - start for start, stop in order)
    assert last.products == missing + K + PROBE  # the residuals take K
    torch.testing.assert_close(solution.eigenvalues, whole().eigenvalues, rtol=1e-10, atol=1e-14)
    assert solution.cost.products == whole().cost.products


def job(folder, part):
    measure_columns(Counted(), part, run=folder, k=K, seed=3)


@pytest.mark.slow
def test_processes_at_a_time(tmp_path):
    context = multiprocessing.get_context("spawn")
    jobs = [context.Process(target=job, args=(tmp_path, part)) for part in ((0, 32), (32, 64), (64, 80))]
    for each in jobs:
        each.start()
    for each in jobs:
        each.join(120)
    assert [each.exitcode for each in jobs] == [0, 0, 0]
    last = Counted()
    found = cs.eigsh(last, k=K, method="seigh", seed=3, run=tmp_path).eigenvalues
    torch.testing.assert_close(found, whole().eigenvalues, rtol=1e-10, atol=1e-14)
    assert last.products == K + PROBE


def test_a_job_waits_for_who_writes(tmp_path, monkeypatch):
    measure_columns(Counted(), (0, 32), run=tmp_path, k=K, seed=3)
    lock, seen = Lock(tmp_path), []
    lock.take()
    monkeypatch.setattr(module.time, "sleep", lambda seconds: (seen.append(seconds), lock.release()))
    assert measure_columns(Counted(), (32, 64), run=tmp_path, k=K, seed=3) == 32
    assert seen == [module.PAUSE]
    monkeypatch.setattr(module, "PATIENCE", -1.0)
    lock = Lock(tmp_path)
    lock.take()
    try:
        with pytest.raises(RunConflict, match="is in use"):
            measure_columns(Counted(), (64, 80), run=tmp_path, k=K, seed=3)
    finally:
        lock.release()


def test_a_job_that_dies_in_a_block_loses_that_block_only(tmp_path, monkeypatch):
    def dies(self, name, start, stop, seconds):
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(InRun, "commit", dies)
        with pytest.raises(MemoryError):
            measure_columns(Counted(), (0, 64), run=tmp_path, k=K, seed=3)
    assert measure_columns(Counted(), (0, 64), run=tmp_path, k=K, seed=3) == 64
    found = cs.eigsh(Counted(), k=K, method="seigh", seed=3, run=tmp_path).eigenvalues
    torch.testing.assert_close(found, whole().eigenvalues, rtol=1e-10, atol=1e-14)


def test_products_with_nan_are_not_written(tmp_path):
    broken = Counted()
    broken.scale = torch.nan
    with pytest.raises(NotFinite):
        measure_columns(broken, (0, 32), run=tmp_path, k=K, seed=3)
    assert measure_columns(Counted(), (0, 32), run=tmp_path, k=K, seed=3) == 32


@pytest.mark.parametrize(
    ("part", "message"),
    [((0, 81), "columns of 0:80"), ((5, 5), "columns of 0:80"), ((3, 32), "choose 0:32"), ((32, 70), "choose 32:80")],
)
def test_columns_off_the_grid_are_refused_before_any_product(part, message, tmp_path):
    operator = Counted()
    with pytest.raises(InvalidArgument, match=message):
        measure_columns(operator, part, run=tmp_path / "run", k=K)
    assert operator.products <= PROBE
    assert not (tmp_path / "run").exists()


def test_jobs_of_another_sketch_are_refused(tmp_path):
    measure_columns(Counted(), (0, 32), run=tmp_path, k=K, seed=3)
    with pytest.raises(RunConflict, match="seed is 3 in the run and 4 here"):
        measure_columns(Counted(), (32, 64), run=tmp_path, k=K, seed=4)
    with pytest.raises(InvalidArgument, match="independent products"):
        measure_columns(Counted(), (0, 32), run=tmp_path, k=K, method="krylov")
