r"""Second derivatives of losses with respect to the network's output: closed forms where there are any.

For the softmax cross-entropy of one sample with probabilities p the Hessian is ``diag(p) - p p^T`` whatever the label, times
the label's weight; for squared errors it is the identity; for binary cross-entropy with logits it is diagonal.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import grad, jvp, vjp

from curvscope.operators.products._forward_losses import ForwardModeLosses

CLOSED_FORMS = (nn.CrossEntropyLoss, nn.MSELoss, nn.BCEWithLogitsLoss)
"""Criteria whose Hessians are written out below."""

OutputMap = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(output, target, tangent of the output) to the loss Hessian times that tangent."""


def loss_hessian(criterion: Callable[[Tensor, Tensor], Tensor]) -> OutputMap:
    """The product with the criterion's Hessian with respect to the output, of the criterion's mean or sum.

    Closed forms for ``nn.CrossEntropyLoss`` (class weights, ``ignore_index``, label smoothing, probabilities as targets),
    ``nn.MSELoss`` and ``nn.BCEWithLogitsLoss``; any other criterion is differentiated twice.

    >>> product = loss_hessian(nn.MSELoss())
    >>> product(torch.zeros(2, 2), torch.ones(2, 2), torch.ones(2, 2)).tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    """
    # Of exactly these types: a subclass may compute something else.
    if isinstance(criterion, nn.CrossEntropyLoss) and type(criterion) is nn.CrossEntropyLoss:
        return partial(_cross_entropy, criterion)
    if isinstance(criterion, nn.MSELoss) and type(criterion) is nn.MSELoss:
        is_mean = criterion.reduction == "mean"
        return lambda output, target, tangent: 2.0 * tangent / (output.numel() if is_mean else 1)
    if isinstance(criterion, nn.BCEWithLogitsLoss) and type(criterion) is nn.BCEWithLogitsLoss:
        return partial(_binary, criterion)
    return partial(_differentiated, criterion)


def loss_slope(criterion: Callable[[Tensor, Tensor], Tensor], output: Tensor, target: Tensor) -> Tensor:
    """The gradient of a criterion with respect to the output, by reverse mode.

    >>> loss_slope(nn.MSELoss(), torch.ones(2), torch.zeros(2)).tolist()
    [1.0, 1.0]
    """
    with torch.enable_grad():
        leaf = output.detach().requires_grad_()
        return torch.autograd.grad(criterion(leaf, target), leaf, materialize_grads=True)[0]


def _differentiated(criterion: Callable[..., Tensor], output: Tensor, target: Tensor, tangent: Tensor) -> Tensor:
    score = grad(lambda inner: criterion(inner, target))
    with ForwardModeLosses():
        try:
            forward: Tensor = jvp(score, (output,), (tangent,))[1]
            return forward
        except NotImplementedError:  # in forward mode; the matrix is symmetric, so reverse mode gives the same
            reverse: Tensor = vjp(score, output)[1](tangent)[0]
            return reverse
        except RuntimeError:
            if torch._C._functorch.peek_interpreter_stack() is not None:
                raise
            return _by_autograd(criterion, output, target, tangent)


def _by_autograd(criterion: Callable[..., Tensor], output: Tensor, target: Tensor, tangent: Tensor) -> Tensor:
    """Without torch.func, which refuses custom autograd functions of the older form."""
    with torch.enable_grad():
        leaf = output.detach().requires_grad_()
        slope = torch.autograd.grad(criterion(leaf, target), leaf, create_graph=True, materialize_grads=True)[0]
        if not slope.requires_grad:
            return torch.zeros_like(output)
        return torch.autograd.grad(slope, leaf, tangent, materialize_grads=True)[0]


def _cross_entropy(criterion: nn.CrossEntropyLoss, output: Tensor, target: Tensor, tangent: Tensor) -> Tensor:
    classes = 0 if output.ndim == 1 else 1
    probabilities = output.softmax(classes)
    scaled = probabilities * tangent
    curved = scaled - probabilities * scaled.sum(classes, keepdim=True)
    return curved * _sample_weights(criterion, output, target, classes)


def _sample_weights(criterion: nn.CrossEntropyLoss, output: Tensor, target: Tensor, classes: int) -> Tensor:
    """The total weight of each sample's log-probabilities, with the mean's divisor in it; singleton class axis."""
    count = output.shape[classes]
    weight = output.new_ones(count) if criterion.weight is None else criterion.weight.to(output)
    smoothing = criterion.label_smoothing
    if target.shape == output.shape and target.is_floating_point():
        shape = [1] * output.ndim
        shape[classes] = count
        smoothed = target * (1 - smoothing) + smoothing / count
        per_sample = (smoothed * weight.view(shape)).sum(classes, keepdim=True)
        divisor: float | Tensor = output.numel() / count
    else:
        per_sample, divisor = label_weights(criterion, target, count, output)
        per_sample = per_sample.unsqueeze(classes) if output.ndim > 1 else per_sample
    return per_sample / divisor if criterion.reduction == "mean" else per_sample


def label_weights(criterion: nn.CrossEntropyLoss, target: Tensor, count: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """The total weight of the log-probabilities of each label, and what the mean divides by.

    >>> label_weights(nn.CrossEntropyLoss(ignore_index=1), torch.tensor([0, 1, 2]), 3, torch.zeros(1))
    (tensor([1., 0., 1.]), tensor(2.))
    """
    weight = like.new_ones(count) if criterion.weight is None else criterion.weight.to(like)
    smoothing = criterion.label_smoothing
    counted = target != criterion.ignore_index
    own = torch.where(counted, weight[torch.where(counted, target, 0)], 0.0)
    return own * (1 - smoothing) + torch.where(counted, weight.sum() * smoothing / count, 0.0), own.sum()


def _binary(criterion: nn.BCEWithLogitsLoss, output: Tensor, target: Tensor, tangent: Tensor) -> Tensor:
    probability = output.sigmoid()
    curved = probability * (1 - probability) * tangent
    if criterion.pos_weight is not None:
        curved = curved * (1 + (criterion.pos_weight.to(output) - 1) * target)
    if criterion.weight is not None:
        curved = curved * criterion.weight.to(output)
    return curved / output.numel() if criterion.reduction == "mean" else curved
