"""Two hosts, one of which is cut off during the run: does the result stand?

    python benchmarks/two_hosts.py            # as root, about two minutes; skipped where `ip netns` is not permitted

Two network namespaces of this machine stand for two hosts: each has a Dask worker, an address and a cable of its own;
scheduler and solver are outside. The store is a directory that all of them reach. In the middle of each solve the cable of the
second host is pulled, as by a failing switch: nobody is told. Prints one line of JSON for each solve; the status is 1 if a
result is wrong.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

import curvscope as cs
from curvscope.tall import gram

HOSTS = ("curvscope-a", "curvscope-b")
BRIDGE, HEAD, PORT = "curvscope0", "10.211.77.1", 8786
SIZE, PAIRS = 300_000, 6
SOLVES = {
    "krylov": {"method": "krylov", "block_size": 4, "tol": 1e-5},
    "seigh": {"method": "seigh", "block_size": 2, "max_products": 40},
}


def operator(size: int) -> cs.Operator:
    """What both hosts build."""
    return cs.problems.spectrum("low_rank_diagonal", size, rank=12, negative=0.3, dtype=torch.float32)


def ip(*arguments: str) -> None:
    """Run ``ip``."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def cable(host: str) -> str:
    """The end of a host's cable that is in the bridge."""
    return f"cv{host[-1]}0"


@contextmanager
def network() -> Iterator[None]:
    """A bridge, and a namespace with an address on it for each host."""
    try:
        ip("link", "add", BRIDGE, "type", "bridge")
        ip("addr", "add", f"{HEAD}/24", "dev", BRIDGE)
        ip("link", "set", BRIDGE, "up")
        for number, host in enumerate(HOSTS):
            ip("netns", "add", host)
            ip("link", "add", cable(host), "type", "veth", "peer", "name", "eth0", "netns", host)
            ip("link", "set", cable(host), "master", BRIDGE, "up")
            ip("-n", host, "addr", "add", f"10.211.77.{number + 2}/24", "dev", "eth0")
            for device in ("eth0", "lo"):
                ip("-n", host, "link", "set", device, "up")
        yield
    finally:
        for command in (*(("netns", "del", host) for host in HOSTS), ("link", "del", BRIDGE)):
            with suppress(subprocess.CalledProcessError):
                ip(*command)


@contextmanager
def dask() -> Iterator[str]:
    """A scheduler here and a worker on each host; gives the scheduler's address."""
    address, quiet = f"tcp://{HEAD}:{PORT}", ["--no-dashboard"]
    scheduler = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", HEAD, "--port", str(PORT), *quiet]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny", *quiet]
    commands = [scheduler, *(["ip", "netns", "exec", host, *worker] for host in HOSTS)]
    running = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for command in commands]
    try:
        yield address
    finally:
        for process in running:
            process.kill()
            process.wait()


def pulling(after: int) -> Callable[..., None]:
    """A progress callback that pulls the second host's cable after so many products."""
    pulled = []

    def progress(stage: str, done: int, total: int, note: str) -> None:
        if done >= after and not pulled:
            pulled.append(time.perf_counter())
            ip("link", "set", cable(HOSTS[1]), "down")

    return progress


def main() -> int:
    """Solve, pull, compare."""
    wrong = 0
    recipe = cs.Recipe("two_hosts:operator", size=SIZE)
    H = recipe.build()
    for name, options in SOLVES.items():
        alone = cs.eigsh(H, PAIRS, progress=False, **options)
        with (
            dask() as address,
            tempfile.TemporaryDirectory() as folder,
            cs.Workers.scheduler(address, grace=5.0) as workers,
        ):
            workers.wait_for(2)
            start = time.perf_counter()
            found = cs.eigsh(H, PAIRS, executor=workers, run=Path(folder) / "run", progress=pulling(16), **options)
            seconds = time.perf_counter() - start
        ip("link", "set", cable(HOSTS[1]), "up")
        values = float((found.eigenvalues - alone.eigenvalues).abs().max() / alone.eigenvalues.abs().max())
        turned = float((gram(found.eigenvectors, alone.eigenvectors).abs().diagonal() - 1).abs().max())
        wrong += values > 1e-5 or turned > 1e-3
        facts = {"solve": name, "seconds": round(seconds, 1), "error of values": values, "1 - |cos| of vectors": turned}
        print(json.dumps(facts | {"products": found.cost.products, "status": found.status.code}))
    return int(wrong > 0)


if __name__ == "__main__":
    try:
        with network():
            sys.exit(main())
    except (FileNotFoundError, PermissionError, subprocess.CalledProcessError) as error:
        print(f"skipped: network namespaces are not permitted here ({error})")
