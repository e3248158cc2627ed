"""Loss and accuracy on straight lines in the parameters: between two checkpoints, and along eigenvectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.operators import Objective, Operator
from curvscope.operators.objective import check_substitution
from curvscope.store import Saved
from curvscope.system import Displayed, Hinted, checked, frame

Point = Mapping[str, Tensor] | Tensor
"""Parameters by name, such as a state dict, or as the flat (D,) vector."""


@dataclass(frozen=True, repr=False)
class LineProfile(Saved, Displayed, Hinted):
    """Loss (and accuracy) at points of a line w(a).

    Attributes:
        alpha: float64 (n,), ascending.
        loss: float64 (n,).
        accuracy: float64 (n,), of the samples that the criterion does not ignore; None where targets are no class indices.
        quadratic: float64 (n,), what gradient and curvature at a = 0 predict; None where they are not known.

    >>> line = LineProfile(alpha=torch.tensor([0.0, 0.5, 1.0]).double(), loss=torch.tensor([1.0, 3.0, 2.0]).double())
    >>> line.barrier    # above the chord, which is at 1.5 in the middle
    1.5
    """

    alpha: Tensor
    loss: Tensor
    accuracy: Tensor | None = None
    quadratic: Tensor | None = None

    _instead: ClassVar[Mapping[str, str]] = {
        "value": "line.loss",
        "x": "line.alpha",
        "points": "line.alpha",
        "losses": "line.loss",
    }

    @property
    def values(self) -> Tensor:
        """Short for ``loss``: the word for the numbers of every curve."""
        return self.loss

    def __len__(self) -> int:
        return len(self.alpha)

    def __iter__(self) -> Iterator[Tensor]:
        """(alpha, loss), to unpack and to plot."""
        yield self.alpha
        yield self.loss

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        parts = {"alpha": self.alpha, "loss": self.loss, "accuracy": self.accuracy, "quadratic": self.quadratic}
        return {name: part.tolist() for name, part in parts.items() if part is not None}

    def to_pandas(self) -> Any:
        """A data frame with a row for each point: alpha, loss, and what else is known; needs pandas."""
        return frame(self.to_dict())

    def __str__(self) -> str:
        lowest = int(self.loss.argmin())
        return (
            f"Loss at {len(self)} points of a line, a = {float(self.alpha[0]):.3g} to {float(self.alpha[-1]):.3g}\n"
            f"ends {float(self.loss[0]):.5g} and {float(self.loss[-1]):.5g}, lowest {float(self.loss[lowest]):.5g} at "
            f"a = {float(self.alpha[lowest]):.3g}, highest {float(self.loss.max()):.5g}"
        )

    @property
    def barrier(self) -> float:
        """Max over 0 <= a <= 1 of L(a) - (1 - a) L(0) - a L(1): how far the loss rises above the chord; at least 0.

        NaN where a loss between them is NaN.

        Raises:
            InvalidArgument: the line was not evaluated at 0 and 1.
        """
        ends = [(self.alpha - end).abs().min() for end in (0.0, 1.0)]
        if max(ends) > 1e-9:
            raise InvalidArgument("the barrier is between a = 0 and a = 1: evaluate the line at both")
        first, last = (self.loss[(self.alpha - end).abs().argmin()] for end in (0.0, 1.0))
        inside = (self.alpha >= -1e-9) & (self.alpha <= 1 + 1e-9)
        a = self.alpha[inside]
        return float((self.loss[inside] - (1 - a) * first - a * last).max().clamp(min=0))  # NaN stays NaN

    def plot(self, ax: Any = None) -> Any:
        """Draw loss, and where known its quadratic model and the accuracy, into matplotlib axes; returns the axes."""
        if ax is None:
            from matplotlib import pyplot

            ax = pyplot.gca()
        (line,) = ax.plot(self.alpha, self.loss, label="loss")
        if self.quadratic is not None:
            ax.plot(self.alpha, self.quadratic, color=line.get_color(), linestyle=":", label="quadratic model")
        ax.set(xlabel="a", ylabel="loss")
        if self.accuracy is not None:
            other = ax.twinx()
            other.plot(self.alpha, self.accuracy, color="0.45", linestyle="--")
            other.set(ylabel="accuracy (dashed)", ylim=(0, 1.02))
        ax.legend(loc="best")
        return ax


@checked
def interpolate(
    objective: Objective | Operator,
    first: Point,
    second: Point,
    *,
    points: int = 25,
    span: tuple[float, float] = (0.0, 1.0),
) -> LineProfile:
    """Loss and accuracy on w(a) = (1 - a) first + a second.

    Args:
        objective: the loss and its data; buffers and frozen parameters are those of its model.
        first: parameters at a = 0.
        second: those at a = 1.
        points: evenly spaced, both ends of the span among them; 0 and 1 are added where they lie inside.
        span: of a.

    Cost: an evaluation of the loss on all data a point.

    Raises:
        InvalidArgument: parameters are missing or have another shape, fewer than 2 points, an empty span.
    Source: Goodfellow, Vinyals and Saxe (2015); Sagun et al. (arXiv 1706.04454), figure 8.

    >>> from torch import nn
    >>> net, data = nn.Linear(1, 1, bias=False), [(torch.ones(1, 1), torch.zeros(1, 1))]
    >>> line = interpolate(Objective(net, nn.MSELoss(), data), {"weight": -torch.ones(1, 1)}, {"weight": torch.ones(1, 1)})
    >>> round(line.loss[0].item(), 6), line.barrier    # w^2 from -1 to 1: no barrier
    (1.0, 0.0)
    """
    objective = _objective(objective)
    low, high = span
    if points < 2 or not low < high:
        raise InvalidArgument(f"points={points}, span={span}: choose at least 2 points and an increasing span")
    start, end = (_vector(objective, place) for place in (first, second))
    alpha = torch.linspace(low, high, points, dtype=torch.float64, device="cpu")
    extra = [end for end in (0.0, 1.0) if low <= end <= high and float((alpha - end).abs().min()) > 1e-9]
    alpha = torch.cat([alpha, torch.tensor(extra, dtype=torch.float64, device="cpu")]).sort().values
    return _profile(objective, alpha, lambda a: torch.lerp(start, end, a))


@checked
def loss_along(
    operator: Operator, direction: Point, *, radius: float = 1.0, points: int = 21, eigenvalue: float | None = None
) -> LineProfile:
    """Loss and accuracy on w + a v, beside the quadratic model L + a g'v + a^2 v'Hv / 2.

    Args:
        operator: a curvature operator at w; with a Hessian the model is the second-order Taylor polynomial.
        direction: v, (D,) or tensors by parameter name, such as ``solution.vector(0)``; it is normalised.
        radius: a goes from -radius to radius.
        points: odd, so that a = 0 is one of them.
        eigenvalue: v'Hv where it is known; None: one product.

    Cost: an evaluation of the loss on all data a point, one gradient, one product.

    Raises:
        InvalidArgument: another D, a zero direction, sizes that cannot work.

    >>> from torch import nn
    >>> from curvscope.operators import hessian
    >>> H = hessian(nn.Linear(2, 1), nn.MSELoss(), [(torch.eye(2), torch.ones(2, 1))])
    >>> line = loss_along(H, torch.ones(3))
    >>> torch.allclose(line.loss, line.quadratic, atol=1e-5)    # linear least squares
    True
    """
    if (objective := getattr(operator, "objective", None)) is None:
        raise InvalidArgument(f"pass a curvature operator such as curvscope.hessian(...), not a {type(operator).__name__}")
    if points < 3 or points % 2 == 0 or not 0 < radius < inf:
        raise InvalidArgument(
            f"points={points}, radius={radius}: choose an odd number of points, at least 3, and a finite radius > 0"
        )
    along = direction if isinstance(direction, Tensor) else objective.parameters.flatten(direction)
    if along.shape != (operator.shape[0],) or not float(along.norm()) > 0:
        raise InvalidArgument(f"direction of shape {tuple(along.shape)}: expected ({operator.shape[0]},), not zero")
    v = along.to(operator.device, operator.dtype) / along.norm()
    place = objective.parameters.join(objective.values).to(v.dtype)
    slope = float(objective.gradient().to(v.dtype) @ v)
    bend = float(v @ (operator @ v)) if eigenvalue is None else eigenvalue
    alpha = torch.linspace(-radius, radius, points, dtype=torch.float64, device="cpu")
    found = _profile(objective, alpha, lambda a: place + a * v)
    model = found.loss[points // 2] + slope * alpha + 0.5 * bend * alpha.square()
    return LineProfile(alpha, found.loss, found.accuracy, model)


def _profile(objective: Objective, alpha: Tensor, at: Callable[[float], Tensor]) -> LineProfile:
    check_substitution(objective)
    losses, correct = [], []
    for a in alpha.tolist():
        values = objective.parameters.split(at(a).to(objective.device, objective.dtype))
        loss, accuracy = _evaluate(objective, values)
        losses.append(loss)
        correct.append(accuracy)
    known = None if None in correct else torch.tensor(correct, dtype=torch.float64, device="cpu")
    return LineProfile(alpha, torch.tensor(losses, dtype=torch.float64, device="cpu"), known)


@torch.no_grad()
def _evaluate(objective: Objective, values: tuple[Tensor, ...]) -> tuple[float, float | None]:
    """Mean loss, and accuracy where the outputs are logits of class indices."""
    total, right, count = 0.0, 0.0, 0
    with objective.isolated():
        for number, (batch, weight) in enumerate(objective.batches()):
            objective.seed(number)
            if not objective.has_criterion:
                total, right = total + weight * float(objective.loss_value(values, batch)), float("nan")
                continue
            output, targets = objective.output_value(values, batch), batch[1]
            total += weight * float(objective.criterion(output, targets))
            if output.ndim == 2 and targets.ndim == 1 and not targets.is_floating_point():
                counted = targets != getattr(objective.criterion, "ignore_index", -100)
                right += float((output.argmax(dim=1) == targets)[counted].sum())
                count += int(counted.sum())
    return total, right / count if count and right == right else None


def _objective(objective: Objective | Operator) -> Objective:
    found = objective.objective if isinstance(objective, Operator) else objective
    if not isinstance(found, Objective):
        raise InvalidArgument(f"pass a curvscope.Objective(model, loss, data), not a {type(objective).__name__}")
    return found


def _vector(objective: Objective, place: Point) -> Tensor:
    flat = place if isinstance(place, Tensor) else objective.parameters.flatten(place)
    if flat.shape != (objective.parameters.size,):
        raise InvalidArgument(f"parameters of shape {tuple(flat.shape)}: expected ({objective.parameters.size},)")
    return flat.detach().to(objective.device, objective.dtype)
