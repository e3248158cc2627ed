"""Products by central differences of the gradient, for models that PyTorch cannot differentiate twice."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from curvscope.errors import UnverifiedDerivatives
from curvscope.operators.objective import Batch
from curvscope.operators.products._kinks import FixedPieces
from curvscope.operators.products._maps import BatchMap, Pieces
from curvscope.operators.products._strategy import Footprint, Linearized, Strategy

BY_DIFFERENCES = ("differences", "extrapolated_differences")
"""Strategies that approximate the matrix; they are never chosen by themselves."""

WIDER = 1.5
"""The first of the two steps of extrapolated differences, over that of plain ones: another step, whose noise is another."""

LARGEST_ERROR = 0.1
"""Relative error of a product that is nothing but error."""

MOST_TRIALS = 8
"""Steps that are tried, three times larger each, until a difference shows the third derivative."""


@dataclass(frozen=True)
class Calibration:
    """The step of central differences, and what they get wrong with it, measured on the first mini-batch.

    Attributes:
        step: length of the step along a vector, whatever the vector's norm.
        noise: norm of the error of one gradient.
        third: largest norm of a third derivative along unit vectors that was found.
        error: relative error of products with vectors of large eigenvalues.
    """

    step: float
    noise: float
    third: float
    error: float

    @property
    def summary(self) -> str:
        """In words, for provenance.

        >>> Calibration(1e-3, 1e-7, 30.0, 2e-5).summary
        'central differences of the gradient with step 1.0e-03, right to 2e-05 as measured by two steps'
        """
        told = f"right to {self.error:.0e} as measured by two steps"
        return f"central differences of the gradient with step {self.step:.1e}, {told}"


def calibrate(batch_map: BatchMap) -> Calibration:
    r"""Choose the step of central differences from the noise of the gradient, and measure their error by two steps.

    The error of :math:`D_h v = (g(\theta + h v) - g(\theta - h v)) / 2h` is :math:`\sigma / \sqrt{2} h` of noise and
    :math:`h^2 T / 6` of the third derivative, least together at :math:`h^3 = 3 \sigma / \sqrt{2} T`. The noise
    :math:`\sigma` is what tiny steps show, T what large ones show, along an approximate eigenvector of the largest
    eigenvalue, where both matter most.

    Args:
        batch_map: of one mini-batch.

    Cost: some 25 gradients of the first mini-batch.

    Raises:
        UnverifiedDerivatives: differences with other steps are others: the gradient jumps, or is nothing but noise.
    """
    objective = batch_map.objective
    with objective.isolated():
        batch, _ = next(objective.batches())
        objective.seed(0)
        along = _Differences(batch_map, batch_map.prepare(batch, 0), 0)
        size, eps = objective.parameters.size, torch.finfo(objective.dtype).eps
        first = eps ** (1 / 3)
        direction = _random(batch_map, size)
        for _ in range(3):  # enough for a vector of large eigenvalues
            product = along(direction, first)
            if not (norm := float(product.norm())) or not math.isfinite(norm):
                break
            direction = product / norm
        tiny = max(eps**0.5, 1e-8)
        noise = _apart(along, direction, tiny) * tiny / math.sqrt(5 / 8)
        step, third = _best(along, direction, noise, first)
        found = along(direction, step)
        error = math.hypot(float((along(direction, 2 * step) - found).norm()) / 3, noise / (math.sqrt(2) * step))
        norm = float(found.norm())
    relative = error / norm if norm else 0.0
    if not relative <= LARGEST_ERROR:
        raise UnverifiedDerivatives(
            f"central differences of the gradient with other steps differ by {relative:.0e} of the product: the gradient jumps "
            "(kinks of operations that are not known), or is too noisy",
            "Choose dtype=torch.float64, or write the operation with kinks by functions of PyTorch",
        )
    return Calibration(step, noise, third, relative)


def _best(along: Callable[[Tensor, float], Tensor], direction: Tensor, noise: float, first: float) -> tuple[float, float]:
    """The step with the least error, and the third derivative."""
    step, third = first, 0.0
    for _ in range(MOST_TRIALS):
        change = _apart(along, direction, step)
        third = 2 * change / step**2
        if change > 3 * noise / step:  # more than noise explains
            break
        step *= 3
    if not (noise and third):
        return first, third
    return min((3 * noise / (math.sqrt(2) * third)) ** (1 / 3), step), third


def _apart(along: Callable[[Tensor, float], Tensor], direction: Tensor, step: float) -> float:
    """By how much twice the step changes the difference."""
    return float((along(direction, step) - along(direction, 2 * step)).norm())


def _random(batch_map: BatchMap, size: int) -> Tensor:
    objective = batch_map.objective
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(size, generator=generator, dtype=torch.float32, device="cpu")
    direction: Tensor = drawn / drawn.norm()
    return direction.to(objective.device, objective.dtype)


class Differences(Strategy):
    """Central differences of the gradient; (of the output, for J' C J).

    Not exact: see :class:`Calibration`. What reverse mode holds constant, and the sides of kinks, stay as they are at the
    parameters. Cost: 2 gradients a vector, 4 extrapolated, where the leading error of two steps cancels.
    """

    name = "differences"

    def __init__(self, batch_map: BatchMap, *, extrapolated: bool = False) -> None:
        super().__init__(batch_map)
        self.extrapolated = extrapolated

    def linearize(self, batch: Batch, number: int, width: int) -> Linearized:
        """Note what stays fixed; one evaluation."""
        return _Stepping(self, batch, number)

    def footprint(self, batch: Batch, number: int, width: int) -> Footprint:
        """From the tensors that the graph of one gradient saves."""
        objective, saved = self.map.objective, [0]

        def pack(tensor: Tensor) -> Tensor:
            """Note its size."""
            saved[0] += tensor.untyped_storage().nbytes()
            return tensor

        objective.seed(number)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), torch.enable_grad():
            objective.loss(objective.leaves(objective.values), batch)
        vector = objective.parameters.size * torch.finfo(objective.dtype).bits // 8
        return Footprint(saved[0], 0, saved[0] + 4 * vector)


class _Stepping(Linearized):
    width, held_bytes = 1, 0

    def __init__(self, strategy: Differences, batch: Batch, number: int) -> None:
        self._along = _Differences(strategy.map, batch, number)
        self._map, self._extrapolated = strategy.map, strategy.extrapolated

    def __call__(self, tangents: Tensor) -> Pieces:
        calibration = self._map.calibration
        assert calibration is not None, "the engine calibrates before the first product"
        (tangent,) = tangents
        norm = float(torch.linalg.vector_norm(tangent, dtype=torch.float64))
        if not norm:
            return (None,) * len(self._map.objective.values)
        step = calibration.step / norm
        if not self._extrapolated:
            product = self._along(tangent, step)
        else:
            step *= WIDER
            product = (4 * self._along(tangent, step) - self._along(tangent, 2 * step)) / 3
        return tuple(piece[None] for piece in self._map.objective.parameters.split(product))


class _Differences:
    """Central differences on one mini-batch along (D,) tangents, with any step."""

    def __init__(self, batch_map: BatchMap, batch: Batch, number: int) -> None:
        self._map, self._batch, self._number = batch_map, batch, number
        objective = batch_map.objective
        self._fixed = FixedPieces()
        objective.seed(number)
        values = objective.leaves(objective.values)  # outside: they are detached, which is no constant of the loss
        with torch.enable_grad(), self._fixed.noted():
            objective.loss(values, batch)

    def __call__(self, tangent: Tensor, step: float) -> Tensor:
        values = self._map.objective.values
        pieces = self._map.differences(
            self._batch, self._map.objective.parameters.split(tangent), step, self._fixed, number=self._number
        )
        filled = [torch.zeros_like(v) if p is None else p.detach() for p, v in zip(pieces, values, strict=True)]
        return self._map.objective.parameters.join(filled)
