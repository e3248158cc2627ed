"""Products, seconds and residuals to an accuracy: our block Krylov beside the eigensolvers people use.

``python benchmarks/accuracy.py PART --data DIR`` (needs SciPy, curvlinops, hessian-eigenthings, PyHessian and skerch) with PART

- mnist16: k = 100 and 350 on the trained 16 x 16-MNIST network, D = 7,030, every method;
- 3c3d: k = 100 on CIFAR-10, D = 895,210, trained 300 steps; tolerances 1e-2 and 1e-3 of |lambda_1|, 1e-3 of each |lambda|;
- large: k = 300 on 3c3d, ours beside ARPACK on our products;
- width: our products and seconds on 3c3d by block width, and the width that is chosen;
- brackets: certified overlaps on mnist16 at steps 0, 100, 1000 beside those of the dense float64 Hessian;
- thousand: k = 1000 on 3c3d (the paper's 500 images with ``--samples 500``), each pair to 1e-2 of its |lambda|, certified;
- synthetic: known spectra; how often each method misses pairs or claims convergence wrongly, over many random problems.

Residuals are measured by us, for all methods alike, with fresh products. A pair is missed if the exact (or the best known) k-th
magnitude is more than 1e-3 above the one reported.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import curvscope as cs
from curvscope.certificates import residual_norms
from curvscope.solvers.sizing import default_width
from curvscope.system import long_work
from curvscope.tall import InMemory
from curvscope.training import train
from eigensolvers import Counted, Found, arpack, curvlinops_product, eigenthings, lobpcg, ours, peers
from machine import environment

RESULTS = Path(__file__).parent / "results"


def row(name: str, make: Callable[[], Counted], solve: Callable[[Counted], Found], judge: Callable[[Found], dict]) -> dict:
    """One method: products, seconds, and what it reached."""
    A = make()
    start = time.perf_counter()
    found = solve(A)
    return finished(name, A, time.perf_counter() - start, found, judge)


def finished(name: str, A: Counted, seconds: float, found: Found, judge: Callable[[Found], dict]) -> dict:
    """The line of a method that has run."""
    line = {"method": name, "products": A.count, "seconds": round(seconds, 2)}
    if hasattr(A, "verified"):
        line |= {"products to verify": A.verified, "seconds without verification": round(A.kept, 2)}
    line |= judge(found) | {"claims": {True: "converged", False: "not converged", None: "nothing"}[found[2]]}
    print(json.dumps(line), flush=True)
    return line


def judged(multiply: Callable[[Tensor], Tensor], exact: Tensor) -> Callable[[Found], dict]:
    """Residuals over |lambda_1| and over each |lambda|, and pairs missed beside the known magnitudes."""

    def judge(found: Found) -> dict:
        values, vectors, _ = found
        order = values.abs().argsort(descending=True)
        values = values[order].double()
        k = len(values)
        reached: dict[str, Any] = {"missed": missed(values, exact)}
        if vectors is not None:
            vectors = torch.as_tensor(vectors)[:, order].contiguous()
            residuals = residual_norms(multiply, values, InMemory(vectors), block_size=8)
            relative = residuals / values.abs()
            reached |= {
                "max / |l1|": f"{float(residuals.max() / values.abs().max()):.1e}",
                "median / |l1|": f"{float(residuals.median() / values.abs().max()):.1e}",
                "max relative": f"{float(relative.max()):.1e}",
                "median relative": f"{float(relative.median()):.1e}",
            }
        return reached | {"k": k}

    return judge


def missed(values: Tensor, exact: Tensor) -> int:
    """Return how many of the k largest magnitudes are not among the reported ones, to 1e-3 of the k-th."""
    rest, count = sorted(values.abs().tolist(), reverse=True), 0
    slack = 1e-3 * float(exact.abs()[len(values) - 1])
    for value in exact.abs()[: len(values)].tolist():
        near = [i for i, other in enumerate(rest) if abs(other - value) <= slack]
        if near:
            rest.pop(near[0])
        else:
            count += 1
    return count


def trained(name: str, data: str, step: int, folder: Path) -> tuple[Any, Any]:
    """A problem and its network trained to a step; kept in ``folder`` for the next time."""
    problem = cs.problems.get(name, data=data)
    model = problem.model()
    file = folder / f"{name}-{step}.pt"
    if file.exists():
        model.load_state_dict(torch.load(file, weights_only=True))
        return problem, model
    recorder = cs.Recorder(model, [step])
    train(problem, model, recorder)
    recorder.load(step, model)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), file)
    return problem, model


def mnist16(data: str, folder: Path) -> list[dict]:
    """Every method on the small network."""
    problem, model = trained("mnist16", data, 1000, folder)
    batches = problem.curvature_batches()
    exact = cs.eigsh(cs.hessian(model, problem.criterion, batches, dtype=torch.float64), k=400, method="exact").eigenvalues
    H = cs.hessian(model, problem.criterion, batches)
    make = lambda: Counted(lambda block: H @ block, H.shape[0], H.dtype)  # noqa: E731
    rows = []
    for k, budget in ((100, 360), (350, 710)):
        judge = judged(lambda block: H @ block, exact)
        rows.append(
            row(
                f"curvscope, {budget} products",
                make,
                lambda A, k=k, budget=budget: ours(A, k, tol=0, max_products=budget),
                judge,
            )
        )
        rows.append(row("curvscope, tol 1e-3", make, lambda A, k=k: ours(A, k, tol=1e-3), judge))
        rows.append(row("ARPACK tol 1e-3", make, lambda A, k=k: arpack(A, k, 1e-3), judge))
        rows += [row(name, make, solve, judge) for name, solve in peers(k, budget, float(exact[0].abs()))]
        rows.append(pyhessian(model, problem.criterion, batches, exact))
    return rows


def brackets(data: str, folder: Path) -> list[dict]:
    """Return what 710 (and 360) float32 products certify on the small network, beside the dense float64 truth.

    Certified twice: with float32 products, and with as many in float64.
    """
    rows = []
    for step in (0, 100, 1000):
        problem, model = trained("mnist16", data, step, folder)
        batches, ranking = problem.curvature_batches(), cs.masks.by_magnitude(model)
        precise = cs.hessian(model, problem.criterion, batches, dtype=torch.float64)
        truth = cs.overlap(cs.eigsh(precise, k=400, method="exact"), ranking).value[:300]
        H = cs.hessian(model, problem.criterion, batches)
        found = cs.eigsh(H, 350, method="krylov", tol=0, max_products=710, progress=False)
        short = cs.eigsh(H, 200, method="krylov", tol=0, max_products=360, progress=False)
        for name, operator in (("float32", H), ("float64", precise)):
            certified = cs.certify(operator, found)
            rows.append(
                {
                    "step": step,
                    "certified in": name,
                    "median relative residual, k <= 350": f"{float(found.relative_residuals.median()):.1e}",
                    "largest, k <= 300": f"{float(found.relative_residuals[:300].max()):.1e}",
                    "360 products: median, k <= 200": f"{float(short.relative_residuals.median()):.1e}",
                    **bracketed(certified, ranking, truth),
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    return rows


def bracketed(certified: cs.Solution, ranking: Any, truth: Tensor) -> dict:
    """The intervals of a certified solution beside the exact overlaps."""
    curve = cs.overlap(certified, ranking)
    lower, upper, value = (x[: len(truth)] for x in (curve.lower, curve.upper, curve.value))
    half = ((upper - lower) / 2 / value)[:200]
    return {
        "true overlap inside, of 300": int(((lower <= truth) & (truth <= upper)).sum()),
        "half-width over overlap, k <= 200: median": f"{float(half.median()):.1e}",
        "largest": f"{float(half.max()):.1e}",
        "above 1% at k": ", ".join(str(k + 1) for k in (half > 0.01).nonzero().flatten().tolist()),
        "pairs certified complete": certified.certificate.complete,
        "products to certify": certified.cost.certificate_products,
    }


def pyhessian(model: Any, criterion: Any, batches: list, exact: Tensor, top: int = 10) -> dict:
    """PyHessian's deflated power iteration with its defaults, for ten pairs: more would take hours."""
    from pyhessian import hessian

    computer = hessian(model, criterion, dataloader=batches, cuda=False)
    counted = {"products": 0}
    plain = computer.dataloader_hv_product

    def product(v: Any) -> Any:
        counted["products"] += 1
        return plain(v)

    computer.dataloader_hv_product = product
    start = time.perf_counter()
    values, _ = computer.eigenvalues(top_n=top)
    seconds = time.perf_counter() - start
    found = torch.tensor(values, dtype=torch.float64)
    line = {"method": "PyHessian, 10 pairs", **counted, "seconds": round(seconds, 2), "missed": missed(found, exact), "k": top}
    line["claims"] = "nothing"
    print(json.dumps(line), flush=True)
    return line


def net_3c3d(data: str, folder: Path, samples: int) -> tuple[Any, Any, list]:
    """3c3d trained 300 steps, and its curvature samples."""
    problem, model = trained("cifar10_3c3d", data, 300, folder)
    x, y = (torch.cat(part) for part in zip(*problem.curvature_batches(), strict=True))
    chosen = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))[:samples]
    return problem, model, [(x[part], y[part]) for part in chosen.split(125)]


def cifar(data: str, folder: Path, samples: int, k: int, only: tuple[str, ...], full: bool) -> list[dict]:
    """Ours, ARPACK on our and on curvlinops' products, and (full) the others at the same number of products."""
    problem, model, batches = net_3c3d(data, folder, samples)
    H = cs.hessian(model, problem.criterion, batches)
    with long_work():
        H @ torch.randn(H.shape[0], 4)
    make = lambda: Counted(lambda block: H @ block, H.shape[0], H.dtype)  # noqa: E731
    width = default_width(k)
    first = make()
    start = time.perf_counter()
    found = ours(first, k, tol=1e-3, block_size=width)
    seconds, best = time.perf_counter() - start, found[0]
    judge = judged(lambda block: H @ block, best)
    rows = [finished(f"curvscope, tol 1e-3 (b = {width})", first, seconds, found, judge)]
    theirs = lambda: Counted(curvlinops_product(model, problem.criterion, batches), H.shape[0], H.dtype)  # noqa: E731
    others: list[tuple[str, Callable[[], Counted], Callable[[Counted], Found]]] = [
        ("ARPACK on our products, tol 1e-2", make, lambda A: arpack(A, k, 1e-2)),
        ("ARPACK on our products, tol 1e-3", make, lambda A: arpack(A, k, 1e-3)),
    ]
    if full:
        others.append(("ARPACK on curvlinops, tol 1e-3", theirs, lambda A: arpack(A, k, 1e-3)))
        others += [(name, make, solve) for name, solve in peers(k, first.count, float(best.abs().max()), iterations=4)]
    rows += [row(*other, judge) for other in others if not only or any(word in other[0] for word in only)]
    return rows


def widths(data: str, folder: Path, samples: int, k: int) -> list[dict]:
    """Our products and seconds by block width."""
    problem, model, batches = net_3c3d(data, folder, samples)
    H = cs.hessian(model, problem.criterion, batches)
    make = lambda: Counted(lambda block: H @ block, H.shape[0], H.dtype)  # noqa: E731
    print("chosen:", default_width(k), "cost of a vector:", H.cost_curve((1, 2, 4, 8, 16)), flush=True)
    rows, best = [], None
    for width in (1, 2, 4, 8, 16):
        A = make()
        start = time.perf_counter()
        found = ours(A, k, tol=1e-3, block_size=width)
        best = found[0] if best is None else best
        rows.append(
            {"method": f"b = {width}", "products": A.count, "seconds": round(time.perf_counter() - start, 2)}
            | {"seconds without verification": round(A.kept, 2)}
            | judged(lambda block: H @ block, best)(found)
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def thousand(data: str, folder: Path, samples: int, k: int) -> list[dict]:
    """Many pairs, and how far they are proven to be the largest."""
    problem, model, batches = net_3c3d(data, folder, samples)
    H = cs.hessian(model, problem.criterion, batches)
    found = cs.eigsh(H, k, method="krylov", tol=1e-2, ncv=int(2.2 * k), progress=_told)
    line = {
        "products": found.cost.products,
        "products to verify": found.cost.certificate_products,
        "seconds": round(found.cost.seconds),
        "stages": {name: round(seconds) for name, seconds in found.cost.stages.items()},
        "peak GiB": round(found.cost.peak_bytes / 2**30, 1),
        "block": found.provenance["options"]["block_size"],
        "restarts": found.diagnostics["restarts"],
        "lambda_1, lambda_k": [float(found.eigenvalues[0]), float(found.eigenvalues[-1])],
        "max / |l1|": f"{float((found.residual_norms / found.eigenvalues.abs().max()).max()):.1e}",
        "max relative": f"{float(found.relative_residuals.max()):.1e}",
        "orthogonality": f"{found.diagnostics['orthogonality']:.1e}",
        "claims": str(found.status),
    }
    print(json.dumps(line), flush=True)
    start = time.perf_counter()
    proven = cs.certify(H, found)
    line |= {
        "pairs certified complete": proven.certificate.complete,
        "tail over |lambda_k|": round(proven.certificate.tail.bound / float(found.eigenvalues[-1].abs()), 4),
        "seconds to certify": round(time.perf_counter() - start),
    }
    print(json.dumps(line), flush=True)
    return [line]


def _told(stage: str, done: int, total: int, note: str) -> None:
    print(f"{stage} {done}/{total} {note}", flush=True) if done % 100 < 20 else None


def synthetic(trials: int) -> list[dict]:
    """Random problems of five kinds: how often a method says that it converged although a pair is wrong or missing."""
    tests = Path(__file__).parents[1] / "tests" / "solvers"
    import sys

    sys.path.insert(0, str(tests))
    from test_claims import random_problem

    k, tol = 8, 1e-4
    methods: dict[str, Callable[[Counted, int], Found]] = {
        "curvscope": lambda A, seed: ours(A, k, tol=tol, block_size=1 + seed % 4, seed=seed, max_products=400),
        "ARPACK": lambda A, seed: arpack(A, k, tol),
        "SciPy lobpcg": lambda A, seed: lobpcg(A, k, tol, A.scale),
        "hessian-eigenthings, its defaults": lambda A, seed: eigenthings(A, k, tol, 2 * k),
        "hessian-eigenthings, 40 steps": lambda A, seed: eigenthings(A, k, tol, 40, reorthogonalize=True),
    }
    tally = {name: {"claimed": 0, "missed a pair": 0, "residual above tol": 0, "failed": 0, "products": 0} for name in methods}
    for seed in range(trials):
        matrix, exact = random_problem(seed)
        unit = torch.finfo(matrix.dtype).eps
        for name, solve in methods.items():
            A = Counted(lambda block: matrix @ block, len(matrix), matrix.dtype)  # noqa: B023
            A.scale = float(exact.abs().max())
            line = tally[name]
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    values, vectors, claim = solve(A, seed)
            except Exception:  # noqa: BLE001  (a peer that breaks down is counted)
                line["failed"] += 1
                continue
            line["products"] += A.count
            if not claim:
                continue
            line["claimed"] += 1
            order = values.abs().argsort(descending=True)[:k]
            values, vectors = values[order].double(), torch.as_tensor(vectors)[:, order].double()
            scale = float(exact.abs().max())
            residuals = (matrix.double() @ vectors - vectors * values).norm(dim=0)
            line["missed a pair"] += int(len(values) < k or bool(((values.abs() - exact[:k].abs()).abs() > 1e-3 * scale).any()))
            line["residual above tol"] += int(bool((residuals > 10 * tol * scale + 20 * unit * scale).any()))
    rows = [{"method": name, "trials": trials, **line} for name, line in tally.items()]
    for line in rows:
        line["products"] = round(line["products"] / trials, 1)
        print(json.dumps(line), flush=True)
    return rows


def table(rows: list[dict]) -> str:
    """As Markdown."""
    columns = list(dict.fromkeys(name for line in rows for name in line))
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(str(line.get(name, "")) for name in columns) + " |" for line in rows]
    return "\n".join(lines)


def main() -> None:
    """Run one part, print it, keep it in ``benchmarks/results``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["mnist16", "3c3d", "large", "width", "brackets", "thousand", "synthetic"])
    parser.add_argument("--data", default=None, help="folder with MNIST/raw and CIFAR-10")
    parser.add_argument("--samples", type=int, default=125, help="images of the curvature on 3c3d (the paper: 500)")
    parser.add_argument("-k", type=int, default=None)
    parser.add_argument("--only", nargs="*", default=[], help="3c3d and large: peers whose name has one of these words in it")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"), help="where trained networks are kept")
    parser.add_argument("--out", type=Path, default=RESULTS)
    a = parser.parse_args()
    if a.part == "synthetic":
        rows = synthetic(a.trials)
    elif a.part == "mnist16":
        rows = mnist16(a.data, a.checkpoints)
    elif a.part == "brackets":
        rows = brackets(a.data, a.checkpoints)
    elif a.part == "thousand":
        rows = thousand(a.data, a.checkpoints, a.samples, a.k or 1000)
    elif a.part == "width":
        rows = widths(a.data, a.checkpoints, a.samples, a.k or 100)
    else:
        full = a.part == "3c3d"
        rows = cifar(a.data, a.checkpoints, a.samples, a.k or (100 if full else 300), tuple(a.only), full)
    settings = {
        "part": a.part,
        "samples": a.samples,
        "k": a.k,
        **environment(("scipy", "curvlinops-for-pytorch", "hessian-eigenthings", "pyhessian", "skerch")),
    }
    a.out.mkdir(parents=True, exist_ok=True)
    (a.out / f"accuracy-{a.part}.json").write_text(json.dumps({"settings": settings, "rows": rows}, indent=1) + "\n")
    text = f"# {a.part}\n\n{json.dumps(settings)}\n\n{table(rows)}\n"
    (a.out / f"accuracy-{a.part}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
