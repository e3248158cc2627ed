"""Products with the generalised Gauss-Newton matrix: forward through the network, the loss's own Hessian, and back."""

from __future__ import annotations

from torch import Tensor
from torch.func import grad, jvp, vjp, vmap

from curvscope.operators.objective import Batch, Objective, Values


class GaussNewton:
    r"""J^T (d2l/df2) J of one batch as a linear map on blocks of tangents.

    Cost: one forward and one backward sweep a vector, the sweep of the block vectorised; memory: activations times the block's
    width.
    """

    def __init__(self, objective: Objective, batch: Batch) -> None:
        self.parameters, self.values = objective.parameters, objective.values
        self._network = lambda values: objective.output(values, batch)
        self._criterion = lambda output: objective.criterion(output, batch)
        self.output, self._pull_back = vjp(self._network, self.values)

    def __call__(self, tangents: Tensor) -> Tensor:
        """(c, D) tangents to (c, D) products."""
        products = vmap(self._one)(self.parameters.split(tangents))
        return self.parameters.join(products, leading=(tangents.shape[0],))

    def _one(self, tangent: Values) -> Values:
        _, forward = jvp(self._network, (self.values,), (tangent,))
        _, curved = jvp(grad(self._criterion), (self.output.detach(),), (forward,))
        return self._pull_back(curved)[0]
