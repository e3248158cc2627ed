"""A low-rank Laplace approximation: the posterior of a network from the top eigenpairs of its Gauss-Newton matrix."""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.func import functional_call, jacrev

import curvscope as cs

torch.manual_seed(0)
x = torch.linspace(-1, 1, 60)[:, None].double()
x = x[(x[:, 0] < -0.2) | (x[:, 0] > 0.3)]  # a gap without data
y = torch.sin(4 * x) + 0.05 * torch.randn_like(x)
model = nn.Sequential(nn.Linear(1, 20), nn.Tanh(), nn.Linear(20, 20), nn.Tanh(), nn.Linear(20, 1)).double()
optimizer = torch.optim.LBFGS(model.parameters(), max_iter=200, line_search_fn="strong_wolfe")


def loss() -> torch.Tensor:
    """Mean squared error, and its gradient."""
    optimizer.zero_grad()
    value = nn.functional.mse_loss(model(x), y)
    value.backward()
    return value


optimizer.step(loss)
noise, prior = 0.05**2, 1.0  # variance of the noise, precision of the prior
G = cs.ggn(model, nn.MSELoss(), [(x, y)])
solution = cs.eigsh(G, k=40)
# The negative log posterior is N / (2 noise) times the mean squared error, plus prior / 2 times the squared norm.
scale = len(x) / (2 * noise)
covariance = solution.low_rank(damping=prior / scale, positive=True).inverse()

inputs = torch.linspace(-1.5, 1.5, 200)[:, None].double()
named = {name: p.detach() for name, p in model.named_parameters()}
jacobian = jacrev(lambda named: functional_call(model, named, (inputs,))[:, 0])(named)
rows = torch.cat([jacobian[name].flatten(1) for name in G.parameters.names], dim=1)
deviation = ((rows * (covariance @ rows.T).T).sum(dim=1) / scale).sqrt()
mean = model(inputs).detach()[:, 0]
gap = (inputs[:, 0] > -0.15) & (inputs[:, 0] < 0.25)
print(
    f"standard deviation at the data {float(deviation[60:100].mean()):.3f}, in the gap up to {float(deviation[gap].max()):.3f}"
)

figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
axes.fill_between(inputs[:, 0], mean - 2 * deviation, mean + 2 * deviation, alpha=0.3)
axes.plot(inputs, mean)
axes.plot(x, y, "k.", markersize=3)
axes.set(xlabel="x", ylabel="prediction +- 2 standard deviations", ylim=(-3, 3))
folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
figure.savefig(folder / "low_rank_laplace.png", dpi=150)
