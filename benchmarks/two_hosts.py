"""Two hosts, one of which is cut off during the run: does the result stand?

    python benchmarks/two_hosts.py            # as root, about two minutes; skipped where `ip netns` is not permitted

Two network namespaces of this machine stand for two hosts: each has a Dask worker, an address and a cable of its own;
scheduler and solver are outside. The store is a directory that all of them reach. In the middle of each solve the cable of the
second host is pulled, as by a failing switch: nobody is told. Scheduler, workers and solver speak TLS with a certificate of
this run, and a client without it must get no answer. Prints one line of JSON for each solve; the status is 1 if a result is
wrong or a stranger is answered.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import dask
import torch
from distributed import Client

import curvscope as cs
from curvscope.parallel import Credentials
from curvscope.tall import gram

HOSTS = ("curvscope-a", "curvscope-b")
BRIDGE, HEAD, PORT = "curvscope0", "10.211.77.1", 8786
TLS = "distributed.comm.tls."
SIZE, PAIRS = 300_000, 6
SOLVES = {
    "krylov": {"method": "krylov", "block_size": 4, "tol": 1e-5},
    "seigh": {"method": "seigh", "block_size": 2, "max_products": 40},
}


def operator(size: int) -> cs.Operator:
    """Return the operator that both hosts build."""
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
def cluster(folder: Path) -> Iterator[str]:
    """A scheduler here and a worker on each host, with credentials in the folder; gives the scheduler's address."""
    credentials = Credentials(folder)
    files = ["--tls-ca-file", credentials.certificate, "--tls-cert", credentials.certificate, "--tls-key", credentials.key]
    settings = {TLS + name: str(credentials.certificate) for name in ("ca-file", "client.cert")}
    settings |= {TLS + "client.key": str(credentials.key), "distributed.comm.require-encryption": True}
    address, common = f"tls://{HEAD}:{PORT}", ["--no-dashboard", *map(str, files)]
    scheduler = ["distributed.cli.dask_scheduler", "--protocol", "tls", "--host", HEAD, "--port", str(PORT), *common]
    worker = ["distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny", *common]
    commands = [[sys.executable, "-m", *scheduler]]
    commands += [["ip", "netns", "exec", host, sys.executable, "-m", *worker] for host in HOSTS]
    quiet = {
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
        "cwd": Path(__file__).parent,
    }  # finds this module there
    running = [subprocess.Popen(command, **quiet) for command in commands]
    try:
        with dask.config.set(settings):
            wait_until_it_listens()
            yield address
    finally:
        for process in running:
            process.kill()
            process.wait()
        credentials.remove()


def wait_until_it_listens() -> None:
    """Return when the scheduler's port is open; raise TimeoutError after a minute."""
    for _ in range(120):
        with suppress(OSError), socket.create_connection((HEAD, PORT), timeout=1):
            return
        time.sleep(0.5)
    raise TimeoutError("the scheduler did not start")


def strangers_answered() -> list[str]:
    """The schemes by which a client without credentials gets an answer from the scheduler."""
    answered = []
    nothing = {TLS + name: None for name in ("ca-file", "client.cert", "client.key")}
    with dask.config.set(nothing | {"distributed.comm.require-encryption": False}):
        for scheme in ("tcp", "tls"):
            with suppress(Exception), Client(f"{scheme}://{HEAD}:{PORT}", timeout=5) as client:
                client.run_on_scheduler(int)
                answered.append(scheme)
    return answered


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
            tempfile.TemporaryDirectory() as folder,
            cluster(Path(folder)) as address,
            cs.Workers.scheduler(address, grace=5.0) as workers,
        ):
            workers.wait_for(2)
            answered = strangers_answered()
            start = time.perf_counter()
            found = cs.eigsh(H, PAIRS, executor=workers, run=Path(folder) / "run", progress=pulling(16), **options)
            seconds = time.perf_counter() - start
        ip("link", "set", cable(HOSTS[1]), "up")
        values = float((found.eigenvalues - alone.eigenvalues).abs().max() / alone.eigenvalues.abs().max())
        turned = float((gram(found.eigenvectors, alone.eigenvectors).abs().diagonal() - 1).abs().max())
        wrong += values > 1e-5 or turned > 1e-3 or bool(answered)
        facts = {"solve": name, "seconds": round(seconds, 1), "error of values": values, "1 - |cos| of vectors": turned}
        print(
            json.dumps(facts | {"products": found.cost.products, "strangers answered": answered, "status": found.status.code})
        )
    return int(wrong > 0)


if __name__ == "__main__":
    try:
        with network():
            sys.exit(main())
    except (FileNotFoundError, PermissionError, subprocess.CalledProcessError) as error:
        print(f"skipped: network namespaces are not permitted here ({error})")
