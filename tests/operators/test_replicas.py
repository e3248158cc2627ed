"""A replica of a process group measures its own batches, and says so."""

import logging
from types import SimpleNamespace

import torch
from torch import nn

import curvscope as cs
from curvscope.operators.curvature import _build


def test_a_replica_says_that_others_data_are_not_measured(monkeypatch, caplog):
    model, batch = nn.Linear(3, 2), (torch.randn(4, 3), torch.tensor([0, 1, 1, 0]))
    replica = nn.parallel.DistributedDataParallel.__new__(nn.parallel.DistributedDataParallel)  # needs no process group
    nn.Module.__init__(replica)
    replica.module = model
    for size, said in ((1, False), (2, True), (8, True)):
        caplog.clear()
        monkeypatch.setattr(_build, "dist", SimpleNamespace(get_world_size=lambda size=size: size))
        with caplog.at_level(logging.WARNING, logger="curvscope"):
            H = cs.hessian(replica, nn.CrossEntropyLoss(), batch)
        assert ("the batches of this process alone are measured, not those of" in caplog.text) == said
        assert torch.equal(H.to_dense(), cs.hessian(model, nn.CrossEntropyLoss(), batch).to_dense())
    assert "the 7 others" in caplog.text
