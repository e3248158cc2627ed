"""Products by reverse mode alone, the graph kept for all vectors of a block: the fallback that always works."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from curvscope.operators.objective import Batch
from curvscope.operators.products._maps import Pieces
from curvscope.operators.products._memory import is_out_of_memory
from curvscope.operators.products._strategy import Footprint, Linearized, Strategy

log = logging.getLogger(__name__)


class DoubleBackward(Strategy):
    """One batched backward pass through the retained graph for a group of vectors; one vector at a time where that fails.

    Cost: about 1 gradient to build, 1 to 2 gradients a vector; memory: the graph, and activations times the group's width.
    """

    name = "double_backward"

    def linearize(self, batch: Batch, number: int, width: int) -> Linearized:
        """Build the graph of one mini-batch."""
        self.map.objective.seed(number)
        return _Retained(self, batch, width)

    def footprint(self, batch: Batch, number: int, width: int) -> Footprint:
        """From the tensors that the graph saves; an application is taken to need as much again for every vector."""
        own = {value.untyped_storage()._cdata for value in self.map.objective.values}
        saved: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            """Note its size."""
            storage = tensor.untyped_storage()
            if storage._cdata not in own:
                saved[storage._cdata] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            self.linearize(batch, number, width)
        total = sum(saved.values())
        return Footprint(total, total, width * total)


class _Retained(Linearized):
    def __init__(self, strategy: DoubleBackward, batch: Batch, width: int) -> None:
        self.strategy, self.width, self.held_bytes = strategy, width, 0
        self._parameters = strategy.map.objective.parameters
        self._apply = strategy.map.reverse(batch)

    def __call__(self, tangents: Tensor) -> Pieces:
        if self.width > 1 and not self.strategy.refused_batches:
            try:
                return self._differentiate(tangents, batched=True)
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise
                log.debug("double_backward: no batched backward for this model, going on one vector at a time: %s", error)
                self.strategy.refused_batches = True
        rows = [self._differentiate(tangent, batched=False) for tangent in tangents]
        return tuple(None if pieces[0] is None else torch.stack(pieces) for pieces in zip(*rows, strict=True))

    def _differentiate(self, tangents: Tensor, *, batched: bool) -> Pieces:
        return self._apply(self._parameters.split(tangents), batched)
