"""How much of the gradient lies in the top ten eigenvectors, along training (Gur-Ari, Roberts, Dyer 2018)."""

import sys
from pathlib import Path

import matplotlib.pyplot as plt

import curvscope as cs
from curvscope.training import train

problem = cs.problems.get("mnist16")
model = problem.model()
steps = (0, 10, 30, 100, 200)
recorder = cs.Recorder(model, steps)
train(problem, model, recorder)

shares, last = [], None
for step in steps:
    recorder.load(step, model)
    H = cs.hessian(model, problem.criterion, problem.curvature_batches())
    last = cs.eigsh(H, k=10, tol=1e-2, v0=last)  # starts from the eigenvectors of the step before
    shares.append(float(cs.gradient_fraction(H.gradient(), last).value[-1]))
    print(f"step {step:4}: {shares[-1]:.0%} of the gradient, {last.cost.products} products")

figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
axes.plot(steps, shares, "o-")
axes.set(xlabel="step", ylabel="share of the gradient\nin 10 of 7,030 directions", ylim=(0, 1))
folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
figure.savefig(folder / "gradient_along_training.png", dpi=150)
