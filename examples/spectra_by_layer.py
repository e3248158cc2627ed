"""Traces and top eigenvalues layer by layer, before and after training."""

import sys
from pathlib import Path

import matplotlib.pyplot as plt

import curvscope as cs
from curvscope.training import train

problem = cs.problems.get("mnist16")
model = problem.model()
recorder = cs.Recorder(model, [0, 100])
train(problem, model, recorder)

figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
for step in (0, 100):
    recorder.load(step, model)
    H = cs.hessian(model, problem.criterion, problem.curvature_batches())
    traces = cs.trace(H, max_products=60).layers
    weights = {name: estimate for name, estimate in traces.items() if name.endswith("weight")}
    left.errorbar(
        range(len(weights)), [e.value for e in weights.values()], yerr=[2 * e.stderr for e in weights.values()], fmt="o-"
    )
    top = cs.eigsh_by_layer(H, k=1, tol=1e-2)
    right.plot([float(solution.eigenvalues[0]) for solution in top.values()], "o-", label=f"step {step}")
    print(f"step {step}:", {name: round(float(solution.eigenvalues[0]), 4) for name, solution in top.items()})
left.set(xlabel="layer", ylabel="trace of its block (95 %)", yscale="symlog")
right.set(xlabel="layer", ylabel="largest eigenvalue of its block", yscale="symlog")
right.legend()
folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
figure.savefig(folder / "spectra_by_layer.png", dpi=150)
