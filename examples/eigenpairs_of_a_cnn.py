"""Top eigenpairs of a small convolutional network, certified: which pairs are surely the largest, how sharp they are.

The network is trained here on the packaged digits; put your own, with its weights, in its place.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import nn

import curvscope as cs

torch.manual_seed(0)
problem = cs.problems.get("mnist16")
model = nn.Sequential(
    *(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2)),
    *(nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 10)),
)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step, (x, y) in enumerate(problem.train_batches()):
    if step == 200:
        break
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()

H = cs.hessian(model, nn.CrossEntropyLoss(), problem.curvature_batches())
solution = cs.certify(H, cs.eigsh(H, k=20))
print(solution)

figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
radii = (solution.intervals[:, 1] - solution.intervals[:, 0]) / 2
axes.errorbar(range(1, 21), solution.eigenvalues, yerr=radii, fmt="o", markersize=4)
axes.set(xlabel="index, by magnitude", ylabel="eigenvalue", xticks=(1, 5, 10, 15, 20))
folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
figure.savefig(folder / "eigenpairs_of_a_cnn.png", dpi=150)
