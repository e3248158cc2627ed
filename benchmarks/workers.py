"""What workers gain: the products of 3c3d's Hessian by one and by two single-threaded processes, and what the engine costs.

    python benchmarks/workers.py                       # k = 100, about 10 minutes on 2 quiet cores
    python benchmarks/workers.py -k 20 --engine pool   # quicker; curvscope's own processes instead of Dask
    python benchmarks/workers.py --compare             # what it costs that no stranger can reach them, about 3 minutes

Writes workers-ENGINE.json and workers-ENGINE.md to benchmarks/results, or workers-access.json and
workers-access.md. Both solves are for the same budget of products with the
same block size, one after the other in one process, which computes none of them itself. The overhead is that of a block which
takes a second or more: the wall time that this process waits for it, against the time that the worker computes. The comparison
alternates between the engines: Dask over TCP, which any account of the machine can reach, Dask over TLS, and pipes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import curvscope as cs
from curvscope.operators.remote import Order, multiply, order_for
from curvscope.parallel import Task
from machine import environment

RESULTS = Path(__file__).parent / "results"
REPEATS = 7
SIZE = 895_210
"""Parameters of 3c3d, for products that cost nothing (``--workload free``): what is left is the way there and back."""


def on_dask(count: int, *, threads: int = 1, tls: bool = False) -> cs.Workers:
    """Workers under Dask on this machine: over TCP, without any protection, or over TLS with temporary credentials."""
    from distributed import Client, LocalCluster, Security

    security = Security.temporary() if tls else None
    place = {"protocol": "tls://" if tls else "tcp://", "dashboard_address": "127.0.0.1:0", "security": security}
    cluster = LocalCluster(n_workers=count, threads_per_worker=1, memory_limit=0, silence_logs=40, **place)
    client = Client(cluster, direct_to_workers=True)

    def close() -> None:
        client.close()
        cluster.close()

    return cs.Workers(client, threads=threads, close=close)


ENGINES: dict[str, Callable[..., cs.Workers]] = {
    "dask": on_dask,
    "tls": partial(on_dask, tls=True),
    "pool": cs.Workers.processes,
}


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


def compare(operator: cs.Operator, rounds: int, columns: int) -> dict[str, Any]:
    """Medians for 2 workers of each engine, in turn: seconds from opening them to the first products, and for a block."""
    block = torch.randn(2 * columns, operator.shape[0], dtype=operator.dtype).T.numpy()
    order = order_for(operator, threads=1)
    tasks = [Task((order, np.asfortranarray(block[:, i : i + columns])), columns) for i in (0, columns)]
    starts: dict[str, list[float]] = {name: [] for name in ENGINES}
    blocks: dict[str, list[float]] = {name: [] for name in ENGINES}
    for _ in range(rounds):
        opened = {}
        try:
            for name, hire in ENGINES.items():
                start = time.perf_counter()
                opened[name] = hire(2, threads=1)
                list(opened[name].map(multiply, tasks))
                starts[name].append(time.perf_counter() - start)
            for _, (name, workers) in itertools.product(range(REPEATS), opened.items()):
                start = time.perf_counter()
                list(workers.map(multiply, tasks))
                blocks[name].append(time.perf_counter() - start)
        finally:
            for workers in opened.values():
                workers.close()
    return {
        name: {"start": statistics.median(starts[name]), "block": statistics.median(blocks[name]), "blocks": len(blocks[name])}
        for name in ENGINES
    }


def comparison_lines(record: dict[str, Any], options: str) -> list[str]:
    """The Markdown page of :func:`compare`."""
    where, names = record["environment"], {"dask": "Dask, TCP (open)", "tls": "Dask, TLS", "pool": "pipes (`--workers`)"}
    text = ["# Workers that strangers cannot reach", "", f"Written by `python benchmarks/workers.py {options}`.", ""]
    text += [f"{where['cpu']}, {where['cores']} cores, load at the start {where['load']:.1f}; medians, engines in turn."]
    text += [f"{record['workload']}, D = {record['parameters']:,}, 2 workers, {record['columns']} columns each.", ""]
    text += [
        "| engine | seconds from opening to the first products | seconds a block | against Dask over TCP |",
        "|---|---|---|---|",
    ]
    base = record["engines"]["dask"]
    for name, found in record["engines"].items():
        change = found["block"] / base["block"] - 1
        text.append(f"| {names[name]} | {found['start']:.2f} | {found['block']:.3f} | {change:+.1%} |")
    return text


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-k", type=int, default=100)
    parser.add_argument("--block-size", type=int, default=4)
    parser.add_argument("--engine", choices=sorted(ENGINES), default="dask")
    parser.add_argument("--workload", default="3c3d")
    parser.add_argument("--compare", action="store_true", help="engines in turn, instead of one solve with each count")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--columns", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.workload == "free":
        operator = cs.Recipe("scale:free", size=SIZE).build()
    else:
        operator = cs.Recipe("workloads:load", name=asked.workload).build()
    if asked.compare:
        load = os.getloadavg()[0]
        engines = compare(operator, asked.rounds, asked.columns)
        record = {"workload": asked.workload, "parameters": operator.shape[0], "columns": asked.columns, "engines": engines}
        record["environment"] = environment(("distributed",)) | {"load": load}
        options = f"--compare --workload {asked.workload} --rounds {asked.rounds} --columns {asked.columns}"
        write("access", record, comparison_lines(record, options))
        return
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
        "environment": environment(("distributed",)) | {"load": load},
    }
    write(asked.engine, record, lines(record))


def write(name: str, record: dict[str, Any], page: list[str]) -> None:
    """Write the figures and their page, and print it."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"workers-{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    (RESULTS / f"workers-{name}.md").write_text("\n".join(page) + "\n")
    print("\n".join(page))


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
