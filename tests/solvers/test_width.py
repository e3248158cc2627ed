"""Block widths are chosen by rule: the same on every run, whatever the machine does beside."""

import time

import pytest
import torch

import curvscope as cs
from curvscope.solvers.sizing import default_width, multiple_of


def test_widths_grow_with_the_number_of_pairs_and_stay_in_bounds():
    widths = [default_width(k) for k in range(1, 5000, 7)]
    assert widths == sorted(widths)
    assert (widths[0], widths[-1]) == (1, 16)
    assert all(width <= max(1, k) for width, k in zip(widths, range(1, 5000, 7), strict=True))


def test_widths_suit_the_workers():
    assert [multiple_of(width, 3, 100) for width in (1, 2, 3, 4)] == [3, 3, 3, 6]
    assert multiple_of(8, 3, 4) == 4


def test_no_clock_decides(monkeypatch):
    """Under a clock that runs backwards, and one that jumps, a solve has the same width and the same bits."""
    problem = torch.nn.Linear(12, 9), torch.nn.CrossEntropyLoss(), [(torch.randn(20, 12), torch.arange(20) % 9)]
    H = cs.hessian(*problem)
    plain = cs.eigsh(H, k=70, method="krylov", progress=False)
    for steps in (-1.0, 1e3):
        ticks = iter(float(i) * steps for i in range(10**9))
        with monkeypatch.context() as patched:
            patched.setattr(time, "perf_counter", lambda ticks=ticks: next(ticks))
            found = cs.eigsh(H, k=70, method="krylov", progress=False)
        assert torch.equal(found.eigenvalues, plain.eigenvalues)
        assert found.provenance["options"] == plain.provenance["options"]


@pytest.mark.parametrize("k", [1, 64, 100])
def test_a_default_block_is_recorded(k):
    A = torch.diag(torch.linspace(1, 2, 400, dtype=torch.float64))
    assert cs.eigsh(A, k=k, method="krylov", max_products=k).provenance["options"]["block_size"] == default_width(k)
