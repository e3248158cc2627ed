"""Hessian products by differentiating the gradient's graph once more; the graph is kept for all vectors of a block."""

from __future__ import annotations

import torch
from torch import Tensor

from curvscope.errors import NotDifferentiable
from curvscope.operators.objective import Batch, Objective


class RetainedGradient:
    """The Hessian of one batch as a linear map on blocks of tangents.

    The gradient is built once with its graph; a block of tangents then costs one batched backward pass through that graph.

    Cost: about 1 gradient to build, 1 to 2 gradients a vector; memory: the graph, and activations times the block's width.
    """

    def __init__(self, objective: Objective, batch: Batch) -> None:
        self.parameters = objective.parameters
        with torch.enable_grad():
            self.values = tuple(value.detach().requires_grad_() for value in objective.values)
            loss = objective.loss(self.values, batch).reshape(())
            if not loss.requires_grad:
                raise NotDifferentiable("the loss does not depend on the chosen parameters, or is computed under no_grad")
            self.gradient = torch.autograd.grad(loss, self.values, create_graph=True, materialize_grads=True)

    def __call__(self, tangents: Tensor) -> Tensor:
        """(c, D) tangents to (c, D) products."""
        pieces = self.parameters.split(tangents)
        # Entries of the gradient that are constant in the parameters have no graph and add nothing.
        live = [(g, piece) for g, piece in zip(self.gradient, pieces, strict=True) if g.requires_grad]
        if not live:
            return torch.zeros_like(tangents)
        outputs, seeds = zip(*live, strict=True)
        found = torch.autograd.grad(outputs, self.values, seeds, retain_graph=True, allow_unused=True, is_grads_batched=True)
        # Parameters that no second derivative reaches come back as None (materialize_grads forgets the batch axis).
        products = [torch.zeros_like(piece) if g is None else g for g, piece in zip(found, pieces, strict=True)]
        return self.parameters.join(products, leading=(tangents.shape[0],))
