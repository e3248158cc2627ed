"""Loaders of a ``DistributedSampler``: each process sees a part of the data, and a few samples are seen twice."""

from __future__ import annotations

import logging
from typing import Any

import torch.distributed as dist
from torch.utils.data import DataLoader, DistributedSampler

from curvscope.errors import InvalidArgument

log = logging.getLogger(__name__)


def refuse_a_part(data: Any) -> None:
    """Raise InvalidArgument where a loader gives this process its part of the data alone, among several processes.

    The matrix of that part would be another one in each process, and none of them that of the data.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return
    if _sampler(data) is not None:
        raise InvalidArgument(
            f"the loader's DistributedSampler gives this process 1/{dist.get_world_size()} of the data: pass group='world' for "
            "the matrix of all data, or list(loader) for that of this part alone"
        )


def is_a_part(data: Any) -> bool:
    """Return whether data are a loader with a ``DistributedSampler``."""
    return _sampler(data) is not None


def without_padding(data: Any) -> Any:
    """Return a plain loader of this process's samples in which none is repeated; other data as they are.

    A ``DistributedSampler`` repeats the first samples until every process has as many: they would count twice. The order is
    that of the sampler's present epoch, fixed.

    >>> import torch
    >>> data = torch.utils.data.TensorDataset(torch.arange(5))
    >>> loaders = [DataLoader(data, sampler=DistributedSampler(data, 2, rank, shuffle=False)) for rank in (0, 1)]
    >>> [[int(x) for x, in loader] for loader in loaders], [[int(x) for x, in without_padding(loader)] for loader in loaders]
    ([[0, 2, 4], [1, 3, 0]], [[0, 2, 4], [1, 3]])

    Raises:
        InvalidArgument: a part would be empty, or batches with repeated samples are made by a batch sampler of the user's own.
    """
    sampler = _sampler(data)
    if sampler is None:
        return data
    length = len(sampler.dataset)  # type: ignore[arg-type]  # a sampler of this kind has taken its length already
    own = len(range(sampler.rank, length, sampler.num_replicas))
    if own == 0:
        raise InvalidArgument(
            f"{length} samples for {sampler.num_replicas} processes: process {sampler.rank} has none, start fewer processes"
        )
    places = list(sampler)
    if len(places) < own:
        log.warning("the DistributedSampler drops its tail (drop_last=True): these samples are not in the matrix")
    if data.batch_size is None:
        if len(places) <= own:
            return list(data)
        raise InvalidArgument(
            "the loader has a batch sampler of its own, and its DistributedSampler repeats samples: give it a batch_size"
        )
    return DataLoader(
        data.dataset,
        batch_size=data.batch_size,
        sampler=places[:own],
        num_workers=data.num_workers,
        collate_fn=data.collate_fn,
        pin_memory=data.pin_memory,
        drop_last=data.drop_last,
        worker_init_fn=data.worker_init_fn,
    )


def _sampler(data: Any) -> DistributedSampler[Any] | None:
    """The sampler that gives each process a part; None: there is none."""
    if not isinstance(data, DataLoader):
        return None
    for sampler in (data.sampler, getattr(data.batch_sampler, "sampler", None)):
        if isinstance(sampler, DistributedSampler):
            return sampler
    return None
