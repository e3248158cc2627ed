"""Commands under torchrun: process 0 runs the command, the others multiply with their parts of the data."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Variables that torchrun sets, and Slurm's users by themselves."""


def is_launched() -> bool:
    """Return whether this process is one of several that a launcher started."""
    return all(name in os.environ for name in NEEDED) and os.environ["WORLD_SIZE"] not in ("", "0", "1")


def run_in_all(command: Callable[[], None]) -> int:
    """Run a command in process 0, with all processes for its products; return the exit status, 0 in the others.

    Cost: the command's folder is written by process 0 alone, and nothing is printed elsewhere.
    """
    import torch
    import torch.distributed as dist

    from curvscope.operators.collective import Processes
    from curvscope.runs import built_in_all

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    dist.init_process_group(backend=None if torch.cuda.is_available() else "gloo")

    def status() -> int:
        """Run it, to its exit status."""
        try:
            command()
        except SystemExit as ended:
            return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        return 0

    processes = Processes.of("world")
    if processes.rank:
        logging.getLogger("curvscope").setLevel(logging.ERROR)  # what is to be said process 0 says
    try:
        with built_in_all(processes):
            found = processes.lead(status)
    finally:
        dist.destroy_process_group()
    return 0 if processes.rank else found
