"""Runs that are killed go on, and end with the same bits."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from curvscope.solvers import Solution
from curvscope.store import Run

from . import killed


def kill(run, seed, kills, *methods):
    """How often each method's run was killed before it finished."""
    script = Path(killed.__file__)
    command = [sys.executable, script, run, str(seed), str(kills), *methods]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    return {method: int(count) for count, method in (line.split(" ", 1) for line in done.stdout.splitlines())}


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def same(one, other):
    pairs = [("residual_norms", one.residual_norms, other.residual_norms)]
    if isinstance(one, Solution):
        pairs += [("eigenvalues", one.eigenvalues, other.eigenvalues)]
        pairs += [("eigenvectors", one.eigenvectors.to_tensor(), other.eigenvectors.to_tensor())]
    else:
        pairs += [(name, getattr(one, name), getattr(other, name)) for name in "S"]
        pairs += [(name, getattr(one, name).to_tensor(), getattr(other, name).to_tensor()) for name in "UV"]
    for name, a, b in pairs:
        assert torch.equal(a, b), f"{name} differ by {(a - b).abs().max():.1e}"
    assert one.cost.products == other.cost.products
    assert one.cost.certificate_products == other.cost.certificate_products
    assert one.cost.passes == other.cost.passes


def check_survival(tmp_path, seed, kills, methods):
    died = kill(tmp_path / "killed", seed, kills, *methods)
    for method in methods:
        A = killed.operator(method)
        survived = killed.SOLVES[method](A, tmp_path / "killed" / method)
        same(survived, killed.SOLVES[method](A, tmp_path / "whole" / method))
        assert len(Run.open(tmp_path / "killed" / method).manifest["sessions"]) >= 2
    return died


def test_five_kills_change_nothing(tmp_path, one_thread):
    died = check_survival(tmp_path, 0, 5, ["krylov", "seigh"])
    assert died["krylov"] == 5
    assert died["seigh"] >= 2


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_fifty_kills_of_one_run_change_nothing(tmp_path, one_thread, seed):
    assert check_survival(tmp_path, seed, 50, ["krylov, long"])["krylov, long"] == 50


@pytest.mark.slow
@pytest.mark.parametrize("seed", [4, 5, 6])
def test_kills_of_every_method_change_nothing(tmp_path, one_thread, seed):
    died = check_survival(tmp_path, seed, 50, sorted(killed.SOLVES))
    assert all(count > 0 for count in died.values())


def test_a_run_gives_the_bits_of_a_solve_in_memory(tmp_path, one_thread):
    for method in ("krylov", "exact", "ssvd"):
        A = killed.operator(method)
        same(killed.SOLVES[method](A, tmp_path / method), killed.SOLVES[method](A, None))
