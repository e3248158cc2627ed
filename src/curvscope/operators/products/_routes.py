"""The product of one mini-batch's map with a few vectors by independent routes, to be compared with one another."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from curvscope.errors import CurvscopeError, NotFinite
from curvscope.operators.objective import Batch, Objective, few_samples
from curvscope.operators.products._constants import FrozenConstants
from curvscope.operators.products._double_backward import DoubleBackward
from curvscope.operators.products._maps import BatchMap, Pieces, nodes_behind
from curvscope.operators.products._suspects import wrong_operations

NUM_VECTORS = 2
"""Vectors that routes are compared on where there is doubt; where they agree, the first one has shown it."""
STEPS = (1e-6, 1e-4, 1e-8)
"""Steps in float64 relative to the parameters: small ones cross fewer kinks of piecewise linear networks."""
COARSE_STEPS = (3e-3, 3e-2, 3e-4)
"""The same for models that compute in float32."""

Products = list[Tensor]
ROUTE_ERRORS = (CurvscopeError, RuntimeError, NotImplementedError, TypeError, ValueError, AssertionError, LookupError)
"""What models raise where a route cannot run."""


class Routes:
    """Three routes to the same products; see :mod:`.verification`.

    Args:
        batch_map: of one mini-batch.
        piece: the mini-batch, as the objective's ``batches`` give it; call everything inside the objective's ``isolated``.

    Attributes:
        eps: machine epsilon of what the loss is computed in.
        steps: for differences, the most promising one first.
        num_vectors: how many vectors to multiply.
    """

    def __init__(self, batch_map: BatchMap, piece: Batch) -> None:
        self.map, self.raw = batch_map, piece
        self.objective: Objective = batch_map.objective
        self.objective.seed(0)
        self.piece = batch_map.prepare(piece, 0)
        self.eps = self.objective.rounding
        self.steps = STEPS if self.is_precise else COARSE_STEPS
        self.num_vectors = 1
        self._vectors: list[Tensor] = []

    @property
    def is_precise(self) -> bool:
        """True if differences are accurate enough to tell small faults: all of the loss is computed in float64."""
        return self.eps < 1e-12

    @property
    def vectors(self) -> list[Tensor]:
        """Random directions, scaled like the parameters: every tensor takes part."""
        values = self.objective.values
        while len(self._vectors) < self.num_vectors:
            # Uniform numbers: normal ones take longer than a gradient of few samples where there are many parameters.
            generator = torch.Generator().manual_seed(len(self._vectors))
            sizes = [float(value.norm()) / max(value.numel(), 1) ** 0.5 for value in values]
            least = max(0.1 * max(sizes, default=1.0), 1e-3)
            drawn = [torch.rand(v.shape, generator=generator, dtype=torch.float32, device="cpu").sub_(0.5) for v in values]
            scaled = [d.to(v).mul_(max(size, least)) for d, v, size in zip(drawn, values, sizes, strict=True)]
            self._vectors.append(self.objective.parameters.join(scaled))
        return self._vectors[: self.num_vectors]

    def use(self, vectors: list[Tensor]) -> None:
        """Multiply these vectors."""
        self._vectors, self.num_vectors = vectors, len(vectors)

    def attempt(self, route: Callable[[], Products]) -> Products | Exception:
        """The products by a route, or why it cannot run here."""
        try:
            return route()
        except ROUTE_ERRORS as error:
            return error.with_traceback(None)  # whose frames would hold the tensors that did not fit

    def forward(self) -> Products:
        """Forward over reverse, or J v in forward mode: what is traced. About 3 gradients a vector."""
        found = []
        for vector in self._split():
            self.objective.seed(0)
            with torch.no_grad():
                found.append(self._joined(self.map.forward(self.objective.values, self.piece, vector)))
        return found

    def reverse(self) -> Products:
        """Reverse over reverse. About 1 gradient, and 2 a vector."""
        linear = DoubleBackward(self.map).linearize(self.piece, 0, 1)
        return [self._joined([p if p is None else p[0] for p in linear(vector[None])]) for vector in self.vectors]

    def differences(self, step: float) -> Products:
        """Central differences, with constants of reverse mode held at their values here. 2 gradients a vector."""
        constants = self._constants
        return [self._joined(self.map.differences(self.piece, vector, step, constants)) for vector in self._split()]

    def custom_functions(self) -> list[str]:
        """Names of the custom autograd functions that the loss goes through: where derivatives are wrong most often."""
        objective = self.objective
        objective.seed(0)
        try:
            with torch.enable_grad():
                loss = objective.loss(objective.leaves(objective.values), self.piece)
        except ROUTE_ERRORS:
            return []
        nodes = nodes_behind([loss])
        names = {type(n).__name__.removesuffix("Backward") for n in nodes if isinstance(n, torch.autograd.function.FunctionCtx)}
        return sorted(names)

    def wrong_operations(self, *, forward: bool) -> list[str]:
        """Names of operations whose derivatives are wrong in forward mode, or in reverse mode; see :mod:`._suspects`."""
        objective = self.objective
        objective.seed(0)
        try:
            return wrong_operations(lambda: objective.loss(objective.leaves(objective.values), self.piece), forward=forward)
        except ROUTE_ERRORS:
            return []

    def rounding(self, reverse: Products) -> float:
        """Relative change of reverse over reverse under rounding of its own inputs, and of the order of the sum over samples.

        Each parameter moves by one unit in the last place. About 5 gradients.
        """
        other = copy.copy(self.objective)
        generator = torch.Generator().manual_seed(1)
        signs = (
            torch.randint(0, 2, v.shape, generator=generator, device="cpu").to(v.device) * 2 - 1 for v in self.objective.values
        )
        other.values = tuple(v * (1 + self.eps * sign) for v, sign in zip(self.objective.values, signs, strict=True))
        moved = self.map.on(other)
        if moved is None:
            return 0.0
        again = Routes(moved, self._turned())
        again.use(self.vectors)
        try:
            return apart(again.reverse(), reverse)
        except ROUTE_ERRORS:
            return 0.0

    def _turned(self) -> Batch:
        """The samples in reverse order, where that is the same batch."""
        if self.objective.draws or self.piece is not self.raw or few_samples(self.raw) is not self.raw:
            return self.raw
        return tree_map_only(Tensor, lambda tensor: tensor.flip(0) if tensor.ndim else tensor, self.raw)

    @cached_property
    def _constants(self) -> FrozenConstants:
        constants, objective = FrozenConstants(), self.objective
        values = objective.leaves(objective.values)
        objective.seed(0)
        with torch.enable_grad(), constants.noted():
            objective.loss(values, self.piece)
        return constants

    def _split(self) -> list[tuple[Tensor, ...]]:
        return [self.objective.parameters.split(vector) for vector in self.vectors]

    def _joined(self, pieces: Pieces | Sequence[Tensor | None]) -> Tensor:
        values = self.objective.values
        filled = [torch.zeros_like(v) if p is None else p.detach() for p, v in zip(pieces, values, strict=True)]
        product = self.objective.parameters.join(filled)
        if not bool(torch.isfinite(product).all()):
            raise not_finite(self.objective)
        return product


def apart(found: Products, expected: Products) -> float:
    """Largest relative difference of any of the products.

    >>> apart([torch.tensor([1.0, 0.0])], [torch.tensor([0.0, 0.0])])
    1.0
    """
    largest = 0.0
    for ours, theirs in zip(found, expected, strict=True):
        difference = float((ours.to(theirs.dtype) - theirs).norm())
        if difference:
            largest = max(largest, difference / max(float(ours.norm()), float(theirs.norm())))
    return largest


def asymmetry(products: Products, vectors: Sequence[Tensor]) -> float:
    """Return how far <x, A y> is from <y, A x>, relative to the norms, for the first two vectors.

    >>> a = torch.tensor([[1.0, 2.0], [0.0, 1.0]])
    >>> round(asymmetry([a[:, 0], a[:, 1]], [torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])]), 3)
    0.618
    """
    (x, y), (of_x, of_y) = (vector.double() for vector in vectors[:2]), (product.double() for product in products[:2])
    scale = float(x.norm() * of_y.norm() + y.norm() * of_x.norm())
    return abs(float(x @ of_y - y @ of_x)) / scale if scale else 0.0


def not_finite(objective: Objective) -> NotFinite:
    """The error for a product that is not finite though its vector is."""
    return NotFinite(
        "a product is NaN or infinite: the loss is not twice differentiable at these parameters, or overflows in "
        f"{objective.dtype}; dtype=torch.float64 tells which"
    )
