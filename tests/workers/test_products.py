"""Solves whose products others compute: equal to serial ones, whoever computes them and however they are cut."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import worker_targets as targets
from hypothesis import given, settings, strategies as st

import curvscope as cs
from curvscope.errors import DamagedData, NotFinite, WorkerError
from curvscope.measurement import _distributed as distributed
from curvscope.operators.remote import _worker as remote
from curvscope.sketches import TestMatrix
from curvscope.store import Run
from curvscope.system import long_work
from curvscope.tall import OnDisk, gram

from .conftest import Immediate

METHODS = ("krylov", "seigh", "hmt", "nystrom", "singlepass", "exact")
QUIET = {"progress": False}


def same(one, other, tol):
    """Values and the spaces they span: vectors of an eigenvalue are determined up to sign."""
    scale = float(other.eigenvalues.abs().max())
    assert float((one.eigenvalues - other.eigenvalues).abs().max()) <= tol * scale
    overlaps = gram(one.eigenvectors, other.eigenvectors)
    assert float((overlaps.abs().diagonal() - 1).abs().max()) <= 1e3 * tol
    assert one.cost.products == other.cost.products


@pytest.fixture(scope="module")
def serial():
    """Serial solutions, each found once."""
    found = {}

    def solve(method, block_size):
        if (method, block_size) not in found:
            H = cs.Recipe(targets.spectrum).build()
            found[method, block_size] = cs.eigsh(H, 5, method=method, **sized(method, block_size), **QUIET)
        return found[method, block_size]

    return solve


def sized(method, block_size):
    return {} if method == "exact" else {"block_size": block_size}


@pytest.mark.parametrize("method", ["hmt", "nystrom"])
def test_workers_are_told_of_their_share_of_the_products(monkeypatch, immediate, method):
    told = []
    monkeypatch.setattr(remote, "long_work", lambda products: told.append(products) or long_work(products))
    H = cs.Recipe(targets.spectrum).build()
    cs.eigsh(H, 5, method=method, max_products=48, executor=immediate(3), **QUIET)
    sketch = told[0] * 3
    assert sketch in (24, 48)
    told.clear()
    sharded = cs.data_parallel(cs.Recipe("curvscope.testing.sharding:linear", samples=6), 2, immediate(2))
    with long_work(70):
        sharded @ torch.ones(3)
    assert told == [70, 70]


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(METHODS), st.integers(1, 7), st.integers(1, 6), st.booleans())
def test_any_number_of_workers_and_any_tiling(serial, tmp_path_factory, method, count, block_size, stored):
    H = cs.Recipe(targets.spectrum).build()
    run = tmp_path_factory.mktemp("runs") / "run" if stored else None
    solution = cs.eigsh(
        H, 5, method=method, executor=cs.Workers(Immediate(), count=count), run=run, **sized(method, block_size), **QUIET
    )
    same(solution, serial(method, block_size), 1e-12)


def test_workers_draw_the_same_test_matrices_bit_for_bit():
    H = cs.Recipe(targets.spectrum, dtype="float32").build()
    for kind in ("gaussian", "sparse_sign", "ssrft"):
        whole = TestMatrix(kind, H.shape[0], seed=3, role="right", dtype=H.dtype)
        parts = [distributed._columns(whole, *block).on(H) for block in ((0, 5), (5, 7), (7, 8))]
        assert torch.equal(torch.cat(parts, dim=1), whole.columns(0, 8))


def test_a_networks_hessian(immediate):
    H = cs.Recipe(targets.network).build()
    found = cs.eigsh(H, 6, method="krylov", block_size=5, executor=immediate(3), **QUIET)
    same(found, cs.eigsh(H, 6, method="krylov", block_size=5, **QUIET), 1e-5)
    assert found.provenance["products"]["workers"] == 3


def test_products_with_the_adjoint(immediate):
    A = cs.Recipe(targets.rectangle).build()
    found = cs.ssvd(A, num_outer=12, k=8, block_size=1, executor=immediate(2), **QUIET)
    assert torch.allclose(found.S, 2.0 ** -torch.arange(8, dtype=torch.float64), rtol=1e-10)


def test_blocks_are_a_multiple_of_the_workers(immediate, tmp_path):
    H = cs.Recipe(targets.spectrum).build()
    cs.eigsh(H, 4, method="krylov", executor=immediate(3), run=tmp_path / "run", **QUIET)
    manifest = Run.open(tmp_path / "run").manifest
    assert manifest["solve"]["block_size"] == 3
    assert manifest["sessions"][-1]["workers"]["workers"] == 3
    coming = cs.Workers(Immediate(), count=1, expected=5)
    assert cs.eigsh(H, 4, method="krylov", executor=coming, **QUIET).provenance["options"]["block_size"] == 5


# --- from one engine to another -----------------------------------------------------------------------------------------------


class Stop(Exception):
    pass


class Tired:
    """Products until there were enough."""

    def __init__(self, compute, most):
        self.compute, self.left = compute, most

    def __call__(self, *arguments):
        self.left -= 1
        if self.left < 0:
            raise Stop
        return self.compute(*arguments)


@pytest.mark.parametrize("method", ["krylov", "seigh"])
@pytest.mark.parametrize("first", ["here", "there"])
def test_a_run_ends_on_another_engine(immediate, serial, tmp_path, monkeypatch, method, first):
    H = cs.Recipe(targets.spectrum).build()
    workers = immediate(2)
    executors = (None, workers) if first == "here" else (workers, None)
    options = {"method": method, "run": tmp_path / "run", "preflight": False, **sized(method, 2), **QUIET}
    tired = Tired(H._apply if first == "here" else remote.product, 4)
    with monkeypatch.context() as patched:
        for place, name in [(H, "_apply")] if first == "here" else [(remote, "product"), (distributed, "product")]:
            patched.setattr(place, name, tired)
        with pytest.raises(Stop):
            cs.eigsh(H, 5, executor=executors[0], **options)
    same(cs.eigsh(H, 5, executor=executors[1], **options), serial(method, 2), 1e-12)
    sessions = Run.open(tmp_path / "run").manifest["sessions"]
    assert [("workers" in session) for session in sessions] == [executor is not None for executor in executors]


# --- refusals -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def order():
    return remote.order_for(cs.Recipe(targets.spectrum).build())


@pytest.mark.parametrize(
    ("name", "value"), [("fingerprint", "0" * 32), ("dtype", "torch.float32"), ("torch", "1.0"), ("curvscope", "0.0.1")]
)
def test_another_operator_is_refused_by_name(order, name, value):
    expected = tuple((key, value if key == name else known) for key, known in order.expected)
    told = rf"{name} is 0{{12}} here and .* there" if name == "fingerprint" else rf"{name} is .* there, {value} here"
    with pytest.raises(WorkerError, match=rf"worker .*process {os.getpid()}, is refused.*{told}"):
        remote.multiply(replace(order, expected=expected), torch.ones(300, 1).double().numpy())


def test_an_operator_is_built_once_and_anew_when_what_it_is_made_of_changed(tmp_path, monkeypatch):
    built = []
    monkeypatch.setattr(targets, "spectrum", lambda scale: built.append(1) or torch.eye(3) * float(Path(scale).read_text()))
    file = tmp_path / "scale"
    for content in ("2", "2", "3"):
        file.write_text(content)
        H = cs.Recipe(f"{targets.__name__}:spectrum", scale=str(file)).build()
        before = len(built)
        for _ in range(2):
            assert remote.multiply(remote.order_for(H), torch.ones(3, 1).numpy())[0, 0] == float(content)
        assert len(built) - before <= 1
    assert len(built) == 3 + 2


def test_a_product_with_nan_is_an_error(order):
    with pytest.raises(NotFinite, match="NaN or infinite"):
        remote.multiply(order, torch.full((300, 1), float("nan"), dtype=torch.float64).numpy())


def test_what_other_libraries_raise_comes_back_with_the_workers_name():
    H = cs.Recipe(targets.failing, home=-1).build()
    with pytest.raises(WorkerError, match=f"process {os.getpid()}, failed: ZeroDivisionError"):
        remote.multiply(remote.order_for(H), torch.ones(300, 1).double().numpy())


def test_who_comes_too_late_writes_nothing(order, tmp_path):
    """A copy of a task whose run was removed and begun anew, perhaps of another operator, leaves that one alone."""
    columns = distributed.Drawn("gaussian", 300, 0, "right", 0, 2)
    late = distributed.Tile.of(OnDisk.create(tmp_path / "A", 300, 2, torch.float64), 0)
    shutil.rmtree(tmp_path / "A")
    store = OnDisk.create(tmp_path / "A", 300, 2, torch.float64)
    assert distributed.measure(order, columns, late, False) is not None
    with pytest.raises(DamagedData, match="missing"):
        store.columns(0, 2)
    assert distributed.measure(order, columns, distributed.Tile.of(store, 0), False) is None
    expected = cs.Recipe(targets.spectrum).build() @ columns.on(cs.Recipe(targets.spectrum).build())
    assert torch.allclose(store.columns(0, 2), expected)
