"""One matrix over the data of several processes, started by torchrun.

    torchrun --standalone --nproc-per-node 2 examples/several_processes.py

Each process loads its part of the data. All of them make the same calls; the first one decides, prints and writes the run.
"""

import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import curvscope as cs


def main() -> None:
    """Multiply, solve and report: every process calls it."""
    torch.manual_seed(0)  # the same model everywhere; yours loads a checkpoint
    model = nn.Sequential(nn.Linear(20, 32), nn.Tanh(), nn.Linear(32, 5))
    inputs = torch.randn(501, 20)
    data = TensorDataset(inputs, inputs[:, :5].argmax(1))

    loader = DataLoader(data, batch_size=50, sampler=DistributedSampler(data))  # repeats a sample: it is not counted twice
    H = cs.hessian(model, nn.CrossEntropyLoss(), loader, group="world")
    folder = [str(Path(tempfile.mkdtemp()) / "run")]
    dist.broadcast_object_list(folder)
    solution = cs.eigsh(H, k=5, run=folder[0])

    if dist.get_rank() == 0:
        print(f"{dist.get_world_size()} processes:", solution.status)
        alone = cs.eigsh(cs.hessian(model, nn.CrossEntropyLoss(), [data[:]]), k=5, progress=False)
        difference = float((solution.values - alone.values).abs().max() / alone.values[0])
        print(f"all data in one process: the eigenvalues differ by {difference:.0e} of the largest")


if __name__ == "__main__":
    if not dist.is_torchelastic_launched():  # python instead of torchrun: a group of one
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    else:
        dist.init_process_group("gloo")
    main()
    dist.destroy_process_group()
