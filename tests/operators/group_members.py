"""What each process of a group does in test_process_groups.py; a script of process's number, their number, folder."""

import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import curvscope as cs

SAMPLES = 23


def problem(dtype=torch.float64):
    """A small classifier and its data, the same in every process."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).to(dtype)
    inputs = torch.randn(SAMPLES, 5, generator=generator, dtype=dtype)
    return model, nn.CrossEntropyLoss(), TensorDataset(inputs, torch.arange(SAMPLES) % 3)


def loader_of(data, rank, size):
    """A part of the data as torchrun scripts have it; some samples are in it twice."""
    return DataLoader(data, batch_size=4, sampler=DistributedSampler(data, size, rank, shuffle=True, seed=3))


def message(function):
    """The error that a call ends with."""
    try:
        function()
    except Exception as error:  # noqa: BLE001 - it is looked at by the test
        return f"{type(error).__name__}: {error}"
    return "no error"


def everything(rank, size, folder):
    """One process's part in all checks; its results by name."""
    model, criterion, data = problem()
    loader = loader_of(data, rank, size)
    found = {"part": message(lambda: cs.hessian(model, criterion, loader))}
    for name, matrix in (("hessian", cs.hessian), ("ggn", cs.ggn), ("empirical_fisher", cs.empirical_fisher)):
        H = matrix(model, criterion, loader, group="world")
        found[name] = H @ torch.eye(H.shape[1], dtype=H.dtype)
    H = cs.hessian(DistributedDataParallel(model), criterion, loader, group=dist.group.WORLD)
    starts = [sum(3 + 4 * before for before in range(one)) for one in range(size)] + [SAMPLES]
    uneven = [data[starts[rank] : starts[rank + 1]]]
    found["uneven"] = cs.hessian(model, criterion, uneven, group="world") @ torch.eye(H.shape[1], dtype=H.dtype)
    found["gradient"], found["loss"] = H.gradient(), H.loss()
    found["damped"] = cs.hessian(model, criterion, loader, group="world", damping=0.5) @ torch.ones(H.shape[1], dtype=H.dtype)
    solution = cs.eigsh(H, 3, method="krylov", tol=1e-8, run=folder / "run", progress=False)
    found["values"], found["vectors"] = solution.values, solution.eigenvectors[:, :3]
    found["converged"], found["products"] = solution.converged, solution.products
    found["trace"] = float(cs.trace(H, max_products=40, progress=False))
    found["shifted"] = cs.eigsh(2.0 * H + cs.identity(H), 2, method="krylov", tol=1e-8, progress=False).values
    divided = cs.hessian(model, criterion, uneven, group="world")
    found["fingerprints"] = H.fingerprint, divided.fingerprint
    other = TensorDataset(2 * data.tensors[0], data.tensors[1])
    found["other fingerprint"] = cs.hessian(model, criterion, loader_of(other, rank, size), group="world").fingerprint
    found["resumed"] = cs.eigsh(divided, 3, method="krylov", tol=1e-8, run=folder / "run", progress=False).values
    found["other data"] = message(lambda: _on_other_data(model, criterion, other, rank, size, folder))
    found["again"] = cs.eigsh(H, 3, method="krylov", tol=1e-8, run=folder / "run", progress=False).products
    failing = _failing(rank, model, criterion, loader)
    found["failing"] = message(lambda: cs.eigsh(failing, 3, method="krylov", preflight=False, progress=False))
    found["double"] = cs.hessian(model.float(), criterion, loader_of(floats(data), rank, size), group="world").in_dtype(
        torch.float64
    ) @ torch.eye(H.shape[1], dtype=H.dtype)
    model.double()
    found["stranger"] = message(lambda: cs.hessian(model, criterion, loader, group=dist.new_group([0])))
    found["bad k"] = message(lambda: cs.eigsh(H, 10_000))
    found["bad option"] = message(lambda: cs.hessian(model, criterion, loader, group="world", width=0 if rank else 1))
    found["other model"] = message(lambda: _another(rank, criterion, loader))
    found["order"] = message(lambda: cs.monte_carlo_fisher(model, criterion, loader, group="world"))
    found["calls"] = message(lambda: H @ torch.ones(H.shape[1], 1 + rank, dtype=H.dtype))
    with torch.no_grad():
        model[0].weight.mul_(1.5)
    H.move()
    found["moved"] = H @ torch.eye(H.shape[1], dtype=H.dtype)
    return found


def floats(data):
    """The same samples in single precision."""
    return TensorDataset(data.tensors[0].float(), data.tensors[1])


class Failing:
    """A part whose products fail from the fourth on."""

    def __init__(self, local):
        self.local, self.calls = local, 0

    def __getattr__(self, name):
        return getattr(self.local, name)

    def __matmul__(self, block):
        self.calls += 1
        if self.calls > 3:
            raise ArithmeticError("no more")
        return self.local @ block


def _failing(rank, *given):
    """An operator whose part in process 1 fails once a solve has begun."""
    H = cs.hessian(*given, group="world")
    if rank == 1:
        H.local = Failing(H.local)
    return H


def _on_other_data(model, criterion, other, rank, size, folder):
    H = cs.hessian(model, criterion, loader_of(other, rank, size), group="world")
    return cs.eigsh(H, 3, method="krylov", tol=1e-8, run=folder / "run", progress=False)


def _another(rank, criterion, loader):
    model, *_ = problem()
    with torch.no_grad():
        model[0].bias.add_(rank)
    return cs.hessian(model, criterion, loader, group="world")


def member(rank, size, folder):
    """Begin the group, do everything, leave what was found in a file."""
    torch.set_num_threads(1)
    folder = Path(folder)
    dist.init_process_group(
        "gloo", store=dist.FileStore(str(folder / "store"), size), rank=rank, world_size=size, timeout=timedelta(seconds=100)
    )
    torch.save(everything(rank, size, folder), folder / f"found{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    member(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
