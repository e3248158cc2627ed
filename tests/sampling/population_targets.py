"""What workers of the tests build."""

from concurrent.futures import Executor, Future

import torch
from torch import nn

import curvscope as cs


def sample(dtype="float64", n=120):
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([4.0, 2.0, 1.0, *[0.2] * 9])
    x, y = torch.randn(n, 12, generator=generator) * scale, torch.randn(n, 1, generator=generator)
    model = nn.Linear(12, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(0.1)
    batches = list(zip(x.split(50), y.split(50), strict=True))
    return cs.ggn(model, nn.MSELoss(), batches, dtype=getattr(torch, dtype))


class Immediate(Executor):
    """Does the work when it is asked for."""

    def submit(self, function, *arguments):
        future = Future()
        future.set_result(function(*arguments))
        return future
