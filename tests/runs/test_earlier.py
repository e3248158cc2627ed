"""Runs that an earlier curvscope wrote are read, resumed and certified by this one."""

import importlib.util
import shutil
from pathlib import Path

import pytest
import torch

import curvscope as cs

EARLIER = Path(__file__).with_name("earlier")


@pytest.fixture(scope="module")
def experiment():
    spec = importlib.util.spec_from_file_location("experiment_of_earlier_runs", EARLIER / "experiment.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(tmp_path, request):
    return shutil.copytree(EARLIER / request.param, tmp_path / request.param)


@pytest.mark.parametrize(
    ("run", "method", "least"),
    [("interrupted-krylov", "krylov", 10), ("interrupted-seigh", "seigh", 8), ("interrupted-hmt", "hmt", 8)],
    indirect=["run"],
)
def test_interrupted_runs_go_on(run, method, least, experiment):
    """The products of the first session are not computed again, and the pairs are those of a solve in one piece."""
    options, computed = experiment.METHODS[method], []
    H = experiment.operator()
    inner = H._apply
    H._apply = lambda block: computed.append(block.shape[1]) or inner(block)
    found = cs.eigsh(H, 4, run=run, progress=False, **options)
    spent = found.cost.products + found.cost.certificate_products
    assert sum(computed) <= spent - least + 1  # one to see that the matrix is the same
    whole = cs.eigsh(experiment.operator(), 4, progress=False, **options)
    torch.testing.assert_close(found.eigenvalues, whole.eigenvalues, rtol=1e-10, atol=1e-12)
    overlaps = found.eigenvectors.to_tensor().T @ whole.eigenvectors.to_tensor()
    torch.testing.assert_close(overlaps.abs(), torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-8)


@pytest.mark.parametrize("run", ["finished"], indirect=True)
def test_finished_runs_are_opened_and_certified(run, experiment):
    found, dense = cs.open(run), torch.linalg.eigh(experiment.operator() @ torch.eye(103, dtype=torch.float64))
    largest = dense.eigenvalues.abs().argsort(descending=True)[:4]
    torch.testing.assert_close(found.eigenvalues, dense.eigenvalues[largest], rtol=1e-10, atol=0)
    overlaps = found.eigenvectors.to_tensor().T @ dense.eigenvectors[:, largest]
    torch.testing.assert_close(overlaps.abs().diagonal(), torch.ones(4, dtype=torch.float64), rtol=0, atol=1e-8)
    assert cs.certify(experiment.operator(), found, progress=False).certificate is not None
