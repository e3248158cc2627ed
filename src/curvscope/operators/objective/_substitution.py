"""How the parameters of an objective reach the user's model.

An objective exchanges the model's registered parameters for its own tensors (``torch.func.functional_call``). A model that
reaches a weight by a second reference (an entry of a plain list, a variable of a closure, a view made in ``__init__``) does
not see the exchange: the loss then does not depend on the exchanged tensor, and its rows of every matrix would be zero. Such
a model is computed with the values written into its own parameters, for as long as a product takes, and put back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from curvscope.operators.objective._writes import members_restored


@contextmanager
def values_in_model(model: nn.Module, values: Mapping[str, Tensor], chosen: Sequence[str]) -> Iterator[tuple[Tensor, ...]]:
    """Put values into the model's own parameters and buffers; on leaving, these hold what they held, to the bit.

    A tensor of the same dtype and device is overwritten in place, so that views of it see the values too; another one is
    exchanged inside its parameter. Parameters that are not chosen are constants inside, and gradient hooks are off.

    Args:
        model: whose tensors are written.
        values: by name.
        chosen: names of the parameters that are differentiated.

    Yields:
        The model's own parameters of the chosen names.
    """
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    before: list[tuple[Tensor, Tensor, bool]] = []
    required = {p: p.requires_grad for p in model.parameters()}
    hooks = {p: p._backward_hooks for p in required}
    try:
        for name, tensor in own.items():
            value = values.get(name)
            if value is not None:
                _put(tensor, value, before)
        for name, p in model.named_parameters():
            p._backward_hooks = None
            p.requires_grad_(name in chosen)
        with members_restored(model):
            yield tuple(own[name] for name in chosen)
    finally:
        for tensor, kept, copied in reversed(before):
            if copied and not _equal(tensor, kept):
                tensor.data.copy_(kept)
            elif copied:
                continue
            else:
                tensor.data = kept
        for p, wanted in required.items():
            p.requires_grad_(wanted)
            p._backward_hooks = hooks[p]


def _put(tensor: Tensor, value: Tensor, before: list[tuple[Tensor, Tensor, bool]]) -> None:
    """Write one value, and note what was there."""
    if tensor.dtype != value.dtype or tensor.device != value.device or tensor.layout != value.layout:
        before.append((tensor, tensor.data, False))
        tensor.data = value.detach().clone()
    elif _equal(tensor, value):
        before.append((tensor, value, True))  # other values may be put there meanwhile, and no copy is needed to undo that
    else:
        before.append((tensor, tensor.detach().clone(), True))
        tensor.data.copy_(value)


def _equal(first: Tensor, second: Tensor) -> bool:
    return first.layout == torch.strided and torch.equal(first.detach(), second)
