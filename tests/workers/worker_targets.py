"""What the workers of the tests build."""

import os
import signal
from pathlib import Path

import torch
from torch import nn

import curvscope as cs


def spectrum(size=300, dtype="float64", kind="low_rank_diagonal", rank=10, **options):
    return cs.problems.spectrum(kind, size, dtype=getattr(torch, dtype), rank=rank, negative=0.3, **options)


def network(dtype="float32"):
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 20), nn.Tanh(), nn.Linear(20, 15), nn.Tanh(), nn.Linear(15, 4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))
    x, y = torch.randn(60, 12, generator=generator), torch.arange(60) % 4
    return cs.hessian(model, nn.CrossEntropyLoss(), [(x[:25], y[:25]), (x[25:], y[25:])], dtype=getattr(torch, dtype))


def rectangle(dtype="float64", turned=False):
    generator = torch.Generator().manual_seed(1)
    left, right = (torch.linalg.qr(torch.randn(n, 8, dtype=torch.float64, generator=generator)).Q for n in (120, 90))
    tall = (left * 2.0 ** -torch.arange(8)) @ right.T
    return tall.T.contiguous() if turned else tall


def by_process(home):
    """A matrix that is another one in any process but ``home``."""
    return torch.diag(torch.arange(1.0, 401.0) + (os.getpid() != home))


def failing(home):
    """A matrix whose products fail in any process but ``home``."""
    matrix = spectrum()
    if os.getpid() != home:
        matrix._apply = lambda block: 1 / 0
    return matrix


def mortal(folder, home, deaths, **options):
    """A matrix some of whose products kill the worker that computes them: ``deaths`` of them, the first of each second."""
    matrix = spectrum(**options)
    if os.getpid() == home:
        return matrix
    inner, count = matrix._apply, 0

    def apply(block):
        nonlocal count
        count += 1
        if count >= 3:
            for number in range(deaths):
                try:
                    Path(folder, f"death-{number}").touch(exist_ok=False)
                except FileExistsError:
                    continue
                os.kill(os.getpid(), signal.SIGKILL)
        return inner(block)

    matrix._apply = apply
    return matrix


def shard(shard=0, num_shards=1, matrix="hessian", weighted=False, drifting=False, **options):
    """47 samples, the first shard with far more of them than the others."""
    generator = torch.Generator().manual_seed(2)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) + shard * drifting)
    x, y = torch.randn(47, 4, generator=generator, dtype=torch.float64), torch.arange(47) % 3
    first = 47 - 4 * (num_shards - 1)
    start, stop = (0, first) if shard == 0 else (first + 4 * (shard - 1), first + 4 * shard)
    loss = nn.CrossEntropyLoss(
        weight=torch.tensor([1.0, 2.0, 5.0]).double() if weighted else None, reduction=options.pop("reduction", "mean")
    )
    return getattr(cs, matrix)(model, loss, [(x[start:stop], y[start:stop])], strategy="double_backward", **options)


def no_shard(shard, num_shards):
    return torch.eye(3)
