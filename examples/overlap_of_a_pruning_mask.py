"""Do the largest weights span the directions of largest curvature? Overlap of pruning masks with the top eigenspace."""

import sys
from pathlib import Path

import matplotlib.pyplot as plt

import curvscope as cs
from curvscope.training import train

problem = cs.problems.get("mnist16")
model = problem.model()
train(problem, model, cs.Recorder(model, [100]))

H = cs.hessian(model, problem.criterion, problem.curvature_batches())
solution = cs.certify(H, cs.eigsh(H, k=70, tol=1e-4))  # the last pairs cannot be told from those after them

figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
for name, ranking in (("largest weights", cs.masks.by_magnitude(model)), ("random", cs.masks.random(model, seed=0))):
    curve = cs.overlap(solution, ranking)
    axes.fill_between(curve.k[:60], curve.lower[:60], curve.upper[:60], alpha=0.3)
    axes.plot(curve.k[:60], curve.value[:60], label=name)
    print(f"{name}: overlap {float(curve.value[59]):.4f}, {float(curve.ratio[59]):.1f} times chance at k = 60")
axes.plot(curve.k[:60], curve.chance[:60], "k:", label="chance, k / D")
axes.set(xlabel="k", ylabel="overlap", yscale="log")
axes.legend()
folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
figure.savefig(folder / "overlap_of_a_pruning_mask.png", dpi=150)
