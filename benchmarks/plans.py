"""Is planning by rehearsal worth its code? Planned against actual seconds of a solve, with the rehearsal and without it.

    python benchmarks/plans.py

Prints a row for each operator and method: what :func:`curvscope.plan` expects, what the products alone would predict, and what
:func:`curvscope.eigsh` took, its certificate left out.
"""

from __future__ import annotations

import torch
from torch import nn

import curvscope as cs

PAIRS = {"matrix": 20, "mnist16": 40, "wide": 20}


def operator(name: str):
    """A diagonal matrix with D = 3,000, the Hessian of mnist16, or that of a tanh network with D = 301,066."""
    torch.manual_seed(0)
    if name == "matrix":
        return torch.diag(0.9 ** torch.arange(3000.0))
    if name == "mnist16":
        problem = cs.problems.get("mnist16")
        return cs.hessian(problem.model(), problem.criterion, problem.curvature_batches("train"))
    model = nn.Sequential(nn.Linear(64, 512), nn.Tanh(), nn.Linear(512, 512), nn.Tanh(), nn.Linear(512, 10))
    return cs.hessian(model, nn.CrossEntropyLoss(), [(torch.randn(64, 64), torch.arange(64) % 10)])


def main() -> None:
    """Print the table."""
    print("| operator | method | planned s | products alone s | actual s | planned / actual | products / actual |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, k in PAIRS.items():
        for method, options in (("seigh", {}), ("krylov", {"max_products": 8 * k, "tol": 0.0})):
            matrix = operator(name)
            planned = cs.plan(matrix, k, method=method, **options)[method]
            cost = cs.eigsh(matrix, k, method=method, progress=False, **options).cost
            actual, products = cost.seconds - cost.stages.get("certificate", 0.0), planned.stages["products"]
            expected = planned.seconds[1]
            times = f"{expected:.3g} | {products:.3g} | {actual:.3g} | {expected / actual:.2f} | {products / actual:.2f}"
            print(f"| {name} | {method} | {times} |", flush=True)


if __name__ == "__main__":
    main()
