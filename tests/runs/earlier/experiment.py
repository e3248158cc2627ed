"""The operator of the runs in this folder, and how they were made: ``python experiment.py``, once, by an earlier curvscope."""

import torch
from torch import nn

import curvscope as cs

METHODS = {
    "krylov": {"method": "krylov", "tol": 1e-8, "block_size": 1},
    "seigh": {"method": "seigh", "max_products": 30, "block_size": 4},
    "hmt": {"method": "hmt", "max_products": 30, "block_size": 4},
}


def operator():
    """The Hessian of a network with 103 parameters."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 3)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    x = torch.randn(40, 6, generator=generator, dtype=torch.float64)
    return cs.hessian(model, nn.CrossEntropyLoss(), [(x[i : i + 20], torch.arange(20) % 3) for i in (0, 20)])


def interrupted_after(products):
    """A progress callback that ends the process's work as Ctrl-C does."""

    def progress(stage, done, total, note):
        if done >= products:
            raise KeyboardInterrupt

    return progress


def main():
    """Write the runs: each method interrupted after ten products, and a finished one."""
    for name, options in METHODS.items():
        try:
            cs.eigsh(operator(), 4, run=f"interrupted-{name}", progress=interrupted_after(10), **options)
        except KeyboardInterrupt:
            continue
        raise AssertionError(f"{name} was not interrupted")
    cs.eigsh(operator(), 4, run="finished", progress=False, **METHODS["krylov"])


if __name__ == "__main__":
    main()
