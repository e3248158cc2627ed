"""Hessian products of a transformer by length: attention on tiles beside PyTorch's plain kernel, time and peak memory.

    python benchmarks/attention.py                   # about 15 minutes on 2 cores
    python benchmarks/attention.py --time 512 1024 --memory
    python benchmarks/attention.py --device cuda --time 1024 4096 --memory 4096 16384

The network has 2 layers, 8 heads and width 512, causal, on bytes (D = 6.5 million and positions); random data, fixed seeds.
Every length is a process of its own; in it both kernels and the gradient by PyTorch's fused kernel take turns, and medians of
the rounds are written. Peak memory is that of one more process a kernel, above what model, data and PyTorch take. Writes
attention.json and attention.md to benchmarks/results. Without a GPU, ``--device cuda`` says so and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import curvscope as cs
from curvscope.operators.rules.attention import _call
from curvscope.system import peak_resident_bytes
from machine import described, environment, in_own_process
from workloads import GPT

RESULTS = Path(__file__).parent / "results"
KERNELS = {"tiles": 1, "plain": 1 << 60}
"""Sizes from which attention goes by tiles."""


def problem(length: int, device: str, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    """Two layers of width 512, bytes to the next one, and one sequence."""
    torch.manual_seed(0)
    model = GPT(256, 512, length, heads=8).to(device, dtype)
    return model, [(torch.randint(256, (1, length)).to(device), torch.randint(256, (length,)).to(device))]


@contextmanager
def kernel(name: str) -> Iterator[None]:
    """Attention by tiles, or by PyTorch's plain kernel, for operators that are made inside."""
    before = _call.MIN_TILED_SCORES, _call.MIN_TILED_SCORES_OF_BATCH
    _call.MIN_TILED_SCORES = _call.MIN_TILED_SCORES_OF_BATCH = KERNELS[name]
    try:
        yield
    finally:
        _call.MIN_TILED_SCORES, _call.MIN_TILED_SCORES_OF_BATCH = before


def seconds(call: Callable[[], Any], device: str) -> float:
    """Of one call: processor seconds of all threads, which other processes disturb less; on a GPU those of the clock."""
    start = time.process_time() if device == "cpu" else time.perf_counter()
    call()
    if device == "cpu":
        return time.process_time() - start
    torch.cuda.synchronize()
    return time.perf_counter() - start


def times(length: int, device: str, rounds: int) -> dict[str, Any]:
    """Seconds of a Hessian product by either kernel and of a gradient by the fused one, in turn, and their differences."""
    model, data = problem(length, device)
    (x, y), parameters = data[0], list(model.parameters())
    v = torch.randn(sum(p.numel() for p in parameters), 1, generator=torch.Generator().manual_seed(1)).to(device)
    calls: dict[str, Callable[[], Any]] = {
        "gradient": lambda: torch.autograd.grad(nn.functional.cross_entropy(model(x), y), parameters)
    }
    products = {}
    for name in KERNELS if length <= 2048 or device == "cuda" else ("tiles",):
        with kernel(name):
            operator = cs.hessian(model, nn.CrossEntropyLoss(), data, strategy="split")
            products[name] = operator @ v
            calls[name] = lambda operator=operator: operator @ v
    calls["gradient"]()
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            found[name].append(seconds(call, device))
    record: dict[str, Any] = {f"{name}_seconds": statistics.median(values) for name, values in found.items()}
    record["rounds"], record["gradients"] = rounds, record["tiles_seconds"] / record["gradient_seconds"]
    if "plain" in products:
        record["speedup"] = record["plain_seconds"] / record["tiles_seconds"]
    if length <= 1024:
        record["errors"] = errors(length, device, products, v)
    return record


def errors(length: int, device: str, products: dict[str, Tensor], v: Tensor) -> dict[str, float]:
    """Relative to double backward in float64 through the plain kernel."""
    model, data = problem(length, device)
    with kernel("plain"):
        exact = cs.hessian(model.double(), nn.CrossEntropyLoss(), data, strategy="double_backward") @ v.double()
    return {name: float((product.double() - exact).norm() / exact.norm()) for name, product in products.items()}


def memory(name: str, length: int, device: str) -> dict[str, float]:
    """Peak MiB of a first Hessian product above what was there before the operator was made."""
    model, data = problem(length, device)
    v = torch.randn(sum(p.numel() for p in model.parameters()), 1, device=device)
    tiny = [(torch.eye(2, device=device), torch.tensor([0, 1], device=device))]
    cs.hessian(nn.Linear(2, 2).to(device), nn.CrossEntropyLoss(), tiny, strategy="split") @ torch.ones(6, 1, device=device)
    before = torch.cuda.memory_allocated() if device == "cuda" else peak_resident_bytes()
    with kernel(name):
        cs.hessian(model, nn.CrossEntropyLoss(), data, strategy="split") @ v
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else peak_resident_bytes()
    return {"peak_mib": (peak - before) / 2**20, "process_mib": peak / 2**20}


def table(record: dict[str, Any]) -> str:
    """The record as Markdown."""
    lines = [
        "# Attention on tiles",
        "",
        f"{described(record['environment'])} Written by `python benchmarks/attention.py`.",
        "",
        "Hessian product of one vector, traced, residuals kept. Processor seconds of all threads; on a GPU, of the clock.",
        "Errors are relative to double backward in float64.",
        "",
        "| tokens | gradient, fused (s) | tiles (s) | plain kernel (s) | plain / tiles | tiles / gradient | errors of both |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for length, r in record["times"].items():
        if "failed" in r:
            lines.append(f"| {length} | {r['failed']} |")
            continue
        plain, ratio = (f"{r[key]:.2f}" if key in r else "" for key in ("plain_seconds", "speedup"))
        both = ", ".join(f"{value:.0e}" for value in r.get("errors", {}).values())
        measured = (f"{r[key]:.2f}" for key in ("gradient_seconds", "tiles_seconds"))
        lines.append(f"| {length} | {' | '.join(measured)} | {plain} | {ratio} | {r['gradients']:.2f} | {both} |")
    lines += ["", "Peak memory of the first product, verification and trace included, above model, data and PyTorch (MiB).", ""]
    lines += ["| tokens | tiles | plain kernel |", "| --- | --- | --- |"]
    for length, kinds in record["memory"].items():
        shown = [f"{kinds[n]['peak_mib']:,.0f}" if "peak_mib" in kinds.get(n, {}) else "" for n in KERNELS]
        lines.append(f"| {length} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--time", nargs="*", default=["512", "1024", "2048", "4096"], help="lengths to time")
    parser.add_argument(
        "--memory", nargs="*", default=["1024", "2048", "4096", "8192"], help="lengths whose memory is measured"
    )
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("no GPU here: nothing measured")
        return
    if options.child:
        what, *rest = options.child
        made = times(int(rest[0]), options.device, options.rounds) if what == "time" else None
        print(json.dumps(made or memory(rest[0], int(rest[1]), options.device)))
        return
    path = RESULTS / ("attention.json" if options.device == "cpu" else "attention-gpu.json")
    record = json.loads(path.read_text()) if path.exists() else {"times": {}, "memory": {}}
    record["environment"] = environment(threads=options.threads)
    if options.device == "cuda":
        record["environment"]["cpu"] = torch.cuda.get_device_name()
    common = ("--device", options.device, "--rounds", str(options.rounds), "--child")
    for length in options.memory:
        kinds = KERNELS if int(length) <= 2048 or options.device == "cuda" else ("tiles",)
        arguments = [(*common, "memory", name, length) for name in kinds]
        peaks = [in_own_process(__file__, *each, threads=options.threads) for each in arguments]
        record["memory"][length] = dict(zip(kinds, peaks, strict=True))
        print(length, record["memory"][length], flush=True)
    for length in options.time:
        record["times"][length] = in_own_process(__file__, *common, "time", length, threads=options.threads)
        print(length, record["times"][length], flush=True)
    path.write_text(json.dumps(record, indent=1) + "\n")
    path.with_suffix(".md").write_text(table(record))


if __name__ == "__main__":
    main()
