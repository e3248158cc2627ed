"""How far the top eigenspace turned between two checkpoints: overlap for every k, and principal angles."""

import sys
from pathlib import Path

import matplotlib.pyplot as plt

import curvscope as cs
from curvscope.training import train

problem = cs.problems.get("mnist16")
model = problem.model()
recorder = cs.Recorder(model, [0, 50, 100])
train(problem, model, recorder)

found = {}
for step in (0, 50, 100):
    recorder.load(step, model)
    H = cs.hessian(model, problem.criterion, problem.curvature_batches())
    found[step] = cs.eigsh(H, k=30, tol=1e-3)

figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
for before, after in ((50, 100), (0, 100)):
    curve = cs.overlap(found[before], found[after])
    axes.plot(curve.k, curve.value, label=f"steps {before} and {after}")
    angles = cs.grassmann.angles(found[before].eigenvectors, found[after].eigenvectors)
    print(
        f"steps {before} and {after}: overlap {float(curve.value[9]):.2f} at k = 10, smallest angle {float(angles.min()):.2f}"
    )
axes.set(xlabel="k", ylabel="overlap of the top-k eigenspaces", ylim=(0, 1))
axes.legend()
folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
figure.savefig(folder / "two_checkpoints.png", dpi=150)
