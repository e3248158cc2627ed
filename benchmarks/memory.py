"""Bounded memory: solves on disk beside the same solves in memory, plan beside fact, and skerch's HDF5 path on the same work.

    python benchmarks/memory.py solve --size 11689512 --columns 300 --method seigh --memory 4GiB --run FOLDER
    python benchmarks/memory.py solve --size 11689512 --columns 300 --method krylov
    python benchmarks/memory.py plan --target mnist16
    python benchmarks/memory.py plan --size 895210 --columns 150 --method krylov --known 75
    python benchmarks/memory.py skerch --size 895210 --columns 300 --run FOLDER

Each call is one process, so that its peak resident memory is that of the work. It prints one line of JSON; ``--out`` appends
it to a file. The operator is known (problems.spectrum, low rank + diagonal) and its products are cheap, so that what is seen
is the work outside them.
"""

import argparse
import json
import platform
import shutil
import time
from contextlib import contextmanager
from pathlib import Path

import torch

import curvscope as cs
from curvscope.system import peak_resident_bytes
from curvscope.tall import InMemory, OnDisk, orthogonality, orthonormalize

BLOCK = 30


def operator(size, columns):
    """Known spectrum, cheap products."""
    return cs.problems.spectrum("low_rank_diagonal", size, rank=max(4, columns // 3), negative=0.3, dtype=torch.float32)


def solve(arguments):
    """One solve; ``columns`` is the width of the matrix that is orthonormalised: num_outer, or the largest basis."""
    A, columns = operator(arguments.size, arguments.columns), arguments.columns
    where = {"run": arguments.run, "memory": arguments.memory, "progress": False}
    start = time.perf_counter()
    if arguments.method == "seigh":
        inner = arguments.products or 2 * columns
        solution = cs.seigh(A, num_outer=columns, num_inner=inner, k=columns // 3, block_size=arguments.block, **where)
    else:
        block = arguments.block or 16
        solution = cs.eigsh(
            A, columns // 3, method="krylov", ncv=columns - block, block_size=block, max_products=arguments.products, **where
        )
    wall = time.perf_counter() - start
    exact = A.outliers[A.outliers.abs().argsort(descending=True, stable=True)][: solution.k]
    return {
        "wall_s": wall,
        "stages_s": solution.cost.stages,
        "outside_products_s": solution.cost.seconds - solution.cost.stages["products"],
        "products": solution.cost.products + solution.cost.certificate_products,
        "peak_gib": peak_resident_bytes() / 2**30,
        "status": solution.status.code,
        "worst_residual": float(solution.residual_norms.max()),
        "worst_value_error": float((solution.eigenvalues.abs() - exact.abs()).abs().max()),
        "orthogonality": solution.diagnostics["orthogonality"],
        "block_size": solution.provenance["options"]["block_size"],
    }


def plan_and_fact(arguments):
    """Return the planned and the actual cost of one of the targets and methods."""
    if arguments.target == "spectrum":
        A = operator(arguments.size, arguments.columns)
    else:
        problem = cs.problems.get(arguments.target, data=arguments.data)
        A = cs.hessian(problem.model(), problem.criterion, problem.curvature_batches("train"))
    options = {"method": arguments.method, "memory": arguments.memory, "run": arguments.run}
    if arguments.products:
        options |= {"max_products": arguments.products} | ({"tol": 0} if arguments.method == "krylov" else {})
    start = time.perf_counter()
    plan = cs.plan(A, arguments.k, **options, spectrum=A.values[: arguments.known] if arguments.known else None)
    planning = time.perf_counter() - start
    solution = cs.eigsh(A, arguments.k, progress=False, **options)
    compared = plan.compared(solution)
    return {
        "planning_s": planning,
        **{name: {"planned": planned, "actual": actual} for name, (planned, actual) in compared.items()},
        "planned_stages_s": plan[solution.provenance["options"]["method"]].stages,
        "actual_stages_s": solution.cost.stages,
    }


def skerch(arguments):
    """Skerch's HDF5 path: lay out, measure block by block into the subfiles, merge, QR; rows of its arrays are our columns."""
    from skerch.hdf5 import DistributedHDF5Tensor

    size, columns, folder = arguments.size, arguments.columns, Path(arguments.run)
    A, times = operator(size, columns), {"layout": 0.0, "products": 0.0, "measure": 0.0, "merge": 0.0, "QR": 0.0}
    folder.mkdir(parents=True)

    @contextmanager
    def timed(name):
        start = time.perf_counter()
        yield
        times[name] += time.perf_counter() - start

    with timed("layout"):
        whole, parts, ranges = DistributedHDF5Tensor.create(
            str(folder / "outer_{}.h5"), (columns, size), BLOCK, "float32", compression=None
        )
    generator = torch.Generator().manual_seed(0)
    for part, (first, last) in zip(parts, ranges, strict=True):
        with timed("products"):
            product = A @ torch.randn(last - first, size, generator=generator).T
        with timed("measure"):
            data, flags, file = DistributedHDF5Tensor.load(part)
            data[:] = product.T.numpy()
            flags[:] = "done"
            file.close()
    with timed("merge"):
        merged = DistributedHDF5Tensor.merge(whole, compression=None, delete_subfiles_while_merging=True)
    with timed("QR"):
        data, _, file = DistributedHDF5Tensor.load(merged)
        basis = torch.linalg.qr(torch.from_numpy(data[:]).T).Q
        data[:] = basis.T.numpy()
        file.close()
    return {"stages_s": times, "peak_gib": peak_resident_bytes() / 2**30, "orthogonality": orthogonality(InMemory(basis))}


def ours(arguments):
    """The same work in tiles: measure by blocks, orthonormalise panel by panel."""
    size, columns, folder = arguments.size, arguments.columns, Path(arguments.run)
    A, times = operator(size, columns), {"products": 0.0, "measure": 0.0}
    matrix = OnDisk.create(folder / "measured", size, columns, torch.float32)
    generator = torch.Generator().manual_seed(0)
    for first in range(0, columns, BLOCK):
        start = time.perf_counter()
        product = A @ torch.randn(min(BLOCK, columns - first), size, generator=generator).T
        times["products"] += time.perf_counter() - start
        start = time.perf_counter()
        matrix.write(first, product)
        times["measure"] += time.perf_counter() - start
    start = time.perf_counter()
    whole = orthonormalize(matrix)
    times["orthonormalise"] = time.perf_counter() - start
    return {"stages_s": times, "peak_gib": peak_resident_bytes() / 2**30, "orthogonality": whole.orthogonality}


def main():
    """Read the arguments, do the work, print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["solve", "plan", "skerch", "ours"])
    parser.add_argument("--size", type=int, default=11_689_512)
    parser.add_argument("--columns", type=int, default=300)
    parser.add_argument("--method", default="seigh")
    parser.add_argument("--products", type=int)
    parser.add_argument("--block", type=int)
    parser.add_argument("--memory")
    parser.add_argument("--run")
    parser.add_argument("--target", default="spectrum")
    parser.add_argument("--data")
    parser.add_argument("--known", type=int, help="plan: leading eigenvalues that are told, for the target spectrum")
    parser.add_argument("-k", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    work = {"solve": solve, "plan": plan_and_fact, "skerch": skerch, "ours": ours}[arguments.what]
    found = {"asked": vars(arguments) | {"run": bool(arguments.run), "out": None}, **work(arguments)}
    found |= {"torch": torch.__version__, "python": platform.python_version(), "machine": platform.machine()}
    if arguments.run:
        shutil.rmtree(arguments.run, ignore_errors=True)
    print(json.dumps(found))
    if arguments.out:
        with Path(arguments.out).open("a") as stream:
            stream.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
