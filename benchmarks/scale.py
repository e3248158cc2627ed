"""How long block Krylov takes for sizes that nobody here can run: a simulation from constants measured on this machine.

    python benchmarks/scale.py --product-seconds 120 --size 1e9 -k 100        # about a minute, then a table by workers

Measures what the solve does beside products (columns to a worker of a local Dask cluster and back, panels read from the disk
with their checksums and multiplied), takes the time of one product from you, and adds up the steps of a solve whose basis lies
in a run's store. Nothing overlaps in the model, but columns on different workers. Writes scale.md to benchmarks/results with
``--write``. What it says of large clusters is a simulation, not a measurement; a network that is faster or slower than this
machine's loopback, or a file system that serves many readers, is given by ``--wire`` and ``--disk`` in bytes a second.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

import curvscope as cs
from curvscope.measurement import Distributed
from curvscope.solvers.planning import ZeroCostDiagonal
from curvscope.solvers.sizing import expected_products
from curvscope.tall import InMemory, OnDisk, gram, subtract
from workers import on_dask

RESULTS = Path(__file__).parent / "results"
WORKERS = (1, 4, 16, 64, 256)
ENTRY = 4
SAMPLE = (1 << 20, 64, 8)
"""D, columns of the basis and of the block that the constants are measured with."""


@dataclass(frozen=True)
class Constants:
    """Of a machine.

    Attributes:
        wire: bytes a second between solver and worker, there and back counted once each.
        disk: bytes a second read from the store, verified.
        arithmetic: operations a second in panels that are in memory.
    """

    wire: float
    disk: float
    arithmetic: float


def free(size: int) -> cs.Operator:
    """An operator that costs next to nothing."""
    return ZeroCostDiagonal(size, torch.float32, torch.device("cpu"))


def measured() -> Constants:
    """The constants of this machine."""
    rows, columns, width = SAMPLE
    block = torch.randn(width, rows).T
    basis = InMemory(torch.randn(columns, rows).T)
    operator = cs.Recipe("scale:free", size=rows).build()
    with on_dask(1, tls=True) as workers:  # as batch jobs are reached
        distributed = Distributed(operator, workers)
        distributed.multiply(block)
        wire = 2 * rows * width * ENTRY / fastest(lambda: distributed.multiply(block))
    with tempfile.TemporaryDirectory() as folder:
        stored = OnDisk.create(Path(folder) / "Q", rows, columns, torch.float32)
        stored.write(0, basis.tensor)
        disk = rows * columns * ENTRY / fastest(lambda: [stored.rows(panel) for panel in stored.panels()])
    seconds = fastest(lambda: subtract(block, basis, gram(basis, InMemory(block))))
    return Constants(wire, disk, 4 * rows * columns * width / seconds)


def fastest(work: object) -> float:
    """Seconds of the fastest of three."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def simulated(size: float, k: int, workers: int, product: float, machine: Constants) -> dict[str, float]:
    """Seconds of the stages of a solve to a tolerance of 1e-3, and bytes: a block is the wider of the workers and 2."""
    block = max(2, min(workers, 64))
    count = expected_products(k, block)
    found = {"products": 0.0, "wire": 0.0, "panels": 0.0}
    steps, ncv = int(count / block), 3 * k + 20 * block
    column = size * ENTRY
    for step in range(steps):
        basis = min((step + 1) * block, ncv)
        found["products"] += -(-block // workers) * product
        found["wire"] += 2 * block * column / machine.wire
        readers = workers if basis >= 8 * block else 1
        # Twice through the basis (its columns read, and multiplied), by as many as share the panels.
        found["panels"] += (2 * basis * column / machine.disk + 4 * size * basis * block / machine.arithmetic) / readers
        found["wire"] += 3 * block * column / machine.wire if readers > 1 else 0.0
    found["products"] += -(-k // workers) * product
    found["wire"] += 2 * k * column / machine.wire
    return {
        "workers": workers,
        "block": block,
        "count": count + k,
        **found,
        "total": sum(found.values()),
        "head": 4 * block * column,
        "disk": (2 * (ncv + block) + k) * column,
    }


def lines(size: float, k: int, product: float, machine: Constants) -> list[str]:
    """The Markdown page."""
    text = [f"# Simulated: D = {size:.3g}, k = {k}, {product:g} s a product", ""]
    text += [
        "Written by `python benchmarks/scale.py`. A simulation: nothing of this size was run. Constants of this machine,",
        "",
    ]
    text += [f"wire {machine.wire / 1e6:.0f} MB/s, disk {machine.disk / 1e6:.0f} MB/s,"]
    text += [f"panels {machine.arithmetic / 1e9:.1f} gigaflops.", ""]
    text += ["| workers | block | products | hours of products | of wire | of panels | in all | memory of the solver | disk |"]
    text += ["|---|---|---|---|---|---|---|---|---|"]
    for workers in WORKERS:
        made = simulated(size, k, workers, product, machine)
        hours = " | ".join(f"{made[name] / 3600:.1f}" for name in ("products", "wire", "panels", "total"))
        text.append(
            f"| {workers} | {made['block']} | {made['count']:.0f} | {hours} | {made['head'] / 2**30:.0f} GiB | "
            f"{made['disk'] / 1e12:.1f} TB |"
        )
    return text


def main() -> None:
    """Measure, simulate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=float, default=1e9)
    parser.add_argument("-k", type=int, default=100)
    parser.add_argument("--product-seconds", type=float, required=True)
    parser.add_argument("--wire", type=float, help="bytes a second")
    parser.add_argument("--disk", type=float, help="bytes a second")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = measured()
    machine = Constants(asked.wire or found.wire, asked.disk or found.disk, found.arithmetic)
    page = "\n".join(lines(asked.size, asked.k, asked.product_seconds, machine))
    print(page)
    if asked.write:
        (RESULTS / "scale.md").write_text(page + "\n")


if __name__ == "__main__":
    main()
