"""Where the matrices of a solve lie when the operator is on a GPU: there, on the host or on disk; the results are the same."""

from dataclasses import replace

import pytest
import torch

import curvscope as cs
from curvscope.errors import OutOfBudget
from curvscope.solvers import Resources
from curvscope.solvers.krylov import _method as krylov_method
from curvscope.solvers.sizing import Footprint, _memory as footprint, fit, fit_sketch
from curvscope.solvers.sizing._memory import Stage
from curvscope.tall import OnHost, gram

METHODS = ("krylov", "seigh", "hmt", "nystrom", "singlepass")


@pytest.fixture
def on_the_host(monkeypatch):
    """Solves of operators on this CPU, as if their matrices did not fit where the operator is."""
    placed = lambda *arguments, **options: replace(fit(*arguments, **options), on_host=True)  # noqa: E731
    monkeypatch.setattr(footprint, "fit", placed)
    monkeypatch.setattr(krylov_method, "fit", placed)


def solved(method, **options):
    H = cs.problems.spectrum("power", 3000, rank=1, seed=1, dtype=torch.float64)
    how = {"block_size": 2, "ncv": 20, "tol": 1e-8} if method == "krylov" else {"block_size": 4}
    return cs.eigsh(H, 5, method=method, **how, **options, progress=False)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("stored", [False, True], ids=["in memory", "in a run"])
def test_a_basis_on_the_host(method, stored, on_the_host, tmp_path, monkeypatch):
    found = solved(method, **({"run": tmp_path / "run"} if stored else {}))
    assert isinstance(found.eigenvectors, OnHost)
    monkeypatch.undo()
    expected = solved(method)
    assert torch.allclose(found.eigenvalues, expected.eigenvalues, rtol=1e-10)
    assert float((gram(found.eigenvectors, expected.eigenvectors).abs().diagonal() - 1).abs().max()) <= 1e-8
    assert found.cost.products == expected.cost.products
    found.save(tmp_path / "saved")
    assert torch.equal(cs.open(tmp_path / "saved").eigenvectors.to_tensor(), found.eigenvectors.to_tensor())


def test_a_run_stays_where_it_was_begun(on_the_host, tmp_path, monkeypatch):
    few = {"max_products": 14, "run": tmp_path / "run"}
    solved("krylov", **few)
    monkeypatch.undo()
    found = solved("krylov", run=tmp_path / "run", max_products=200)
    assert isinstance(found.eigenvectors, OnHost)
    assert torch.allclose(found.eigenvalues, solved("krylov").eigenvalues, rtol=1e-9)


GIB = 2**30
NEEDS = Footprint(column=GIB, stages=(Stage(20, 3), Stage(25, 0)), stored_columns=50, small=0, panel=1 << 25, product=GIB)


@pytest.mark.parametrize(
    ("gpu", "host", "stored", "place", "width"),
    [
        (80, 4, False, "gpu", 8),  # 80 * 0.8 = 64: 20 columns, and 4 for each of 8 in the block
        (40, 80, False, "host", 7),  # 32: no basis, but 7 blocks
        (40, 4, True, "disk", 7),
        (32, 4, False, "gpu", 1),  # neither host nor disk: a narrow block beside the basis
    ],
)
def test_a_gpu_first_then_the_host_then_the_disk(monkeypatch, gpu, host, stored, place, width):
    monkeypatch.setattr(footprint, "available_bytes", lambda device: gpu * GIB)
    monkeypatch.setattr(footprint, "resident_bytes", lambda: 0)
    found = fit(NEEDS, host * GIB, block_size=None, default=8, stored=stored, device=torch.device("cuda"))
    assert (found.resident, found.on_host) == {"gpu": (True, False), "host": (True, True), "disk": (False, False)}[place]
    assert found.block_size == width
    assert found.disk == (NEEDS.disk if stored else 0)


def test_what_fits_nowhere_is_refused_with_what_would(monkeypatch):
    monkeypatch.setattr(footprint, "available_bytes", lambda device: 20 * GIB)
    monkeypatch.setattr(footprint, "resident_bytes", lambda: 0)
    with pytest.raises(OutOfBudget, match=r"25\.2 GiB of memory there.*run=PATH \(--out\), 50\.0 GiB"):
        fit(NEEDS, 4 * GIB, block_size=None, default=8, stored=False, device=torch.device("cuda"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_basis_on_the_host_of_a_gpu(on_the_host):
    matrix = torch.diag(1.0 / torch.arange(1, 2001, dtype=torch.float32))
    found = cs.eigsh(matrix.cuda(), 5, method="krylov", tol=1e-4, progress=False)
    assert isinstance(found.eigenvectors, OnHost)
    assert found.eigenvectors.columns(0, 1).is_cuda
    assert torch.allclose(found.eigenvalues, matrix.diagonal()[:5].double(), rtol=1e-4)


def test_test_matrices_count(monkeypatch):
    """Transforms keep permutations and need room to be applied: 100 bytes a row and matrix in single precision."""
    monkeypatch.setattr(footprint, "resident_bytes", lambda: 0)
    A = cs.problems.spectrum("power", 3000, dtype=torch.float32)
    sizes = {"num_outer": 20, "num_inner": 40, "k": 20}
    left = {
        kind: fit_sketch("seigh", A, sizes, Resources("1GiB"), 4, ("sparse_sign", kind)).products
        for kind in ("gaussian", "ssrft")
    }
    assert left["gaussian"] - left["ssrft"] == 100 * 3000
