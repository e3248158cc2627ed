"""What a Tracker finds along mnist16, at how many products and training steps a check, against eigenpairs to 1e-6.

``python benchmarks/tracking.py [--k 10] [--every 100] [--steps 1000] [--max-products N] --out benchmarks/results`` trains the
packaged problem and checks along the way; tracking.json and tracking.md. Training steps a check are wall time: run alone.
"""

import argparse
import json
from pathlib import Path

import torch

import curvscope as cs


def main() -> None:
    """Train, track, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--max-products", type=int, default=None)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    problem = cs.problems.get("mnist16")
    model, data = problem.model(), problem.curvature_batches("train")
    tracker = cs.Tracker(cs.Objective(model, problem.criterion, data), given.k, given.every, max_products=given.max_products)
    optimizer = torch.optim.SGD(model.parameters(), lr=problem.defaults.learning_rate)
    torch.set_num_threads(problem.defaults.threads)
    rows = []
    for step, (x, y) in enumerate(problem.train_batches()):
        found = tracker.step(step)
        if found is not None:
            H = cs.hessian(model, problem.criterion, data, dtype=torch.float64)
            exact = cs.eigsh(H, given.k, method="krylov", tol=1e-6, preflight=False).eigenvalues
            values = torch.tensor([found[f"curvature/eigenvalue/{j + 1}"] for j in range(given.k)], dtype=torch.float64)
            row = {"step": step, "products": int(found["curvature/products"])}
            row |= {"worst relative error": float(((values - exact) / exact).abs().max()), "told": found["curvature/error"]}
            row |= {"training steps": found.get("curvature/training_steps", float("nan"))}
            row |= {"overlap with the last": found.get("curvature/overlap_previous", float("nan"))}
            rows.append(row)
            print(row, flush=True)
        if step == given.steps:
            break
        optimizer.zero_grad()
        problem.criterion(model(x), y).backward()
        optimizer.step()
    heads = list(rows[0])
    lines = [
        f"# Tracker on mnist16, k = {given.k}",
        "",
        f"Written by `python benchmarks/tracking.py`; torch {torch.__version__}.",
        "",
    ]
    lines += [f"| {' | '.join(heads)} |", "|" + " --- |" * len(heads)]
    lines += [f"| {' | '.join(f'{row[h]:.2g}' if isinstance(row[h], float) else str(row[h]) for h in heads)} |" for row in rows]
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "tracking.md").write_text("\n".join(lines) + "\n")
    (given.out / "tracking.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
