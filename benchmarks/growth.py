"""How processor time and memory grow with parameters, pairs and samples, beside what the formulas say.

    python benchmarks/growth.py                     # all of it, about 15 minutes on one core
    python benchmarks/growth.py --only pairs        # one part

Times are processor seconds of one thread, which other processes disturb less than those of the clock; each is a process of
its own, whose peak of resident memory is read at its end. An exponent is the slope of logarithms between the last two sizes and
over all: a cost that grows no faster than its formula has slopes of at most the formula's exponent and a margin for noise.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import torch
from torch import nn

import curvscope as cs
from curvscope.system import peak_resident_bytes
from machine import described, environment, in_own_process

RESULTS = Path(__file__).parent / "results"
MARGIN = 0.15
"""Of an exponent over the last step, above its formula's: noise of the times."""


class Part(NamedTuple):
    """One quantity that grows.

    Attributes:
        title: what is measured. sizes: of the quantity. time, memory: exponents that the formulas have.
        measure: of one size, facts with "seconds".
    """

    title: str
    sizes: tuple[int, ...]
    time: float
    memory: float
    measure: Callable[[int], dict[str, Any]]


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return processor seconds and result of one call."""
    start = time.process_time()
    found = call()
    return time.process_time() - start, found


def solve(size: int, k: int) -> dict[str, Any]:
    """Time the algebra of a solve: a diagonal with as many outliers as pairs, whose products cost next to nothing."""
    outliers = torch.linspace(2.0, 4.0, k)
    bulk = torch.linspace(0.0, 0.5, size - k)
    operator = cs.as_operator(
        torch.sparse_coo_tensor(torch.arange(size).repeat(2, 1), torch.cat([outliers, bulk]), (size, size))
    )
    seconds, found = timed(lambda: cs.eigsh(operator, k, method="krylov", tol=1e-3, progress=False))
    error = float((found.eigenvalues - outliers.flip(0).double()).abs().max())
    return {"seconds": seconds, "products": found.cost.products, "largest_error": error, "status": found.status.code}


def network(width: int, samples: int) -> cs.CurvatureOperator:
    """A tanh network with one hidden layer, and samples in batches of 32 to 256."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 10))
    x, y = torch.randn(samples, 64), torch.randint(10, (samples,))
    return cs.hessian(model, nn.CrossEntropyLoss(), list(zip(x.split(64), y.split(64), strict=True)), strategy="split_vmap:4")


def multiply(width: int, samples: int) -> dict[str, Any]:
    """Time products with blocks of four vectors, set-up apart."""
    operator = network(width, samples)
    block = torch.randn(operator.shape[0], 4, generator=torch.Generator().manual_seed(1))
    first, _ = timed(lambda: operator @ block)
    rounds = [timed(lambda: operator @ block)[0] for _ in range(5)]
    return {"seconds": sorted(rounds)[2], "first_seconds": first, "parameters": operator.shape[0]}


PARTS = {
    "dimension": Part(
        "a solve for 10 pairs, by D", (10_000, 100_000, 1_000_000, 4_000_000), 1, 1, lambda size: solve(size, 10)
    ),
    "pairs": Part("a solve at D = 100,000, by k", (10, 30, 100, 300, 1000), 2, 1, lambda k: solve(100_000, k)),
    "parameters": Part("products with a network, by its width", (32, 128, 512, 2048), 2, 2, lambda width: multiply(width, 64)),
    "samples": Part(
        "products with a network, by samples", (32, 128, 512, 2048, 4096), 1, 0, lambda count: multiply(128, count)
    ),
}


def slopes(sizes: list[int], values: list[float]) -> tuple[float, float]:
    """Return the exponents between the last two sizes, and over all by least squares.

    >>> [round(slope, 6) for slope in slopes([1, 10, 100], [2.0, 20.0, 2000.0])]
    [2.0, 1.5]
    """
    x, y = [math.log(size) for size in sizes], [math.log(value) for value in values]
    last = (y[-1] - y[-2]) / (x[-1] - x[-2])
    middle, height = sum(x) / len(x), sum(y) / len(y)
    spread = sum((a - middle) ** 2 for a in x)
    return last, sum((a - middle) * (b - height) for a, b in zip(x, y, strict=True)) / spread


def lines(record: dict[str, Any]) -> list[str]:
    """Return the Markdown page."""
    text = [
        "# Growth of time and memory",
        "",
        "Written by `python benchmarks/growth.py`. Processor seconds; one process each.",
        "",
    ]
    text += [described(record["environment"]), ""]
    for name, part in PARTS.items():
        rows = [row for row in record["parts"].get(name, []) if "failed" not in row]
        if len(rows) < 2:
            continue
        text += [f"## {part.title}", "", "| size | seconds | memory above the import, MiB | |", "|---|---|---|---|"]
        for row in rows:
            more = ", ".join(f"{key} {shown(row[key])}" for key in ("parameters", "products", "largest_error") if key in row)
            text.append(f"| {row['size']:,} | {row['seconds']:.3g} | {row['mib']:.0f} | {more} |")
        sizes = [row["size"] for row in rows]
        for what, key, formula in (("Time", "seconds", part.time), ("Memory", "mib", part.memory)):
            last, over_all = slopes(sizes, [max(row[key], 1e-9) for row in rows])
            verdict = "no faster than" if last <= formula + MARGIN else "FASTER than"
            text += [
                "",
                f"{what} grows {verdict} the formula's exponent {formula:g}: {last:.2f} at the end, {over_all:.2f} over all.",
            ]
        text.append("")
    return text


def shown(value: float) -> str:
    """Return a number for the table."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.1e}"


def draw(record: dict[str, Any], path: Path) -> None:
    """Draw times and memory on logarithmic axes, with the slopes of the formulas."""
    figure, axes = plt.subplots(2, len(PARTS), figsize=(3.4 * len(PARTS), 5.6), constrained_layout=True)
    for column, (name, part) in enumerate(PARTS.items()):
        rows = [row for row in record["parts"].get(name, []) if "failed" not in row]
        if not rows:
            continue
        sizes = [row["size"] for row in rows]
        for axis, key, formula in ((axes[0, column], "seconds", part.time), (axes[1, column], "mib", part.memory)):
            axis.loglog(sizes, [row[key] for row in rows], "o-", label="measured")
            end = rows[-1][key]
            axis.loglog(
                sizes, [end * (size / sizes[-1]) ** formula for size in sizes], ":", color="gray", label=f"exponent {formula:g}"
            )
            axis.set_ylabel("processor seconds" if key == "seconds" else "MiB")
            axis.legend(fontsize=7)
        axes[0, column].set_title(part.title, fontsize=9)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def measured(name: str, size: int) -> dict[str, Any]:
    """Measure one size here: peak memory counts from before the work."""
    torch.set_num_threads(1)
    solve(1000, 2) if name in ("dimension", "pairs") else multiply(8, 32)  # what is imported when it is first used
    before = peak_resident_bytes()
    found = PARTS[name].measure(size)
    return {"size": size, **found, "mib": (peak_resident_bytes() - before) / 2**20}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", nargs="*", default=list(PARTS), choices=list(PARTS), help="these parts; the others are kept")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of growth.json, .md and .png")
    parser.add_argument("--measure", nargs=2, metavar=("PART", "SIZE"), help="one size, in this process")
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measured(options.measure[0], int(options.measure[1]))))
        return
    file = options.out / "growth.json"
    record = json.loads(file.read_text()) if file.exists() else {"parts": {}}
    record["environment"] = environment(threads=1)
    for name in options.only:
        rows = [in_own_process(__file__, "--measure", name, str(size), threads=1) for size in PARTS[name].sizes]
        record["parts"][name] = rows
        print(*(f"{name} {row}" for row in rows), sep="\n", flush=True)
        file.write_text(json.dumps(record, indent=1) + "\n")
    (options.out / "growth.md").write_text("\n".join(lines(record)) + "\n")
    draw(record, options.out / "growth.png")


if __name__ == "__main__":
    main()
