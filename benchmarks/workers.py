"""What workers gain: the products of 3c3d's Hessian by one and by two single-threaded processes, and what the engine costs.

    python benchmarks/workers.py                       # k = 100, about 10 minutes on 2 quiet cores
    python benchmarks/workers.py -k 20 --engine pool   # quicker; a pool of the standard library instead of Dask

Writes workers-ENGINE.json and workers-ENGINE.md to benchmarks/results. Both solves are for the same budget of products with the
same block size, one after the other in one process, which computes none of them itself. The overhead is that of a block which
takes a second or more: the wall time that this process waits for it, against the time that the worker computes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import curvscope as cs
from curvscope.execution.workers import Task
from curvscope.operators.remote import Order, multiply, order_for

RESULTS = Path(__file__).parent / "results"
ENGINES: dict[str, Callable[..., cs.Workers]] = {"dask": cs.Workers.local, "pool": cs.Workers.processes}
REPEATS = 7


def timed(order: Order, block: np.ndarray) -> tuple[np.ndarray, float]:
    """A product and the seconds that it took where it was computed."""
    start = time.perf_counter()
    result = multiply(order, block)
    return result, time.perf_counter() - start


def solve(operator: cs.Operator, hire: Callable[..., cs.Workers], count: int, k: int, block_size: int) -> dict[str, float]:
    """Seconds of a solve with a budget of 3.3 k products, the workers' start and their first product not counted."""
    with hire(count, threads=1) as workers:
        warm = torch.randn(block_size, operator.shape[0], dtype=operator.dtype).T
        list(workers.map(multiply, [Task((order_for(operator, threads=1), warm.numpy())) for _ in range(4 * count)]))
        start = time.perf_counter()
        found = cs.eigsh(
            operator,
            k,
            method="krylov",
            tol=0,
            max_products=int(3.3 * k),
            block_size=block_size,
            preflight=False,
            executor=workers,
            progress=False,
        )
        seconds = time.perf_counter() - start
    return {
        "workers": count,
        "products": found.cost.products + found.cost.certificate_products,
        "product_seconds": found.cost.stages["products"],
        "seconds": seconds,
        "largest": float(found.eigenvalues[0]),
        "last": float(found.eigenvalues[-1]),
    }


def overhead(operator: cs.Operator, hire: Callable[..., cs.Workers], columns: int) -> dict[str, float]:
    """Medians over blocks of so many columns: seconds that we wait, and that the worker computes."""
    block = torch.randn(columns, operator.shape[0], dtype=operator.dtype).T.numpy()
    order = order_for(operator, threads=1)
    waits, computes = [], []
    with hire(1, threads=1) as workers:
        for _ in range(REPEATS + 1):
            start = time.perf_counter()
            ((_, computed),) = workers.map(timed, [Task((order, block))])
            waits.append(time.perf_counter() - start)
            computes.append(computed)
    waited, computed = statistics.median(waits[1:]), statistics.median(computes[1:])
    return {"columns": columns, "waited": waited, "computed": computed, "overhead": waited / computed - 1}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-k", type=int, default=100)
    parser.add_argument("--block-size", type=int, default=4)
    parser.add_argument("--engine", choices=sorted(ENGINES), default="dask")
    parser.add_argument("--workload", default="3c3d")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    operator = cs.Recipe("workloads:load", name=asked.workload).build()
    hire, load = ENGINES[asked.engine], os.getloadavg()[0]
    found = [solve(operator, hire, count, asked.k, asked.block_size) for count in (1, 2)]
    costs = [overhead(operator, hire, columns) for columns in (4, 8)]
    record = {
        "engine": asked.engine,
        "workload": asked.workload,
        "parameters": operator.shape[0],
        "k": asked.k,
        "block_size": asked.block_size,
        "solves": found,
        "speedup_of_products": found[0]["product_seconds"] / found[1]["product_seconds"],
        "speedup_of_all": found[0]["seconds"] / found[1]["seconds"],
        "overhead": costs,
        "environment": environment(load),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"workers-{asked.engine}.json").write_text(json.dumps(record, indent=1) + "\n")
    (RESULTS / f"workers-{asked.engine}.md").write_text("\n".join(lines(record)) + "\n")
    print("\n".join(lines(record)))


def environment(load: float) -> dict[str, Any]:
    """Where it was measured."""
    names = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    versions = {name: version(name) for name in ("curvscope", "torch", "distributed")}
    return {"cpu": (names or [platform.processor()])[0], "cores": os.cpu_count(), "load": load, "versions": versions}


def lines(record: dict[str, Any]) -> list[str]:
    """The Markdown page."""
    where, options = record["environment"], f"--engine {record['engine']} -k {record['k']} --block-size {record['block_size']}"
    text = ["# Products by workers", "", f"Written by `python benchmarks/workers.py {options}`.", ""]
    text += [f"{where['cpu']}, {where['cores']} cores, load at the start {where['load']:.1f};"]
    text += [", ".join(f"{package} {number}" for package, number in where["versions"].items()) + ".", ""]
    text += [f"{record['workload']}, D = {record['parameters']:,}, one thread a worker.", ""]
    text += ["| workers | products | seconds of products | seconds of all | largest | last |", "|---|---|---|---|---|---|"]
    for made in record["solves"]:
        text.append(
            f"| {made['workers']} | {made['products']} | {made['product_seconds']:.1f} | {made['seconds']:.1f} | "
            f"{made['largest']:.6g} | {made['last']:.6g} |"
        )
    text += ["", f"Two workers against one: {record['speedup_of_products']:.2f} on the products,"]
    text += [f"{record['speedup_of_all']:.2f} on the whole solve.", ""]
    text += ["| columns of a block | seconds that we wait | seconds that it computes | overhead |", "|---|---|---|---|"]
    for cost in record["overhead"]:
        text.append(f"| {cost['columns']} | {cost['waited']:.3f} | {cost['computed']:.3f} | {cost['overhead']:.1%} |")
    return text


if __name__ == "__main__":
    main()
