"""Memory is bounded, predicted, and running out of it is survived."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from curvscope.errors import InvalidArgument, OutOfBudget
from curvscope.operators import hessian
from curvscope.operators.products import STRATEGIES, _split as split_module

from .cases import build, dense_hessian

# Freed memory goes back to the system at once, so that the peak is that of what is in use.
ENVIRONMENT = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}

PROGRAM = """
import resource, sys, torch
from torch import nn
from curvscope.operators import hessian
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 256), nn.Tanh(), nn.Linear(256, 10))
data = [(torch.randn(2000, 64), torch.randint(0, 10, (2000,)))]
H = hessian(model, nn.CrossEntropyLoss(), data, strategy=sys.argv[1], memory=64 * 2**20)
H @ torch.randn(H.shape[0], 2)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
H @ torch.randn(H.shape[0], int(sys.argv[2]))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "strategy", ["auto", *(pytest.param(name, marks=SLOW) for name in ("split", "split_vmap", "double_backward"))]
)
def test_peak_grows_with_the_block_alone(strategy):
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, strategy, "128"]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=ENVIRONMENT)
    # The block, its transpose and the sum are 128 * 19,210 * 4 bytes = 9.4 MiB each; one activation of 128 vectors
    # at once would be 128 * 2,000 * 256 * 4 bytes = 250 MiB.
    assert float(run.stdout) < 100


def test_out_of_memory_halves_the_width(monkeypatch, caplog):
    model, criterion, batches = build("mlp")
    widths = []
    original = split_module.Split.linearize

    def linearize(self, batch, number, width):
        widths.append(width)
        if width > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. (simulated)")
        return original(self, batch, number, width)

    monkeypatch.setattr(split_module.Split, "linearize", linearize)
    H = hessian(model, criterion, batches, strategy="split_vmap", width=8)
    x = torch.randn(H.shape[0], 8, dtype=torch.float64)
    torch.testing.assert_close(H @ x, dense_hessian(model, criterion, batches) @ x, rtol=1e-10, atol=1e-12)
    assert widths[:3] == [8, 4, 2]
    assert H.strategy_report["width"] == 2
    assert "going on with 4" in caplog.text


def test_one_vector_too_many_says_what_to_do(monkeypatch):
    model, criterion, batches = build("mlp")

    def refuse(self, batch, number, width):
        raise torch.OutOfMemoryError("out of memory (simulated)")

    monkeypatch.setattr(split_module.Split, "linearize", refuse)
    H = hessian(model, criterion, batches, strategy="split")
    with pytest.raises(OutOfBudget, match="microbatch"):
        H @ torch.ones(H.shape[0], dtype=torch.float64)


def test_what_is_kept_stays_within_the_budget():
    model, criterion, batches = build("mlp", batches=6)
    x = torch.ones(43, 2, dtype=torch.float64)
    expected = hessian(model, criterion, batches) @ x
    for memory in (1, 4000, 10**9):
        H = hessian(model, criterion, batches, strategy="split", memory=memory)
        for _ in range(2):
            torch.testing.assert_close(H @ x, expected, rtol=1e-10, atol=1e-12)
        assert H.strategy_report["kept_bytes"] <= memory // 2
    assert H.strategy_report["kept_batches"] == 6


def test_shuffling_loaders_never_mix_two_passes():
    model, criterion, batches = build("mlp", batches=6)
    expected = hessian(model, criterion, batches) @ torch.ones(43, dtype=torch.float64)
    for memory in (4000, 10**9):
        loader = torch.utils.data.DataLoader(batches, batch_size=None, shuffle=True)
        H = hessian(model, criterion, loader, strategy="split", memory=memory)
        for _ in range(3):
            found = H @ torch.ones(43, dtype=torch.float64)
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


PREDICTION = """
import re, sys, torch
from torch import nn
from curvscope.operators import hessian

def status(name):
    return int(re.search(name + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024

torch.manual_seed(0)
kind, strategy, columns = sys.argv[1], sys.argv[2], int(sys.argv[3])
model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Tanh(), nn.Flatten(), nn.Linear(16 * 30 * 30, 64), nn.Tanh(), nn.Linear(64, 10))
data = [(torch.randn(64, 3, 32, 32), torch.randint(0, 10, (64,))) for _ in range(2)]
if kind == "language":
    layers = nn.Embedding(8192, 32), nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), nn.Linear(32, 8192)
    model = nn.Sequential(*layers, nn.Flatten(0, 1))
    data = [(torch.randint(8192, (1, 2048)), torch.randint(8192, (2048,)))]
H = hessian(model, nn.CrossEntropyLoss(), data, strategy=strategy)
x = torch.randn(H.shape[0], columns)
H @ x
H = hessian(model, nn.CrossEntropyLoss(), data, strategy=strategy)
predicted = H.predicted_bytes(columns)
H._engine._kept.forget()
open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS")
result = H @ x
print(predicted / (status("VmHWM") - before))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the kernel resets a process's peak on Linux only")
@pytest.mark.parametrize(
    ("kind", "strategy", "columns"),
    [
        pytest.param("images", "split", 8, marks=SLOW),
        ("images", "split_vmap:4", 4),
        pytest.param("images", "split_vmap:4", 16, marks=SLOW),
        pytest.param("language", "split", 1, marks=SLOW),
        pytest.param("language", "split_vmap:4", 4, marks=SLOW),
    ],
)
def test_predicted_memory_is_within_a_factor_of_two_of_the_peak(kind, strategy, columns):
    command = [sys.executable, "-W", "ignore", "-c", PREDICTION, kind, strategy, str(columns)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=ENVIRONMENT)
    assert 0.5 < float(run.stdout) < 2


def test_predictions_grow_with_the_block_and_say_something_for_every_strategy():
    model, criterion, batches = build("convolutional")
    for strategy in STRATEGIES:
        H = hessian(model, criterion, batches, strategy=strategy, width=2)
        few, many = H.predicted_bytes(2), H.predicted_bytes(200)
        assert many - few == 198 * 2 * H.shape[0] * 8
        assert few > 2 * H.shape[0] * 8
    with pytest.raises(InvalidArgument, match="0 columns"):
        H.predicted_bytes(0)


def test_predictions_and_costs_leave_products_as_they_were():
    model, criterion, batches = build("mlp", batches=5)
    expected = dense_hessian(model, criterion, batches)
    loader = torch.utils.data.DataLoader(batches, batch_size=None, shuffle=True)
    for data in (batches, loader):
        for strategy in ("auto", "split", "double_backward"):
            H = hessian(model, criterion, data, strategy=strategy)
            costs = H.cost_curve((1, 6))
            assert set(costs) == {1, 6}
            assert min(costs.values()) > 0
            assert H.cost_curve((6,)) == {6: costs[6]}
            H.predicted_bytes(3)
            for _ in range(2):
                found = H @ torch.eye(43, dtype=torch.float64)
                torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
