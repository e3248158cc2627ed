"""Products by the workers of a Dask cluster, here two processes of this machine, and a run that resumes without them.

A network this small is done sooner alone. For a cluster that runs already put its address into the client, ``Client("tcp://...")``,
and see that this file can be imported where the workers are.
"""

import tempfile
from pathlib import Path

from distributed import Client

import curvscope as cs


def make(split: str) -> tuple:
    """Return (model, loss, data); a worker calls it once to have the operator."""
    problem = cs.problems.get("mnist16")
    return problem.model(), problem.criterion, problem.curvature_batches(split)


if __name__ == "__main__":  # the workers import this file, too
    H = cs.Recipe("dask_cluster:make", split="train").build()
    folder = Path(tempfile.mkdtemp()) / "run"
    with Client(n_workers=2, threads_per_worker=1, dashboard_address=":0") as client:
        shared = cs.eigsh(H, k=10, run=folder, executor=client, progress=False)
    print("with two workers:", shared.status)
    more = cs.eigsh(H, k=15, run=folder, progress=False)  # the same run, in this process
    print("more pairs, alone:", more.status)
    alone = cs.eigsh(H, k=10, progress=False)
    difference = float((alone.eigenvalues - shared.eigenvalues).abs().max() / alone.eigenvalues.abs().max())
    print(f"without any worker the eigenvalues differ by {difference:.0e} of the largest")
