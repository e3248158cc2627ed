"""Products through traced programs: what does not depend on the vectors is done once per mini-batch."""

from __future__ import annotations

import logging
from collections import deque
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from curvscope.operators._layouts import is_plain
from curvscope.operators.objective import Batch, describe
from curvscope.operators.products._maps import BatchMap, Pieces
from curvscope.operators.products._memory import is_out_of_memory
from curvscope.operators.products._strategy import Footprint, Linearized, Strategy
from curvscope.operators.products.tracing import NotRecordable, OtherBranch, Program, Traced, residual_bytes, trace

log = logging.getLogger(__name__)

MOST_BRANCHES = 8
"""Programs kept for one shape of batch, where the model branches on values."""


class Split(Strategy):
    """Trace the product once per shape of batch, cut it into a primal and a tangent program, reuse both.

    Args:
        batch_map: what to compute.
        vectorized: groups of vectors go through one program together; otherwise one vector after another.
        reuse: whether a program serves later mini-batches (``False``: the strategies called ``linearize``, which trace anew
            for every mini-batch, for models whose operations depend on the values).

    Attributes:
        first_seconds: what the first application of the program traced last took.
        compiled: whether programs go through PyTorch's compiler; to be set before the first one.

    Cost: tracing costs one product and some milliseconds per hundred operations; a mini-batch then about 1 gradient for its
    residuals, a vector 0.5 to 2 gradients. Memory: the residuals (about one batch's activations) and one application.
    """

    def __init__(self, batch_map: BatchMap, *, vectorized: bool = False, reuse: bool = True) -> None:
        super().__init__(batch_map)
        self.vectorized, self.reuse = vectorized, reuse
        self.name = ("split" if reuse else "linearize") + ("_vmap" if vectorized else "")
        self.first_seconds, self.compiled = 0.0, False
        self._programs: dict[Any, deque[Program]] = {}
        self._traced_for: dict[Program, int] = {}

    def linearize(self, batch: Batch, number: int, width: int) -> _Replayed:
        """Run the primal program on one mini-batch.

        Raises:
            NotRecordable: the model's operations cannot be replayed; another strategy must be used.
        """
        width = width if self.vectorized else 1
        leaves, structure = tree_flatten(batch)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        inputs = (*self.map.objective.values, *tensors)
        key = (structure, describe(leaves), width)
        program, residuals = self._replay(key, number, leaves, structure, inputs)
        if program is None:
            program, residuals, self.first_seconds = self._trace(leaves, structure, width)
            if self.reuse:
                self._programs.setdefault(key, deque(maxlen=MOST_BRANCHES)).append(program)
                self._traced_for[program] = number
        return _Replayed(program, residuals, self.map.objective.parameters, width)

    def footprint(self, batch: Batch, number: int, width: int) -> Footprint:
        """From the shapes in the two programs."""
        linear = self.linearize(batch, number, width)
        return Footprint(linear.program.primal_bytes, linear.held_bytes, linear.program.peak_bytes)

    def _replay(
        self, key: Any, number: int, leaves: list[Any], structure: Any, inputs: tuple[Tensor, ...]
    ) -> tuple[Program | None, tuple[Tensor, ...]]:
        """A program that was traced before and fits these inputs, and its residuals."""
        for program in self._programs.get(key, ()):
            try:
                residuals = program.residuals(inputs)
            except OtherBranch as reason:
                log.debug("%s: %s", self.name, reason)
                continue
            if self._traced_for.get(program, number) != number:
                self._confirm(program, residuals, leaves, structure)
                del self._traced_for[program]
            return program, residuals
        return None, ()

    def _function(self, leaves: list[Any], structure: Any) -> Any:
        values, batch_map = self.map.objective.values, self.map
        places = [index for index, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]

        def function(inputs: tuple[Tensor, ...], tangent: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            """The product, of what a program takes."""
            filled = list(leaves)
            for place, tensor in zip(places, inputs[len(values) :], strict=True):
                filled[place] = tensor
            batch = tree_unflatten(filled, structure)
            return batch_map.forward(tuple(inputs[: len(values)]), batch, tuple(tangent))

        return function

    def _trace(self, leaves: list[Any], structure: Any, width: int) -> Traced:
        values = self.map.objective.values
        inputs = (*values, *(leaf for leaf in leaves if isinstance(leaf, Tensor)))
        if not all(is_plain(tensor) for tensor in (*inputs, *self.map.objective.constants)):
            raise NotRecordable("sparse and nested tensors are not traced")
        try:
            tangents = _random_like(values, width if self.vectorized else None)
            traced = trace(
                self._function(leaves, structure), inputs, tangents, width if self.vectorized else None, compiles=self.compiled
            )
        except (RuntimeError, NotImplementedError, TypeError, ValueError, AssertionError) as error:
            if is_out_of_memory(error):
                raise
            raise NotRecordable(f"{type(error).__name__}: {error}") from error
        log.debug("%s: traced %d operations a vector group of %d", self.name, traced.program.num_calls, width)
        return traced

    def _confirm(self, program: Program, residuals: tuple[Tensor, ...], leaves: list[Any], structure: Any) -> None:
        """On the first other mini-batch: the program still is the function (nothing of the first batch was baked in)."""
        values = self.map.objective.values
        inputs = (*values, *(leaf for leaf in leaves if isinstance(leaf, Tensor)))
        tangent = _random_like(values, None)
        with torch.no_grad():
            expected = self._function(leaves, structure)(inputs, tangent)
        rows = tangent if program.width is None else tuple(t.expand(program.width, *t.shape) for t in tangent)
        found = program.products(residuals, rows)
        if program.width is not None:
            found = tuple(None if piece is None else piece[0] for piece in found)
        program.compare(found, expected)


class _Replayed(Linearized):
    def __init__(self, program: Program, residuals: tuple[Tensor, ...], parameters: Any, width: int) -> None:
        self.program, self.residuals, self.parameters, self.width = program, residuals, parameters, width
        self.held_bytes = residual_bytes(residuals)

    def __call__(self, tangents: Tensor) -> Pieces:
        count = tangents.shape[0]
        if self.program.width is None:
            pieces = self.program.products(self.residuals, self.parameters.split(tangents[0]))
            return tuple(None if piece is None else piece.unsqueeze(0) for piece in pieces)
        if count < self.width:
            padded = tangents.new_zeros(self.width, tangents.shape[1])
            padded[:count] = tangents
            tangents = padded
        pieces = self.program.products(self.residuals, self.parameters.split(tangents))
        return tuple(None if piece is None else piece[:count] for piece in pieces)


def _random_like(values: tuple[Tensor, ...], width: int | None) -> tuple[Tensor, ...]:
    """Tangents to trace and compare with, scaled like a step along the parameters."""
    shapes = [value.shape if width is None else (width, *value.shape) for value in values]
    return tuple(torch.randn(shape, dtype=v.dtype, device=v.device) for shape, v in zip(shapes, values, strict=True))
