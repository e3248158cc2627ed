"""Whether second derivatives of a loss are right: by this library, and by the routes that PyTorch offers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap

from curvscope.errors import CurvscopeError, InvalidArgument
from curvscope.operators import Hessian, Objective
from curvscope.operators.objective import Batch, CallWithModel, Loss, Values, models_own_loss, move, takes_model
from curvscope.system import long_work

LIMIT = 1e-6
"""Largest relative error of a right product in float64, unless the differences themselves are less exact."""

STEP = 1e-3
"""Step of the differences, relative to the parameters' norm."""

ROUTES = ("curvscope", "double backward", "forward over reverse", "vmap")


@dataclass(frozen=True)
class Verdict:
    """Outcome of one route.

    Attributes:
        error: relative error of its product; NaN where it has none.
        limit: largest error that counts as right.
        reason: why there is no product, else "".
    """

    error: float
    limit: float
    reason: str = ""

    @property
    def outcome(self) -> str:
        """``"right"``, ``"wrong"`` or ``"refused"``."""
        return "refused" if self.reason else "right" if self.error <= self.limit else "wrong"

    def __str__(self) -> str:
        return f"refused: {self.reason}" if self.reason else f"{self.outcome}, relative error {self.error:.1e}"


@dataclass(frozen=True)
class SecondDerivatives:
    """Result of :func:`check_second_derivatives`.

    Attributes:
        routes: a verdict for each of ``"curvscope"``, ``"double backward"``, ``"forward over reverse"`` and ``"vmap"``.
        gradient: the gradient along a direction against differences of the loss.
        oracle_error: how far differences with two steps are apart, relatively; large at kinks.
        torch_version: of the PyTorch that was judged.

    >>> right, wrong = Verdict(1e-9, 1e-6), Verdict(0.5, 1e-6)
    >>> print(SecondDerivatives({"curvscope": right, "vmap": wrong}, right, 1e-11, "2.14.0"))
    PyTorch 2.14.0, against central differences in float64 (themselves exact to 1.0e-11)
    gradient               right, relative error 1.0e-09
    curvscope              right, relative error 1.0e-09
    vmap                   wrong, relative error 5.0e-01
    """

    routes: dict[str, Verdict]
    gradient: Verdict
    oracle_error: float
    torch_version: str

    @property
    def passed(self) -> bool:
        """True if the products of this library, and the gradient that they belong to, are right."""
        return self.gradient.outcome == self.routes["curvscope"].outcome == "right"

    def __str__(self) -> str:
        accuracy = f"themselves exact to {self.oracle_error:.1e}"
        head = f"PyTorch {self.torch_version}, against central differences in float64 ({accuracy})"
        lines = {"gradient": self.gradient, **self.routes}
        return "\n".join([head, *(f"{name:<22} {verdict}" for name, verdict in lines.items())])


def check_second_derivatives(model: nn.Module, loss: Loss, batch: Batch, *, seed: int = 0) -> SecondDerivatives:
    r"""Compare second derivatives of a loss with central differences, by this library and by PyTorch's own routes.

    .. math:: H v \approx \frac{4 D_h - D_{2h}}{3}, \qquad
        D_h = \frac{\nabla L(\theta + h v) - \nabla L(\theta - h v)}{2 h}

    with a random v, in float64 and evaluation mode. The gradient itself is compared with differences of the loss, which need
    no derivative rule at all. PyTorch's routes get a float64 copy of the model as it is, without any of our replacements.
    Nothing is raised for a wrong product: look at ``passed``, or print the result.

    Args:
        model: any module; it is not changed.
        loss: as for :func:`.curvature.hessian`.
        batch: one batch, a few samples; small networks tell more exactly.
        seed: of the direction.

    Cost: 8 gradients, 8 losses and one product by each route, of which one is traced. Memory: three copies of the model.
    Limits: padding rows of embeddings are held fixed, as PyTorch holds them; one that also serves as another layer's weight
    (tied) is not told apart. One direction is checked. Piecewise linear networks have kinks, where ``oracle_error`` is large
    and counts.

    Raises:
        InvalidArgument: a model or batch that an operator could not be made of, as :func:`.curvature.hessian` says.

    >>> model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    >>> batch = torch.eye(2), torch.ones(2, 1)
    >>> check_second_derivatives(model, nn.MSELoss(), batch).passed
    True
    """
    objective = Objective(model, loss, [batch], dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(objective.parameters.size, generator=generator, dtype=torch.float64, device="cpu").to(objective.device)
    v /= v.norm()
    scale = float(objective.parameters.join(objective.values).norm()) or 1.0
    expected, gradient, oracle_error = _differences(objective, v * _free(model, objective), STEP * scale)
    limit = max(LIMIT, 10 * oracle_error)
    own = _OwnLoss(model, loss, batch, objective)
    products: dict[str, Callable[[], Tensor]] = {
        "curvscope": lambda: _ours(objective, v),
        "double backward": lambda: own.double_backward(v),
        "forward over reverse": lambda: own.forward_over_reverse(v[None])[0],
        "vmap": lambda: own.vectorized(torch.stack([v, -v]))[0],
    }
    routes = {name: _judged(product, expected, limit) for name, product in products.items()}
    return SecondDerivatives(routes, gradient, oracle_error, torch.__version__.split("+")[0])


def _free(model: nn.Module, objective: Objective) -> Tensor:
    """One where a parameter moves, zero in padding rows, which embeddings hold fixed."""
    free = torch.ones(objective.parameters.size, dtype=torch.float64, device=objective.device)
    pieces = dict(zip(objective.parameters.names, objective.parameters.split(free), strict=True))
    for name, module in model.named_modules():
        row = getattr(module, "padding_idx", None)
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and row is not None and f"{name}.weight" in pieces:
            pieces[f"{name}.weight"][row] = 0.0
    return free


def _ours(objective: Objective, v: Tensor) -> Tensor:
    with long_work():
        return Hessian(objective) @ v


def _judged(product: Callable[[], Tensor], expected: Tensor, limit: float) -> Verdict:
    try:
        found = product().detach()
    except (CurvscopeError, RuntimeError, NotImplementedError, TypeError, ValueError, AttributeError, AssertionError) as error:
        return Verdict(float("nan"), limit, str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__)
    apart = float((found - expected).norm()) / (float(expected.norm()) or 1.0)
    return Verdict(apart if apart == apart else float("inf"), limit)


def _differences(objective: Objective, v: Tensor, step: float) -> tuple[Tensor, Verdict, float]:
    """H v by fourth-order differences of gradients, the gradient's verdict by differences of losses, and their accuracy."""
    parameters = objective.parameters
    with objective.isolated():
        batch, _ = next(objective.batches())

        def moved(t: float) -> Values:
            """Parameters at theta + t v."""
            return tuple(x + t * piece for x, piece in zip(objective.values, parameters.split(v), strict=True))

        def gradient(t: float) -> Tensor:
            """Gradient of the loss at theta + t v."""
            objective.seed(0)
            with torch.enable_grad():
                values = tuple(value.requires_grad_() for value in moved(t))
                value = objective.loss(values, batch).reshape(())
                return parameters.join(torch.autograd.grad(value, values, materialize_grads=True))

        def loss(t: float) -> Tensor:
            """Loss at theta + t v."""
            objective.seed(0)
            return objective.loss_value(moved(t), batch).reshape(())

        fine, coarse = _fourth_order(gradient, step / 2), _fourth_order(gradient, step)
        slope, again = _fourth_order(loss, step / 2), _fourth_order(loss, step)
        found = gradient(0.0)
    size = float(fine.norm()) or 1.0
    along = float(found.norm()) or 1.0
    error, uncertain = abs(float(found @ v - slope)) / along, abs(float(slope - again)) / along
    return fine, Verdict(error, max(LIMIT, 10 * uncertain)), float((fine - coarse).norm()) / size


def _fourth_order(function: Callable[[float], Tensor], step: float) -> Tensor:
    near = (function(step) - function(-step)) / (2 * step)
    far = (function(2 * step) - function(-2 * step)) / (4 * step)
    return (4 * near - far) / 3


class _OwnLoss:
    """The user's loss as a function of a float64 copy of the parameters, in plain PyTorch."""

    def __init__(self, model: nn.Module, loss: Loss, batch: Batch, objective: Objective) -> None:
        self.model = copy.deepcopy(model).double().eval()
        self.batch = move(batch, objective.device, torch.float64)
        self.parameters = objective.parameters
        self.values = objective.values
        function = models_own_loss if loss == "model" else loss
        if not callable(function):
            raise InvalidArgument(f"loss is {loss!r}, expected a criterion, a function loss(model, batch) or 'model'")
        criterion = copy.deepcopy(function).double() if isinstance(function, nn.Module) else function
        pair = function is not models_own_loss and not takes_model(function)
        self._call = CallWithModel(self.model, (lambda net, data: criterion(net(data[0]), data[1])) if pair else function)

    def __call__(self, values: Values) -> Tensor:
        named = {f"model.{name}": value for name, value in zip(self.parameters.names, values, strict=True)}
        result: Tensor = functional_call(self._call, named, (self.batch,))
        return result.reshape(())

    def double_backward(self, v: Tensor) -> Tensor:
        """Reverse over reverse."""
        with torch.enable_grad():
            values = tuple(value.detach().clone().requires_grad_() for value in self.values)
            gradient = torch.autograd.grad(self(values), values, create_graph=True, materialize_grads=True)
            slope = self.parameters.join(gradient) @ v
            return self.parameters.join(torch.autograd.grad(slope, values, materialize_grads=True))

    def forward_over_reverse(self, vectors: Tensor) -> Tensor:
        """One product after another."""
        return torch.stack([self._jvp(v) for v in vectors])

    def vectorized(self, vectors: Tensor) -> Tensor:
        """Products at once."""
        return vmap(self._jvp)(vectors)

    def _jvp(self, v: Tensor) -> Tensor:
        values = tuple(value.detach().clone() for value in self.values)
        return self.parameters.join(jvp(grad(self), (values,), (tuple(self.parameters.split(v)),))[1])
