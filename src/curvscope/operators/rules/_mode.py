"""Find the calls that are computed otherwise while curvature is measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from curvscope.operators.rules import (
    _attention_layers as attention_layers,
    _embeddings as embeddings,
    _linear_algebra as linear_algebra,
    _losses as losses,
    _norms as norms,
    _pointwise as pointwise,
    _scatter as scatter,
)
from curvscope.operators.rules.attention import scaled_dot_product_attention
from curvscope.operators.rules.token_losses import RULES as LOSSES_OF_TOKENS

Rule = Callable[..., Any]

SECOND: dict[Callable[..., Any], Rule] = {
    functional.scaled_dot_product_attention: scaled_dot_product_attention,
    functional.multi_head_attention_forward: attention_layers.multi_head_attention_forward,
    **LOSSES_OF_TOKENS,
}
"""Operations that are computed in less memory; their derivatives end with the second."""

RULES: dict[Callable[..., Any], Rule] = {
    functional.embedding: embeddings.embedding,
    functional.embedding_bag: embeddings.embedding_bag,
    torch.embedding: embeddings.raw_embedding,
    torch.embedding_renorm_: embeddings.no_renorm,
    torch.scatter_reduce: scatter.scatter_reduce,
    Tensor.scatter_reduce: scatter.scatter_reduce,
    Tensor.scatter_reduce_: scatter.scatter_reduce_,
    torch.index_reduce: scatter.index_reduce,
    Tensor.index_reduce: scatter.index_reduce,
    Tensor.index_reduce_: scatter.index_reduce_,
    functional.hardsigmoid: pointwise.hardsigmoid,
    torch._C._nn.hardsigmoid: pointwise.hardsigmoid,
    torch._weight_norm: norms.weight_norm,
    torch.cholesky_inverse: linear_algebra.cholesky_inverse,
    Tensor.cholesky_inverse: linear_algebra.cholesky_inverse,
    functional.multi_margin_loss: losses.multi_margin_loss,
    functional.multilabel_margin_loss: losses.multilabel_margin_loss,
    functional.ctc_loss: losses.ctc_loss,
    **SECOND,
}
"""Right derivatives for operations that have none in PyTorch, or wrong ones; each may return NotImplemented."""

TWICE: dict[Callable[..., Any], Rule] = {
    functional.layer_norm: norms.layer_norm,
    torch.layer_norm: norms.layer_norm,
    functional.group_norm: norms.group_norm,
    functional.instance_norm: norms.instance_norm,
    functional.batch_norm: norms.batch_norm,
    functional.pdist: linear_algebra.pdist,
}
"""The same where the loss contains a gradient, so that products are third derivatives."""


DERIVATIVES = {torch.autograd.grad, torch.autograd.backward, Tensor.backward}
"""Functions that take a gradient."""


class Rules(TorchFunctionMode):
    """Inside, operations are made of others whose derivatives are right.

    Args:
        third: whether the loss contains a gradient.
        looking: whether this is the first evaluation: tables are brought within their ``max_norm``, and it is noted whether a
            gradient is taken.

    Attributes:
        used: names of what was replaced.
        projected: addresses of tables that were brought within their ``max_norm``.
        differentiates: whether a gradient was taken inside.

    >>> table, first = torch.ones(3, 2), torch.tensor([0])
    >>> with Rules():
    ...     torch.func.jvp(lambda t: functional.embedding(first, t, padding_idx=0), (table,), (table,))[1]
    tensor([[0., 0.]])
    """

    def __init__(self, *, third: bool = False, looking: bool = False) -> None:
        super().__init__()
        self.used: set[str] = set()
        self.projected: set[int] = set()
        self.differentiates, self.looking = third, looking
        self._rules = {**RULES, **TWICE} if third else RULES
        if third:
            self._rules = {func: rule for func, rule in self._rules.items() if func not in SECOND}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.looking:
            self.differentiates = self.differentiates or func in DERIVATIVES or _under_transform()
            if func in (functional.embedding, functional.embedding_bag):
                self.projected |= embeddings.within_norm(func, args, kwargs)
        rule = self._rules.get(func)
        if rule is not None:
            result = rule(*args, **kwargs)
            if result is not NotImplemented:
                self.used.add(rule.__name__)
                return result
        return func(*args, **kwargs)


def _under_transform() -> bool:
    """Return whether this runs inside ``torch.func.grad``, ``jvp`` and the like; the first evaluation itself does not."""
    return torch._C._functorch.peek_interpreter_stack() is not None
