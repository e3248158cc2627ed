"""How a model's loss is evaluated: with right derivatives, in the dtype that was asked for, from the same state every time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from curvscope.operators._layouts import is_plain
from curvscope.operators.rules import Casts, Rules, narrower_than

WITHOUT_GRAPH = "does not require grad"
"""Part of PyTorch's message where a gradient is taken of something that was computed under ``no_grad``."""


class Evaluation:
    """Facts about a loss function from evaluating it on all data, and the settings that evaluations need for them.

    Args:
        dtype: of the computation.

    Attributes:
        differentiates: whether the loss contains a gradient (forces, scores, residuals of differential equations), so that
            its own derivatives are of higher order and it cannot be evaluated under ``no_grad``.
        used: names of operations that are computed otherwise than PyTorch does, for their derivatives.
        writes: names of buffers that the forward pass writes to; each evaluation begins with their first values.
        projected: addresses of tables that were brought within their ``max_norm``.
        looking: whether the data is still being gone through for the first time: nothing is known, tables are brought
            within their ``max_norm``.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.differentiates = False
        self.used: set[str] = set()
        self.writes: set[str] = set()
        self.projected: set[int] = set()
        self.casts = narrower_than(dtype)
        self.looking = True
        self._has_casts = False
        self._inside = False

    @property
    def is_inside(self) -> bool:
        """True inside of :meth:`rules`: what is returned there goes on to the loss."""
        return self._inside

    @contextmanager
    def rules(self) -> Iterator[None]:
        """Inside, operations have the right derivatives and casts go to the dtype of the computation; may be nested."""
        if self._inside:
            yield
            return
        rules = Rules(third=self.differentiates, looking=self.looking)
        casts = Casts(self.casts, self.dtype)
        self._inside = True
        try:
            with ExitStack() as stack:
                if self.casts and (self.looking or self._has_casts or torch.get_default_dtype() in self.casts):
                    stack.enter_context(casts)
                if self.looking or self.used or self.differentiates:
                    stack.enter_context(rules)
                yield
        finally:
            self._inside = False
            self._has_casts |= casts.used
            self.used |= rules.used
            self.projected |= rules.projected
            self.differentiates |= rules.differentiates

    def value(self, evaluate: Callable[[], Any]) -> Any:
        """Return what ``evaluate()`` returns, without a graph; with gradients switched on where the loss takes one itself."""
        if not self.differentiates:
            try:
                with torch.no_grad():
                    return evaluate()
            except RuntimeError as error:
                if WITHOUT_GRAPH not in str(error):
                    raise
                self.differentiates = True
        with torch.enable_grad():
            found = evaluate()
        return found.detach() if isinstance(found, Tensor) else found

    def state(self, constants: Mapping[str, Tensor], buffers: set[str], values: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """The constants as an evaluation gets them: buffers that it may write to are copies."""
        written = buffers if self.looking else self.writes
        return {name: _copy(tensor, values) if name in written else tensor for name, tensor in constants.items()}

    def note_writes(self, constants: Mapping[str, Tensor], passed: Mapping[str, Tensor]) -> None:
        """Compare the buffers that an evaluation was given with what they were."""
        for name, tensor in passed.items():
            if tensor is not constants[name] and not torch.equal(tensor.detach(), constants[name]):
                self.writes.add(name)


def _copy(tensor: Tensor, values: tuple[Tensor, ...]) -> Tensor:
    if not is_plain(tensor):
        return tensor  # a forward pass has no operation that writes to a sparse tensor
    if not tensor.is_floating_point():
        return tensor.clone()
    # On the level of torch.func that the parameters are on: a tensor from outside cannot be written to there.
    return tensor + torch.zeros_like(values[0].detach().reshape(-1)[:1]).to(tensor.dtype).sum()
