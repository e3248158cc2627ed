"""Products of one matrix by several processes of a group, beside one process: seconds, and how many times as fast.

    python benchmarks/process_groups.py --only 3c3d GPT --columns 16

Each process has one thread. The data of the workload are dealt out by mini-batches, pieces of them where there are too few. The
rounds of one process and of several alternate; medians of them. Writes benchmarks/results/process-groups.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import curvscope as cs
from machine import cpu
from products import load

RESULT = Path(__file__).parent / "results" / "process-groups.md"


def member(name: str, columns: int, repeats: int) -> None:
    """Multiply in one process of the group; process 0 prints the seconds of each block, the first one left out."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    model, criterion, batches = load(name)
    pieces = [(x[part::2], y[part::2]) for x, y in batches for part in (0, 1)]
    H = cs.hessian(model, criterion, pieces[rank::size], group="world", strategy="split")
    block = torch.randn(H.shape[0], columns, generator=torch.Generator().manual_seed(0))
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        product = H @ block
        seconds.append(time.perf_counter() - start)
    if rank == 0:
        print(json.dumps({"seconds": seconds[1:], "norm": float(product.norm())}))
    dist.destroy_process_group()


def run(name: str, processes: int, columns: int, repeats: int) -> Any:
    """One round: what process 0 of so many found."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    command = [*launcher, "--nproc-per-node", str(processes), __file__, "--member", name]
    done = subprocess.run(
        [*command, "--columns", str(columns), "--repeats", str(repeats)], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=["3c3d", "GPT"])
    parser.add_argument("--columns", type=int, default=16)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--member", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.member:
        member(asked.member, asked.columns, asked.repeats)
        return
    rows = [f"| network | one process, s | {asked.processes} processes, s | times as fast | relative difference of norms |"]
    rows += ["| --- | --- | --- | --- | --- |"]
    for name in asked.only:
        rounds = [
            [run(name, processes, asked.columns, asked.repeats) for processes in (1, asked.processes)]
            for _ in range(asked.rounds)
        ]
        alone, together = (statistics.median(s for pair in rounds for s in pair[i]["seconds"]) for i in (0, 1))
        difference = abs(rounds[0][1]["norm"] / rounds[0][0]["norm"] - 1)
        rows.append(f"| {name} | {alone:.2f} | {together:.2f} | {alone / together:.2f} | {difference:.0e} |")
        print(rows[-1], flush=True)
    about = (
        f"A block of {asked.columns} Hessian products by processes of one thread each, over gloo: medians of "
        f"{asked.rounds} rounds of {asked.repeats} (`python benchmarks/process_groups.py`); {cpu()}, "
        f"{os.cpu_count()} cores, PyTorch {torch.__version__}."
    )
    RESULT.write_text("\n".join(["# Process groups", "", about, "", *rows, ""]))


if __name__ == "__main__":
    main()
