"""A solve that is killed again and again, as by kill -9, at moments drawn at random, and finally runs to its end.

    python killed.py RUN SEED KILLS METHOD...

Every session is a fork of this process, which does no work itself: the imports are paid for once. A session dies when its n-th
file is about to be put in its place.
"""

import os
import random
import signal
import sys
from pathlib import Path

import torch

import curvscope as cs

D, K = 3000, 6
SOLVES = {
    "krylov": lambda A, run: cs.eigsh(A, K, method="krylov", tol=1e-6, block_size=3, ncv=24, run=run, progress=False),
    "krylov, long": lambda A, run: cs.eigsh(
        A, K, method="krylov", tol=0, max_products=300, block_size=2, ncv=24, run=run, progress=False
    ),
    "seigh": lambda A, run: cs.seigh(A, num_outer=20, k=K, block_size=4, run=run, progress=False),
    "hmt": lambda A, run: cs.eigsh(A, K, method="hmt", max_products=24, block_size=4, run=run, progress=False),
    "nystrom": lambda A, run: cs.eigsh(A, K, method="nystrom", max_products=24, block_size=4, run=run, progress=False),
    "singlepass": lambda A, run: cs.eigsh(A, K, method="singlepass", max_products=24, block_size=4, run=run, progress=False),
    "ssvd": lambda A, run: cs.ssvd(A, num_outer=12, k=K, block_size=4, run=run, progress=False),
    "exact": lambda A, run: cs.eigsh(A, K, method="exact", run=run, progress=False),
}
MOST_FILES = {"krylov": 20, "ssvd": 25}


def operator(method="krylov"):
    size = 200 if method == "exact" else D
    return cs.problems.spectrum("low_rank_diagonal", size, rank=10, negative=0.3, dtype=torch.float32)


def die_before_file(fatal):
    """Kill this process when it is about to put its n-th file, or matrix, in its place."""
    count, originals = 0, {"replace": Path.replace, "rename": Path.rename}

    def counted(original):
        def put(path, target):
            nonlocal count
            count += 1
            if count == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(path, target)

        return put

    for name, original in originals.items():
        setattr(Path, name, counted(original))


def session(method, run, fatal):
    """One session in a fork; whether it was killed."""
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        die_before_file(fatal)
        SOLVES[method](operator(method), run)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    if os.WEXITSTATUS(status):
        sys.exit(f"{method}: a session failed")
    return False


def main(run, seed, kills, *methods):
    generator = random.Random(int(seed))
    for method in methods:
        died = 0
        while died < int(kills):
            if not session(method, f"{run}/{method}", generator.randint(1, MOST_FILES.get(method, 15))):
                break
            died += 1
        sys.stdout.write(f"{died} {method}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
