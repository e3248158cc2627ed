"""What a Tracker finds along mnist16, at how many products and training steps a check, against eigenpairs to 1e-6.

``python benchmarks/tracking.py [--k 10] [--every 100] [--steps 1000] [--max-products N] [--seed N] [--starts]
--out benchmarks/results`` trains the packaged problem (with --seed from other initial parameters, in another order) and checks
along the way; tracking.json and tracking.md. "Fewest" are the products after which a Lanczos run, from the check's own start or
from a random vector, has all k values within 1e-3 for good: no stopping rule can go below. With --starts other starts beside
these (see :func:`starts`), and "of the largest": errors in units of the largest eigenvalue; tracking-starts.json and .md.
Training steps a check are wall time: run alone.
"""

import argparse
import json
from pathlib import Path

import torch

import curvscope as cs
from curvscope.measurement import Meter
from curvscope.operators.base import Operator
from curvscope.solvers import EigenProblem, Krylov, krylov_options
from curvscope.solvers.krylov import Expansion

MOST, TOL = 60, 1e-3


def fewest(H: Operator, start: torch.Tensor, exact: torch.Tensor, scale: torch.Tensor | None = None) -> int:
    """Products after which a Lanczos run from ``start`` has these eigenvalues within TOL (of ``scale``), and keeps them."""
    k, scale = len(exact), exact if scale is None else scale
    options = krylov_options(EigenProblem(H, k, tol=TOL), Krylov(MOST + 1, 1, MOST))
    expansion, meter, wrong = Expansion(H, options, start), Meter(H, False), 0
    while expansion.affordable(meter) and not expansion.exhausted:
        expansion.step(meter)
        values = expansion.ritz()[0]
        if len(values) < k or float(((values - exact) / scale).abs().max()) > TOL:
            wrong = meter.products
    return wrong + 1


def starts(
    H: Operator,
    warm: torch.Tensor,
    random: torch.Tensor,
    last: cs.Solution,
    moved: torch.Tensor,
    data: list,
    criterion: object,
    k: int,
) -> dict[str, torch.Tensor]:
    """Starts that know something else: of the last check, where the parameters went, gradients, those of single classes.

    "A tenth of the data" are the samples whose predictions are least certain; 60 products with them cost 6 with all.
    """
    model, (x, y) = H.objective.model, data[0]
    gradients = torch.stack([cs.Objective(model, criterion, [(x[y == c], y[y == c])]).gradient() for c in y.unique()], dim=1)
    left, sizes, _ = torch.linalg.svd(gradients, full_matrices=False)
    more = last.eigenvectors.to_tensor() @ (1 / last.eigenvalues.abs()).to(last.eigenvectors.dtype)
    with torch.no_grad():
        hardest = model(x).softmax(dim=1).square().sum(dim=1).argsort()[: len(x) // 10]
    tenth, start = cs.hessian(model, criterion, [(x[hardest], y[hardest])]), warm[:, None] + 0.1 * unit(random)
    top = cs.eigsh(tenth, k, method="krylov", v0=start, block_size=1, ncv=61, max_products=60, tol=0, preflight=False)
    part = top.eigenvectors.to_tensor() @ (1 / top.eigenvalues.abs()).to(warm)
    classes, fresh = unit(left @ (1 / sizes)), 0.1 * unit(random[:, 0])
    found = {
        "twice as many vectors": unit(more.to(fresh)) + fresh,
        "and the gradient": warm + unit(gradients.sum(dim=1)) + fresh,
        "and the way gone": warm + unit(moved) + fresh,
        "class gradients": classes + fresh,
        "and class gradients": warm + classes + fresh,
        "a tenth of the data": unit(part) + fresh,
        "half random": warm + 5 * fresh,
    }
    return {name: vector[:, None] for name, vector in found.items()}


def unit(vector: torch.Tensor) -> torch.Tensor:
    """Of length one."""
    return vector / vector.norm()


def main() -> None:
    """Train, track, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--max-products", type=int, default=None)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--starts", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    problem = cs.problems.get("mnist16")
    model, data = problem.model(given.seed), problem.curvature_batches("train")
    tracker = cs.Tracker(cs.Objective(model, problem.criterion, data), given.k, given.every, max_products=given.max_products)
    optimizer = torch.optim.SGD(model.parameters(), lr=problem.defaults.learning_rate)
    torch.set_num_threads(problem.defaults.threads)
    rows, last, place = [], None, None
    for step, (x, y) in enumerate(problem.train_batches(given.seed)):
        before, values_before = tracker.eigenvectors, tracker._values
        found = tracker.step(step)
        if found is not None:
            H = cs.hessian(model, problem.criterion, data, dtype=torch.float64)
            wide = cs.eigsh(H, given.k * (2 if given.starts else 1), method="krylov", tol=1e-6, preflight=False)
            exact = wide.eigenvalues[: given.k]
            values = torch.tensor([found[f"curvature/eigenvalue/{j + 1}"] for j in range(given.k)], dtype=torch.float64)
            row = {"step": step, "products": int(found["curvature/products"])}
            row |= {"worst relative error": float(((values - exact) / exact).abs().max()), "told": found["curvature/error"]}
            if before is not None:
                plain = cs.hessian(model, problem.criterion, data)
                random = torch.randn(len(before), 1, generator=torch.Generator().manual_seed(step))
                warm = unit(before @ (1 / values_before.abs()).to(before))
                row["fewest"] = fewest(plain, warm[:, None] + 0.1 * unit(random), exact)
                row["fewest, random start"] = fewest(plain, random, exact)
                if given.starts:
                    row["fewest, of the largest"] = fewest(plain, warm[:, None] + 0.1 * unit(random), exact, exact[0])
                    others = starts(plain, warm, random, last, plain.values() - place, data, problem.criterion, given.k)
                    row |= {name: fewest(plain, start, exact) for name, start in others.items()}
            last, place = wide, cs.hessian(model, problem.criterion, data).values() if given.starts else None
            row |= {"training steps": found.get("curvature/training_steps", float("nan"))}
            row |= {"overlap with the last": found.get("curvature/overlap_previous", float("nan"))}
            rows.append(row)
            print(row, flush=True)
        if step == given.steps:
            break
        optimizer.zero_grad()
        problem.criterion(model(x), y).backward()
        optimizer.step()
    heads = [head for head in rows[-1] if not (given.starts and head in ("training steps", "overlap with the last"))]
    flags = ["--starts"] * given.starts + ([] if given.seed is None else [f"--seed {given.seed}"])
    lines = [
        f"# Tracker on mnist16, k = {given.k}",
        "",
        f"Written by `{' '.join(['python benchmarks/tracking.py', *flags])}`; torch {torch.__version__}.",
        "",
    ]
    lines += [f"| {' | '.join(heads)} |", "|" + " --- |" * len(heads)]
    lines += [
        f"| {' | '.join(f'{row[h]:.2g}' if isinstance(row.get(h), float) else str(row.get(h, '')) for h in heads)} |"
        for row in rows
    ]
    given.out.mkdir(parents=True, exist_ok=True)
    name = ("tracking-starts" if given.starts else "tracking") + ("" if given.seed is None else f"-seed-{given.seed}")
    (given.out / f"{name}.md").write_text("\n".join(lines) + "\n")
    (given.out / f"{name}.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
