"""Anything with products can be measured: here a kernel matrix that is never formed, checked by the conformance suite."""

import torch

import curvscope as cs
from curvscope import testing


class Kernel(cs.Operator):
    """The Gaussian kernel of n points: K_ij = exp(-|x_i - x_j|^2 / 2), a block of rows at a time."""

    hermitian = True

    def __init__(self, points: torch.Tensor) -> None:
        self.points = points
        self.shape, self.dtype, self.device = (len(points), len(points)), points.dtype, points.device

    def _apply(self, block: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.exp(-torch.cdist(rows, self.points).square() / 2) @ block for rows in self.points.split(512)])

    def _fingerprint(self) -> str:
        return f"kernel {self.shape} {float(self.points.sum()):.17g}"


K = Kernel(torch.randn(3000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
testing.check_operator(K)
solution = cs.eigsh(K, k=20, method="nystrom", max_products=60)  # positive semidefinite, fast decay: one pass is enough
print(solution)
print(cs.posterior_error(K, solution, num_probes=10))
