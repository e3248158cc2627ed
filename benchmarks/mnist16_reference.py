"""Repeat the paper's 16 x 16 MNIST run and compare it with the published values.

``python benchmarks/mnist16_reference.py --data DIR --reference FILE``: DIR holds MNIST/raw, FILE the published values
(losses, exact eigenvalues, exact overlap curves at steps 0, 100, 1000). About 5 minutes on 2 cores.
"""

import argparse
import json
from pathlib import Path

import torch

import curvscope as cs
from curvscope.training import train


def compare(step: int, split: str, exact: cs.Solution, curve: cs.OverlapCurve, reference: dict) -> dict[str, float]:
    """Largest deviations from the published exact values."""
    values = torch.tensor(reference["exact_eig_top1000_by_magnitude"], dtype=torch.float64)
    published = torch.tensor(reference["exact_overlap_k1_to_1500_recomputed"], dtype=torch.float64)
    relative = ((exact.eigenvalues - values[: exact.k]) / values[: exact.k]).abs()
    deviation = (curve.value - published[: exact.k]).abs()
    return {
        "eigenvalues 1-100, relative": float(relative[:100].max()),
        "eigenvalues 1-350, relative": float(relative[:350].max()),
        "overlap k <= 350, absolute": float(deviation[:350].max()),
    }


def main() -> None:
    """Train, solve exactly in float64, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--reference", required=True, type=Path)
    parser.add_argument("--splits", nargs="+", default=["train"])
    arguments = parser.parse_args()
    reference = json.loads(arguments.reference.read_text())["steps"]
    problem = cs.problems.get("mnist16", data=arguments.data)
    model = problem.model()
    recorder = cs.Recorder(model, problem.defaults.steps)
    losses = train(problem, model, recorder, progress=True)
    for step in problem.defaults.steps:
        print(f"step {step}: batch loss {losses[step]:.6f}, published {reference[str(step)]['batch_loss']:.6f}")
        recorder.load(step, model)
        ranking = cs.masks.by_magnitude(model)
        for split in arguments.splits:
            batches = problem.curvature_batches(split)
            H = cs.hessian(model, problem.criterion, batches, dtype=torch.float64)
            exact = cs.eigsh(H, k=350, method="exact", progress=True)
            curve = cs.overlap(exact, ranking)
            print(f"  {split}: exact in {exact.cost.seconds:.0f} s")
            for what, error in compare(step, split, exact, curve, reference[str(step)][split]).items():
                print(f"    {what}: {error:.1e}")
            for method in ("krylov", "seigh"):
                H32 = cs.hessian(model, problem.criterion, batches)
                solution = cs.eigsh(H32, k=350, method=method, max_products=710, tol=0 if method == "krylov" else 1e-3)
                report(method, solution, exact, cs.overlap(solution, ranking), curve)


def report(method: str, solution: cs.Solution, exact: cs.Solution, curve: cs.OverlapCurve, truth: cs.OverlapCurve) -> None:
    """One line a method: values, subspace and overlap against the exact ones."""
    values = ((solution.eigenvalues - exact.eigenvalues) / exact.eigenvalues).abs()
    both = exact.eigenvectors.columns(0, 100).T.double() @ solution.eigenvectors.columns(0, 100).double()
    missing = 1 - float(both.square().sum()) / 100
    overlap = ((curve.value - truth.value) / truth.value).abs()
    residuals = solution.relative_residuals
    print(
        f"    {method}: {solution.cost.products} products, {solution.cost.seconds:.1f} s; residual median "
        f"{float(residuals.median()):.1e} worst {float(residuals.max()):.1e}; "
        f"values 1-100 within {float(values[:100].max()):.1e}; "
        f"1 - overlap of the top-100 spaces {missing:.1e}; mask overlap at k = 100 off by {float(overlap[99]):.1e}"
    )


if __name__ == "__main__":
    main()
