r"""Losses of tokens from the inputs of the last layer, and their derivatives, chunk by chunk.

With logits :math:`z = W h + b` of a token, :math:`p = \mathrm{softmax}(z)` and its label y, the loss is
:math:`\mathrm{logsumexp}(z) - z_y`. Given :math:`u`, the derivative of the whole by the losses of the tokens:

.. math:: dz = u (p - e_y), \quad dh = W^T dz, \quad dW = \sum dz\, h^T, \quad db = \sum dz

and along a direction :math:`\dot z = W \dot h + \dot W h + \dot b`:

.. math:: \dot\ell = \langle p - e_y, \dot z\rangle, \quad
    \dot{dz} = \dot u (p - e_y) + u\, p \odot (\dot z - \langle p, \dot z\rangle)

Only a chunk's logits live at a time; they are computed again for each pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

CPU_ENTRIES, ACCELERATOR_ENTRIES = 1 << 22, 1 << 26
"""Logits of a chunk: large enough for matrix products, small beside the weights of the layer."""

Three = tuple[Tensor, Tensor, Tensor]
Some = Three | tuple[Tensor | None, Tensor | None, Tensor | None]


def chunk_entries(num_classes: int, *, on_cpu: bool) -> int:
    """Return how many logits a chunk has: those of whole tokens, of one at least."""
    return max(1, (CPU_ENTRIES if on_cpu else ACCELERATOR_ENTRIES) // num_classes) * num_classes


class Head(NamedTuple):
    """The last layer and the labels.

    Attributes:
        inputs: h, (n, E). weight: W, (V, E). bias: b, (V,). labels: (n,) int64.
        ignored: label of tokens whose loss is 0.
    """

    inputs: Tensor
    weight: Tensor
    bias: Tensor
    labels: Tensor
    ignored: int

    def chunks(self) -> Iterator[slice]:
        """Ranges of tokens."""
        step = chunk_entries(len(self.weight), on_cpu=self.inputs.device.type == "cpu") // len(self.weight)
        for start in range(0, len(self.inputs), step):
            yield slice(start, min(start + step, len(self.inputs)))

    def logits(self, chunk: slice) -> Tensor:
        """(tokens, V)."""
        return torch.addmm(self.bias, self.inputs[chunk], self.weight.t())

    def known(self, chunk: slice) -> tuple[Tensor, Tensor]:
        """Labels with 0 in the place of the ignored one, as a column, and which tokens count."""
        labels = self.labels[chunk]
        counted = labels != self.ignored
        return labels.where(counted, torch.zeros_like(labels)).unsqueeze(-1), counted

    def probabilities(self, chunk: slice, logsumexp: Tensor) -> Tensor:
        """The softmax, (tokens, V)."""
        return self.logits(chunk).sub_(logsumexp[chunk].unsqueeze(-1)).exp_()


def losses(head: Head) -> tuple[Tensor, Tensor]:
    """The losses of the tokens and the logsumexp of their logits, both (n,)."""
    found, sums = head.inputs.new_empty(2, len(head.inputs))
    for chunk in head.chunks():
        logits = head.logits(chunk)
        labels, counted = head.known(chunk)
        sums[chunk] = logits.logsumexp(-1)
        found[chunk] = (sums[chunk] - logits.gather(-1, labels).squeeze(-1)).masked_fill_(~counted, 0.0)
    return found, sums


def losses_along(head: Head, logsumexp: Tensor, along: Three) -> tuple[Tensor, Tensor]:
    """The derivatives of :func:`losses` along T directions of h, W and b, both (T, n)."""
    found, sums = head.inputs.new_empty(2, len(along[0]), len(head.inputs))
    for chunk in head.chunks():
        p = head.probabilities(chunk, logsumexp)
        labels, counted = head.known(chunk)
        for t in range(len(along[0])):
            moved = logits_along(head, chunk, t, along)
            own = moved.gather(-1, labels).squeeze(-1)
            sums[t, chunk] = moved.mul_(p).sum(-1)
            found[t, chunk] = (sums[t, chunk] - own).masked_fill_(~counted, 0.0)
    return found, sums


def pull_back(head: Head, logsumexp: Tensor, slopes: Tensor) -> Three:
    """The gradients of h, W and b, each (T, ...), for T derivatives by the losses, (T, n)."""
    into = _zeros(head, len(slopes))
    for chunk in head.chunks():
        p = head.probabilities(chunk, logsumexp)
        labels, counted = head.known(chunk)
        p.scatter_add_(-1, labels, -torch.ones_like(labels, dtype=p.dtype))
        p.masked_fill_(~counted.unsqueeze(-1), 0.0)
        for t, slope in enumerate(slopes):
            add_pulled_back(into, t, chunk, p * slope[chunk].unsqueeze(-1), head)
    return into


def pull_back_along(head: Head, logsumexp: Tensor, slopes: Tensor, along: Three, slopes_t: Tensor) -> Three:
    """The derivatives of :func:`pull_back` along T directions; one derivative by the losses for all, or one for each."""
    inputs_t, weight_t, _ = along
    into = _zeros(head, len(inputs_t))
    for chunk in head.chunks():
        p = head.probabilities(chunk, logsumexp)
        labels, counted = head.known(chunk)
        counts = counted.unsqueeze(-1)
        for t in range(len(inputs_t)):
            slope = (slopes[t if len(slopes) > 1 else 0, chunk].unsqueeze(-1) * counts).to(p.dtype)
            slope_t = (slopes_t[t, chunk].unsqueeze(-1) * counts).to(p.dtype)
            moved = logits_along(head, chunk, t, along)
            mean = (moved * p).sum(-1, keepdim=True)
            # u p (z. - <p, z.>) + u. p, and u. once less at the label.
            change = moved.sub_(mean).mul_(slope).add_(slope_t).mul_(p)
            change.scatter_add_(-1, labels, -slope_t)
            add_pulled_back(into, t, chunk, change, head)
            first = (p * slope).scatter_add_(-1, labels, -slope)
            into[0][t, chunk] += first @ weight_t[t]
            into[1][t] += first.t() @ inputs_t[t, chunk]
    return into


def logits_along(head: Head, chunk: slice, t: int, along: Some) -> Tensor:
    """The derivative of a chunk's logits along direction t: (tokens, V), memory of its own; None is no direction."""
    inputs_t, weight_t, bias_t = along
    start = head.bias.new_zeros(()) if bias_t is None else bias_t[t]
    pairs = []
    if inputs_t is not None:
        pairs.append((inputs_t[t, chunk], head.weight.t()))
    if weight_t is not None:
        pairs.append((head.inputs[chunk], weight_t[t].t()))
    if not pairs:
        return start.expand(len(head.inputs[chunk]), len(head.weight)).clone()
    moved = torch.addmm(start, *pairs[0])
    return moved if len(pairs) == 1 else moved.addmm_(*pairs[1])


def _zeros(head: Head, count: int) -> Three:
    h, w, b = (tensor.new_zeros(count, *tensor.shape) for tensor in head[:3])
    return h, w, b


def add_pulled_back(into: Some, t: int, chunk: slice, slopes: Tensor, head: Head) -> None:
    """Add what derivatives by the logits of a chunk, (tokens, V), make of h, W and b; None is not wanted."""
    of_inputs, of_weight, of_bias = into
    if of_inputs is not None:
        of_inputs[t, chunk] += slopes @ head.weight
    if of_weight is not None:
        of_weight[t].addmm_(slopes.t(), head.inputs[chunk])
    if of_bias is not None:
        of_bias[t] += slopes.sum(0)
