"""Eigenvalues from differences of gradients beside exact ones: ``python benchmarks/differences.py [3c3d|gpt ...] [--k 20]``.

For each network the top eigenvalues by ``strategy="differences"`` and by exact products, the largest relative difference, the
error of products that is told, and the true one on the eigenvector of the largest eigenvalue.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import nn

import curvscope as cs
from curvscope.problems import get
from workloads import net_3c3d


def trained_3c3d() -> tuple[nn.Module, Any, list[Any]]:
    """3c3d after 15 steps on the 32 random images that it is measured on."""
    model, ((x, y), _) = net_3c3d()
    data, loss = [(x[:32], y[:32])], nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    for _ in range(15):
        optimizer.zero_grad()
        loss(model(data[0][0]), data[0][1]).backward()
        optimizer.step()
    return model, loss, data


def trained_gpt() -> tuple[nn.Module, Any, list[Any]]:
    """The problem tinygpt after 60 steps, on 8 windows."""
    problem = get("tinygpt")
    model, loss = problem.model(), problem.criterion
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    for _, (x, y) in zip(range(60), problem.train_batches(), strict=False):
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
    ((x, y),) = problem.curvature_batches()
    return model, loss, [(x[:8], y[:8])]


NETWORKS = {"3c3d": trained_3c3d, "gpt": trained_gpt}


def main() -> None:
    """Measure the networks that were named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--tol", type=float, default=1e-2)
    arguments = parser.parse_args()
    print("| network | k | largest relative difference | told error of products | true error | products |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in arguments.networks:
        torch.manual_seed(0)
        model, loss, data = NETWORKS[name]()
        exact = cs.hessian(model, loss, data)
        approximate = cs.hessian(model, loss, data, strategy="differences")
        truth = cs.eigsh(exact, k=arguments.k, tol=arguments.tol)
        found = cs.eigsh(approximate, k=arguments.k, tol=arguments.tol)
        difference = float(((found.eigenvalues - truth.eigenvalues) / truth.eigenvalues).abs().max())
        top = truth.eigenvectors.columns(0, 1)
        error = float((approximate @ top - exact @ top).norm() / truth.eigenvalues.abs().max())
        row = f"{difference:.1e} | {approximate.rounding:.1e} | {error:.1e} | {found.cost.products}"
        print(f"| {name} | {arguments.k} | {row} |", flush=True)


if __name__ == "__main__":
    main()
