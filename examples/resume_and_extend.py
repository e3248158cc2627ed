"""A run is a directory: what is interrupted resumes, and more pairs reuse the products that are there."""

import tempfile
from pathlib import Path

import curvscope as cs
from curvscope.errors import Interrupted

problem = cs.problems.get("mnist16")
H = cs.hessian(problem.model(), problem.criterion, problem.curvature_batches())
folder = Path(tempfile.mkdtemp()) / "run"


def impatient(stage: str, done: int, total: int, note: str) -> None:
    """A progress callback that gives up half-way, as Ctrl-C would."""
    if stage == "block Krylov" and done > 60:
        raise KeyboardInterrupt


try:
    cs.eigsh(H, k=30, method="krylov", run=folder, progress=impatient)
except (KeyboardInterrupt, Interrupted) as stopped:
    print("stopped:", type(stopped).__name__)

first = cs.eigsh(H, k=30, method="krylov", run=folder, progress=False)  # the same call resumes
more = cs.eigsh(H, k=40, method="krylov", run=folder, progress=False)  # and so does a larger one
print(f"30 pairs took {first.cost.products} products, 40 pairs {more.cost.products} in all")
print(cs.open(folder))
