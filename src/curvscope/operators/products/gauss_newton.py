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
        output, self._pull_back = vjp(self._network, self.values)
        # The loss's Hessian is symmetric: reverse mode through its gradient gives its products, for every criterion.
        _, self._curve = vjp(grad(self._criterion), output.detach())

    def __call__(self, tangents: Tensor) -> Tensor:
        """(c, D) tangents to (c, D) products."""
        products = vmap(self._one)(self.parameters.split(tangents))
        return self.parameters.join(products, leading=(tangents.shape[0],))

    def _one(self, tangent: Values) -> Values:
        _, forward = jvp(self._network, (self.values,), (tangent,))
        return self._pull_back(self._curve(forward)[0])[0]
