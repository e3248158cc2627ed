"""Our sketched decompositions beside skerch's and scikit-learn's, on the same operators and with as many products.

``python benchmarks/sketches.py accuracy cost core [mnist16 --data DIR --reference FILE] --out benchmarks/results``
(needs skerch and scikit-learn). accuracy: errors on known spectra, 5 seeds; cost: CPU seconds outside the products and peak
memory at D = 1,000,000, each library in a process of its own; core: the left inner matrix at D = 1,000,000; mnist16: overlap
curves on the reference Hessians. Writes sketches-PART.json and sketches-PART.md for each part, and a figure of the accuracy.
Seconds are CPU seconds, which other load does not change much: run with OMP_NUM_THREADS=1 MKL_NUM_THREADS=1.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

import curvscope as cs
from curvscope.operators.base import Operator
from curvscope.problems import spectrum
from curvscope.sketches import TestMatrix
from curvscope.solvers import hmt, nystrom, singlepass
from curvscope.tall import InMemory, orthonormalize
from machine import described, environment

D, PRODUCTS, TOP, SEEDS = 1000, 120, 10, range(5)
SPECTRA = {
    "low rank + noise": {"kind": "low_rank_noise", "noise": 0.01},
    "power 1": {"kind": "power", "decay": 1.0},
    "power 2": {"kind": "power", "decay": 2.0},
    "exponential 0.1": {"kind": "exponential", "decay": 0.1},
    "exponential 0.5": {"kind": "exponential", "decay": 0.5},
    "clusters": {"kind": "clusters", "decay": 0.02},
    "plus/minus": {"kind": "plus_minus", "decay": 0.02},
    "power 1, 40 % negative": {"kind": "power", "decay": 1.0, "negative": 0.4},
    "low rank + diagonal": {"kind": "low_rank_diagonal", "noise": 0.01},
}


def patched_skerch():
    """Version 1.2, whose ``htr`` raises TypeError on real tensors with torch 2.15; conjugated instead."""
    import skerch.algorithms
    import skerch.utils

    def htr(x, in_place=False):
        x = x.transpose(0, -1)
        return x.conj_physical_() if in_place and x.is_complex() else x.conj().clone()

    original = skerch.utils.htr
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("skerch") and getattr(module, "htr", None) is original:
            module.htr = htr
    return sys.modules["skerch.algorithms"]


class Timed:
    """An operator for skerch: products on blocks from both sides, timed and counted."""

    def __init__(self, operator: Operator):
        self.operator, self.shape, self.seconds, self.products = operator, operator.shape, 0.0, 0

    def _call(self, apply, block):
        start = time.process_time()
        result = apply(block) if block.ndim == 2 else apply(block[:, None])[:, 0]
        self.products += 1 if block.ndim == 1 else block.shape[1]
        self.seconds += time.process_time() - start
        return result

    def __matmul__(self, block):
        return self._call(self.operator.__matmul__, block)

    def __rmatmul__(self, block):
        return self._call(self.operator.adjoint_matmul, block.mH).mH


def errors(A, U, s, V, matrix) -> dict[str, float]:
    """Of the TOP values (relative to the largest), of their space (1 - overlap) and in the Frobenius norm (relative)."""
    order = s.abs().argsort(descending=True)
    U, s, V = U[:, order], s[order], V[:, order]
    exact = A.exact_eigenvectors(TOP).to_tensor()
    true = A.values[:TOP].sort().values
    return {
        "values": float((s[:TOP].sort().values - true).abs().max() / A.values.abs().max()),
        "space": 1 - float((exact.mH @ U[:, :TOP]).abs().square().sum()) / TOP,
        "frobenius": float((matrix - (U * s) @ V.mH).norm() / matrix.norm()),
    }


def hermitian_methods(algorithms, A, matrix, seed):
    """(library, method) -> factors, all for PRODUCTS products."""
    half = PRODUCTS // 2

    def ours(solution):
        assert solution.cost.products <= PRODUCTS, solution.cost.products
        V = solution.eigenvectors.to_tensor()
        return V, solution.eigenvalues, V

    def theirs(outer, recovery):
        timed = Timed(A)
        values, V = algorithms.seigh(timed, "cpu", A.dtype, outer, seed * 100_000, "gaussian", recovery, meas_blocksize=32)
        assert timed.products <= PRODUCTS, timed.products
        return V, values, V

    third = PRODUCTS // 3
    yield ("curvscope", "hmt"), lambda: ours(hmt(A, num_outer=half, seed=seed))
    yield ("skerch", "hmt"), lambda: theirs(half, "hmt")
    yield ("curvscope", "nystrom"), lambda: ours(nystrom(A, num_outer=PRODUCTS, seed=seed))
    yield ("skerch", "nystrom"), lambda: theirs(PRODUCTS, "nystrom")
    yield (
        ("curvscope", "singlepass"),
        lambda: ours(singlepass(A, num_products=PRODUCTS, seed=seed)),
    )
    yield ("skerch", "singlepass"), lambda: theirs(PRODUCTS, "singlepass")
    yield ("curvscope", "oversampled"), lambda: ours(cs.seigh(A, **cs.sizes_for_products(PRODUCTS)._asdict(), seed=seed))
    yield ("skerch", "oversampled"), lambda: theirs(third, f"oversampled_{2 * third}")


def singular_methods(algorithms, A, matrix, seed):
    """As hermitian_methods, for the SVD of a rectangular operator."""
    from sklearn.utils.extmath import randomized_svd

    half, third = PRODUCTS // 2, PRODUCTS // 3

    def ours(solution):
        assert solution.cost.products <= PRODUCTS, solution.cost.products
        return solution.U.to_tensor(), solution.S, solution.V.to_tensor()

    def theirs(outer, recovery):
        timed = Timed(A)
        U, s, Vh = algorithms.ssvd(timed, "cpu", A.dtype, outer, seed * 100_000, "gaussian", recovery, meas_blocksize=32)
        assert timed.products <= PRODUCTS, timed.products
        return U, s, Vh.mH

    def sklearns():
        U, s, Vh = randomized_svd(matrix.numpy(), n_components=half, n_oversamples=0, n_iter=0, random_state=seed)
        return torch.from_numpy(U), torch.from_numpy(s), torch.from_numpy(Vh).mH

    nystrom_sizes = {"num_outer": half, "num_inner": half}
    inner = {"num_outer": third, "num_inner": PRODUCTS - third}
    yield ("curvscope", "hmt"), lambda: ours(cs.ssvd(A, num_outer=half, method="hmt", seed=seed))
    yield ("skerch", "hmt"), lambda: theirs(half, "hmt")
    yield ("scikit-learn", "hmt"), sklearns
    yield ("curvscope", "nystrom"), lambda: ours(cs.ssvd(A, method="nystrom", seed=seed, **nystrom_sizes))
    yield ("skerch", "nystrom"), lambda: theirs(half, "nystrom")
    yield ("skerch", "singlepass"), lambda: theirs(half, "singlepass")
    yield ("curvscope", "oversampled"), lambda: ours(cs.ssvd(A, seed=seed, **inner))
    yield ("skerch", "oversampled"), lambda: theirs(third - 10, f"oversampled_{PRODUCTS - 2 * (third - 10)}")


def accuracy() -> list[dict]:
    """Medians and ranges over the seeds, for every spectrum and method."""
    algorithms = patched_skerch()
    rows = []
    for name, options in SPECTRA.items():
        kinds = {"eigh": (spectrum(**options, size=D), hermitian_methods)}
        if "negative" not in options and "diagonal" not in options["kind"]:
            kinds["svd"] = (spectrum(**options, size=D, columns=D // 2), singular_methods)
        for problem, (A, methods) in kinds.items():
            matrix = A @ torch.eye(A.shape[1], dtype=A.dtype)
            found: dict = {}
            for seed in SEEDS:
                for key, solve in methods(algorithms, A, matrix, seed):
                    found.setdefault(key, []).append(errors(A, *solve(), matrix))
            for (library, method), samples in found.items():
                row = {"problem": problem, "spectrum": name, "library": library, "method": method}
                for what in samples[0]:
                    numbers = [sample[what] for sample in samples]
                    row[what] = statistics.median(numbers)
                    row[f"{what} range"] = [min(numbers), max(numbers)]
                rows.append(row)
            print(problem, name, flush=True)
    return rows


class Decaying(Operator):
    """diag(1, 1/2, 1/3, ...): products that cost next to nothing."""

    def __init__(self, size):
        self.shape, self.dtype, self.device, self.hermitian = (size, size), torch.float32, torch.device("cpu"), True
        self.diagonal = 1 / torch.arange(1, size + 1, dtype=torch.float32)
        self.seconds = 0.0

    def _apply(self, block):
        start = time.process_time()
        product = block * self.diagonal[:, None]
        self.seconds += time.process_time() - start
        return product

    def _fingerprint(self):
        return f"decaying {len(self.diagonal)}"


def one_cost(library: str, size: int, num_outer: int, num_inner: int) -> dict:
    """Seconds outside the products and peak memory of one solve, in this process."""
    A = Decaying(size)
    if library == "curvscope":
        start = time.process_time()
        solution = cs.seigh(A, num_outer=num_outer, num_inner=num_inner, k=1, block_size=32)
        seconds = {"all": time.process_time() - start, "products": A.seconds}
        products = solution.cost.products + solution.cost.certificate_products
    else:
        algorithms, timed = patched_skerch(), Timed(A)
        start = time.process_time()
        noise, recovery = library.split()[1], f"oversampled_{num_inner}"
        algorithms.seigh(timed, "cpu", A.dtype, num_outer, 0, noise, recovery, meas_blocksize=32)
        seconds = {"all": time.process_time() - start, "products": timed.seconds}
        products = timed.products
    outside = seconds["all"] - seconds["products"]
    # Not ru_maxrss, which a child process inherits from its parent.
    status = Path("/proc/self/status").read_text()
    peak = 1024 * int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
    return {"library": library, "D": size, "products": products, "CPU seconds outside products": outside, "peak bytes": peak}


def cost(size: int, repeats: int) -> list[dict]:
    """Each library in a process of its own, the repeats interleaved; medians."""
    libraries = ["curvscope", "skerch gaussian"]
    found: dict = {library: [] for library in libraries}
    for _ in range(repeats):
        for library in libraries:
            command = [sys.executable, __file__, "one-cost", "--library", library, "--size", str(size)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[library].append(json.loads(done.stdout.splitlines()[-1]))
            print(found[library][-1], flush=True)
    rows = []
    for runs in found.values():
        seconds = [run["CPU seconds outside products"] for run in runs]
        rows.append(
            runs[0] | {"CPU seconds outside products": statistics.median(seconds), "range": [min(seconds), max(seconds)]}
        )
    return rows


def core(size: int, num_outer: int = 500, num_inner: int = 1000) -> list[dict]:
    """Applying the left inner matrix to Q, beside orthonormalising Q and beside a stored Gaussian matrix."""
    Q = InMemory.empty(size, num_outer, torch.float32, torch.device("cpu"))
    Q.tensor.normal_(generator=torch.Generator().manual_seed(0))
    stored = torch.randn(num_inner, 50_000)
    psi = TestMatrix("sparse_sign", size, seed=0, role="left")

    def seconds(action):
        start = time.process_time()
        action()
        return time.process_time() - start

    def dense():
        total = torch.zeros(num_inner, num_outer)
        for start in range(0, size, 50_000):
            rows = Q.tensor[start : start + 50_000]
            total += stored[:, : len(rows)] @ rows

    found = {"sparse sign": [], "stored Gaussian": [], "orthonormalisation": []}
    for _ in range(3):
        found["sparse sign"].append(seconds(lambda: psi.adjoint_multiply(Q, 0, num_inner)))
        found["stored Gaussian"].append(seconds(dense))
    found["orthonormalisation"].append(seconds(lambda: orthonormalize(Q)))
    return [
        {"what": what, "D": size, "num_outer": num_outer, "num_inner": num_inner, "CPU seconds": statistics.median(s), "all": s}
        for what, s in found.items()
    ]


def mnist16(data: str, reference: Path) -> list[dict]:
    """Largest and mean |sketched - exact| overlap, k = 1..355, of the paper's curve and of ours over 5 seeds."""
    from curvscope.training import train

    published = json.loads(reference.read_text())["steps"]
    problem = cs.problems.get("mnist16", data=data)
    model = problem.model()
    recorder = cs.Recorder(model, problem.defaults.steps)
    train(problem, model, recorder)
    rows = []
    for step in problem.defaults.steps:
        recorder.load(step, model)
        H = dense(cs.hessian(model, problem.criterion, problem.curvature_batches("train")))
        ranking = cs.masks.by_magnitude(model)
        exact = torch.tensor(published[str(step)]["train"]["exact_overlap_k1_to_1500_recomputed"][:355], dtype=torch.float64)
        theirs = torch.tensor(published[str(step)]["train"]["sketched_overlap_k1_to_355"], dtype=torch.float64)
        rows.append({"step": step, "curve": "paper", **deviation(theirs, exact)})
        curves = {
            "seigh": lambda seed: cs.seigh(H, num_outer=355, num_inner=710, seed=seed),  # noqa: B023
            "seigh, sizes_for_products": lambda seed: cs.seigh(H, **cs.sizes_for_products(710)._asdict(), seed=seed),  # noqa: B023
            "seigh, ssrft": lambda seed: cs.seigh(H, num_outer=355, num_inner=710, sketch="ssrft", seed=seed),  # noqa: B023
            "seigh, core published": lambda seed: cs.seigh(H, num_outer=355, num_inner=710, core="published", seed=seed),  # noqa: B023
            "singlepass": lambda seed: cs.eigsh(H, 355, method="singlepass", max_products=710, seed=seed),  # noqa: B023
        }
        for name, solve in curves.items():
            found = [deviation(cs.overlap(solve(seed), ranking).value[: len(exact)], exact) for seed in SEEDS]
            row = {"step": step, "curve": f"{name}, median of {len(found)} seeds"}
            for what in found[0]:
                numbers = [one[what] for one in found]
                row |= {what: statistics.median(numbers), f"{what} range": [min(numbers), max(numbers)]}
            rows.append(row)
            print(row, flush=True)
    return rows


def dense(operator) -> torch.Tensor:
    """The matrix itself, formed once, so that many sketches of it are cheap."""
    size = operator.shape[0]
    matrix = torch.empty(size, size)
    for start in range(0, size, 64):
        stop = min(start + 64, size)
        block = torch.zeros(size, stop - start)
        block[start:stop] = torch.eye(stop - start)
        matrix[:, start:stop] = operator @ block
    return (matrix + matrix.T) / 2


def deviation(curve, exact) -> dict[str, float]:
    """Of an overlap curve from the exact one, for k from 10 on also relative."""
    gap = (curve - exact).abs()
    return {"max": float(gap.max()), "mean": float(gap.mean()), "max relative, k >= 10": float((gap / exact)[9:].max())}


def table(rows: list[dict]) -> str:
    """Rows of plain values as markdown."""
    heads = [head for head, value in rows[0].items() if not isinstance(value, list)]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for row in rows:
        cells = [f"{row[head]:.3g}" if isinstance(row[head], float) else str(row[head]) for head in heads]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(rows: list[dict], path: Path) -> None:
    """Frobenius errors of the Hermitian problems: one group a spectrum, median and range."""
    from curvscope.report import CYCLE, figure

    rows = [row for row in rows if row["problem"] == "eigh"]
    names = list(dict.fromkeys(row["spectrum"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    with figure(width=9.5, height=4.2) as (sheet, (axes,)):
        for row in rows:
            column = methods.index(row["method"])
            place = names.index(row["spectrum"]) + 0.19 * (column - 1.5) + (0.04 if row["library"] == "skerch" else -0.04)
            low, high = row["frobenius range"]
            mine = row["library"] == "curvscope"
            axes.plot([place, place], [low, high], color=CYCLE[column], linewidth=1)
            axes.plot(place, row["frobenius"], "o" if mine else "x", color=CYCLE[column], markersize=5)
        for column, method in enumerate(methods):
            axes.plot([], [], "o", color=CYCLE[column], label=f"{method} (o curvscope, x skerch)")
        axes.set(yscale="log", ylabel=f"relative Frobenius error, {PRODUCTS} products")
        axes.set_xticks(range(len(names)), names, rotation=20, ha="right")
        axes.legend(ncols=2, fontsize=8)
    sheet.savefig(path, dpi=110)


def main() -> None:
    """Run the parts asked for, then write everything there is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="+", choices=["accuracy", "cost", "core", "mnist16", "one-cost"])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--size", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--library")
    parser.add_argument("--data")
    parser.add_argument("--reference", type=Path)
    arguments = parser.parse_args()
    if arguments.parts == ["one-cost"]:
        print(json.dumps(one_cost(arguments.library, arguments.size, 200, 400)))
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    for part in arguments.parts:
        match part:
            case "accuracy":
                rows = accuracy()
                draw(rows, arguments.out / "sketches-accuracy.png")
            case "cost":
                rows = cost(arguments.size, arguments.repeats)
            case "core":
                rows = core(arguments.size)
            case _:
                rows = mnist16(arguments.data, arguments.reference)
        facts = {"environment": environment(("numpy", "skerch", "scikit-learn")), "rows": rows}
        (arguments.out / f"sketches-{part}.json").write_text(json.dumps(facts, indent=1))
        facts = described(environment(("numpy", "skerch", "scikit-learn")))
        (arguments.out / f"sketches-{part}.md").write_text(f"{facts}\n\n{table(rows)}\n")


if __name__ == "__main__":
    main()
