"""What a benchmark says of the machine that it ran on, and measurements in processes of their own."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

CPU_FACTS = Path("/proc/cpuinfo")


def environment(packages: Sequence[str] = (), threads: int | None = None) -> dict[str, Any]:
    """Return processor, cores, threads, load and versions: of Python, PyTorch, this library and further packages."""
    versions = {"python": platform.python_version()}
    for package in ("torch", "curvscope", *packages):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    threads = torch.get_num_threads() if threads is None else threads
    return {"cpu": cpu(), "cores": os.cpu_count(), "threads": threads, "load": os.getloadavg()[0], "versions": versions}


def cpu() -> str:
    """Return the processor's name."""
    lines = CPU_FACTS.read_text().splitlines() if CPU_FACTS.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def described(found: dict[str, Any]) -> str:
    """Return an environment as a sentence."""
    versions = ", ".join(f"{package} {number}" for package, number in found["versions"].items())
    return f"{found['cpu']}, {found['cores']} cores, {found['threads']} thread(s), load {found['load']:.1f} before; {versions}."


def in_own_process(script: str, *arguments: str, threads: int) -> Any:
    """Return what a script prints as JSON in its last line, run with so many threads; {"failed": why} where it fails."""
    count = str(threads)
    variables = {**os.environ, "OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count}
    command = [sys.executable, "-W", "ignore", script, *arguments]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1][:200]}
    return json.loads(done.stdout.strip().splitlines()[-1])
