"""The linear maps of one mini-batch: its Hessian, and J^T C J with C a symmetric map on the network's output.

Each is written twice: as a function that ``torch.func`` can differentiate, batch and trace, and in reverse mode alone, which
works wherever PyTorch can differentiate twice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, jvp, vjp, vmap

from curvscope.errors import NotDifferentiable
from curvscope.operators.objective import Batch, Objective, Values, dependent
from curvscope.operators.products._constants import FrozenConstants, ReverseConstants
from curvscope.operators.products._forward_losses import ForwardModeLosses
from curvscope.operators.products._outputs import FlatOutputs
from curvscope.operators.products._refusals import explained, explanation, message_of
from curvscope.operators.products._token_curvature import TokenCurvature
from curvscope.operators.rules import PendingLogits, materialized

FEW_TOKENS = 64
"""Tokens whose logits are looked at."""

Pieces = tuple[Tensor | None, ...]
OutputCurvature = Callable[[Tensor, Batch, Tensor], Tensor]
"""(output, batch, tangent of the output) to C times the tangent."""


class BatchMap(ABC):
    """A symmetric linear map on parameter-shaped tangents, given a mini-batch."""

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.on: Callable[[Objective], BatchMap | None] = lambda objective: None
        # Facts about the map, whoever multiplies: the verification of its derivatives, and the step of differences.
        self.verdict: Any = None
        self.calibration: Any = None
        self._looked_at = False

    def _refuse_dead_ends(self, gradient: Pieces) -> None:
        """Raise NotDifferentiable where the gradient is marked as one that is not to be differentiated; looked at once.

        Autograd itself says so only on its way through: here nothing lies behind, and the product would be zero.
        """
        if not self._looked_at and (dead_end := _dead_end(gradient)) is not None:
            raise NotDifferentiable(explanation(message_of(dead_end)))
        self._looked_at = True

    def prepare(self, batch: Batch, number: int) -> Batch:
        """Return the argument of :meth:`product` and :meth:`reverse` for mini-batch ``number``; by default the batch."""
        return batch

    @abstractmethod
    def product(self, values: Values, batch: Batch, tangent: Values) -> Values:
        """The product with one tangent, forward over reverse."""

    def forward(self, values: Values, batch: Batch, tangent: Values) -> Values:
        """:meth:`product`, with functions that forward mode lacks computed from others: what is traced."""
        with ForwardModeLosses():
            return self.product(values, batch, tangent)

    @abstractmethod
    def differences(self, batch: Batch, tangent: Values, step: float, constants: FrozenConstants, number: int = 0) -> Pieces:
        """The product from values at plus and minus a step along the tangent; constants were noted without a step.

        ``number``: of the mini-batch, for what is drawn there.
        """

    @abstractmethod
    def reverse(self, batch: Batch) -> Callable[[Values, bool], Pieces]:
        """The map in reverse mode, its graph built once.

        The map takes tangents, with a leading axis when its second argument (batched) is true; None stands for zeros.

        Raises:
            NotDifferentiable: the loss does not depend on the parameters, or cannot be differentiated.
        """


class HessianMap(BatchMap):
    """The Hessian of the mini-batch's loss. Source: Pearlmutter (1994)."""

    def product(self, values: Values, batch: Batch, tangent: Values) -> Values:
        """H v = d/de grad(theta + e v) at e = 0."""

        def loss(inner: Values) -> Tensor:
            """The loss as a function of the parameters."""
            with torch.enable_grad(), ReverseConstants():
                return self.objective.loss(inner, batch).reshape(())

        product: tuple[Tensor, ...] = jvp(grad(loss), (values,), (tangent,))[1]
        return product

    def differences(self, batch: Batch, tangent: Values, step: float, constants: FrozenConstants, number: int = 0) -> Pieces:
        """(g(theta + h v) - g(theta - h v)) / 2h; 2 gradients."""
        found = []
        for h in (step, -step):
            self.objective.seed(number)
            moved = _moved(self.objective.values, tangent, h)
            found.append(self.objective.gradient_at(moved, batch, within=constants.used()))
        return tuple((plus - minus) / (2 * step) for plus, minus in zip(*found, strict=True))

    def reverse(self, batch: Batch) -> Callable[[Values, bool], Pieces]:
        """Differentiate the gradient's graph once more; about 1 gradient to build and 1.5 to 2 gradients a vector."""
        with torch.enable_grad():
            values = self.objective.leaves(self.objective.values)
            loss = dependent(self.objective.loss(values, batch).reshape(()))
            with explained():
                gradient = torch.autograd.grad(loss, values, create_graph=True, allow_unused=True)
        self._refuse_dead_ends(gradient)

        def apply(tangents: Values, batched: bool) -> Pieces:
            """Differentiate the gradient along tangents."""
            return _pull(gradient, values, tangents, batched)

        return apply


class SandwichMap(BatchMap):
    """J^T C J: forward through the network, a map on its output, and back.

    Args:
        objective: with a criterion.
        curve: C, such as the loss's own Hessian for the generalised Gauss-Newton matrix.
        outputs: what makes one tensor of the network's outputs, where ``curve`` has to know of it.
        slope: (output, batch) to the gradient whose derivative C is; None where it is none, as of the Fisher matrices.
        tokens: C for logits over a large vocabulary, in chunks; None: they are computed as a whole.
    """

    def __init__(
        self,
        objective: Objective,
        curve: OutputCurvature,
        outputs: FlatOutputs | None = None,
        slope: Callable[[Tensor, Batch], Tensor] | None = None,
        tokens: TokenCurvature | None = None,
    ) -> None:
        super().__init__(objective)
        self.curve, self.outputs, self.slope, self.tokens = curve, outputs or FlatOutputs(), slope, tokens

    def product(self, values: Values, batch: Batch, tangent: Values) -> Values:
        """One forward and one backward sweep. Source: Schraudolph (2002)."""
        found = _Found()

        def network(inner: Values) -> Values:
            """The output as a function of the parameters."""
            with torch.enable_grad(), ReverseConstants():
                return found.varying(self._output(inner, batch), torch._C._functorch.is_functorch_wrapped_tensor)

        with torch.enable_grad():  # a model may take gradients itself
            output, forward = jvp(network, (values,), (tangent,))[:2]
            pull_back = vjp(network, values)[1]
        product: tuple[Tensor, ...] = pull_back(self._curved(found, output, batch, forward))[0]
        return product

    def reverse(self, batch: Batch) -> Callable[[Values, bool], Pieces]:
        """J v is the derivative of J^T u in u: two reverse sweeps a vector, about 2 gradients."""
        with torch.enable_grad():
            values = self.objective.leaves(self.objective.values)
            found, output = self._differentiable(values, batch)
            seeds = tuple(torch.zeros_like(piece, requires_grad=True) for piece in output)
            with explained():
                pulled = torch.autograd.grad(output, values, seeds, create_graph=True, allow_unused=True)
        self._refuse_dead_ends(pulled)

        def apply(tangents: Values, batched: bool) -> Pieces:
            """J v, C times it, and back."""
            moved = _pull(pulled, seeds, tangents, batched)
            if all(piece is None for piece in moved):
                return (None,) * len(values)
            like = (torch.zeros_like(s).expand(len(tangents[0]), *s.shape) if batched else torch.zeros_like(s) for s in seeds)
            forward = tuple(zeros if piece is None else piece for piece, zeros in zip(moved, like, strict=True))

            def curved(*tangent: Tensor) -> Values:
                """C times one tangent."""
                return self._curved(found, tuple(piece.detach() for piece in output), batch, tangent)

            with torch.no_grad():
                cotangent = vmap(curved)(*forward) if batched else curved(*forward)
            return _pull(output, values, cotangent, batched)

        return apply

    def differences(self, batch: Batch, tangent: Values, step: float, constants: FrozenConstants, number: int = 0) -> Pieces:
        """J v from two outputs, C times it, and back by one gradient."""
        objective, moved = self.objective, []
        for h in (step, -step):
            objective.seed(number)
            values = objective.leaves(_moved(objective.values, tangent, h))
            with torch.enable_grad(), constants.used():
                output = _Found().varying(self._output(values, batch), _requires_grad)
            moved.append([piece.detach().clone() for piece in output])
        objective.seed(number)
        values = objective.leaves(objective.values)
        with torch.enable_grad(), constants.used():
            found, output = self._differentiable(values, batch)
        forward = tuple((plus - minus) / (2 * step) for plus, minus in zip(*moved, strict=True))
        with torch.no_grad():
            cotangent = self._curved(found, tuple(piece.detach() for piece in output), batch, forward)
        return _pull(output, values, cotangent, False)

    def few_outputs(self, batch: Batch) -> tuple[Tensor, Batch]:
        """The network's output without a graph, and the batch; of pending logits those of a few tokens that count."""
        output = self.objective.evaluation.value(lambda: self._output(self.objective.values, batch))
        if not isinstance(output, PendingLogits):
            return output.detach(), batch
        assert self.tokens is not None, "what made logits of the output"
        head = self.tokens.head(output.tensors(), batch)
        few = (head.labels != head.ignored).nonzero()[:FEW_TOKENS, 0]
        logits = torch.addmm(head.bias, head.inputs[few], head.weight.t())
        return logits.detach(), (batch[0], head.labels[few])

    def _differentiable(self, values: Values, batch: Batch) -> tuple[_Found, Values]:
        """Return the network's outputs as tensors that depend on the parameters."""
        found, output = _Found(), self._output(values, batch)
        pieces = found.varying(output, _requires_grad)
        dependent(pieces[0] if pieces else output.detach())
        return found, pieces

    def _output(self, values: Values, batch: Batch) -> Tensor:
        if self.tokens is None:
            return self.outputs.flat(self.objective.output(values, batch))
        output = self.objective.output_or_logits(values, batch)
        return output if self.tokens.serves(output, batch) else self.outputs.flat(materialized(output))

    def _curved(self, found: _Found, output: Values, batch: Batch, tangents: Values) -> Values:
        """C times the tangents of what varies of the output."""
        if found.fixed is None:
            return (self.curve(output[0], batch, tangents[0]),)
        assert self.tokens is not None, "what made logits of the output"
        given, moving = iter(output), iter(tangents)
        h, w, b = (next(given) if fixed is None else fixed for fixed in found.fixed)
        h_t, w_t, b_t = (next(moving) if fixed is None else None for fixed in found.fixed)
        head, along = self.tokens.head((h, w, b), batch), (h_t, w_t, b_t)
        return tuple(piece for piece in self.tokens(head, batch, along) if piece is not None)


class _Found:
    """Form of a network's output: a tensor, or the inputs, weight and bias of a layer whose logits are not computed.

    Attributes:
        fixed: None for a tensor; of a layer, those of its three tensors that do not depend on the parameters, else None.
    """

    fixed: tuple[Tensor | None, Tensor | None, Tensor | None] | None = None

    def varying(self, output: Tensor, depends: Callable[[Tensor], bool]) -> Values:
        """The tensors of an output that depend on the parameters; the others are noted."""
        if not isinstance(output, PendingLogits):
            return (output,)
        h, w, b = output.tensors()
        self.fixed = (None if depends(h) else h, None if depends(w) else w, None if depends(b) else b)
        return tuple(piece for piece, fixed in zip((h, w, b), self.fixed, strict=True) if fixed is None)


def _requires_grad(tensor: Tensor) -> bool:
    return tensor.requires_grad


def _moved(values: Values, tangent: Values, step: float) -> Values:
    return tuple(value + step * piece for value, piece in zip(values, tangent, strict=True))


def _dead_end(tensors: Sequence[Tensor | None]) -> Any:
    """The node that autograd puts behind functions that cannot be differentiated once more; None: there is none."""
    return next((node for node in nodes_behind(tensors) if node.name() == "torch::autograd::Error"), None)


def nodes_behind(tensors: Sequence[Tensor | None]) -> Iterator[Any]:
    """All nodes of the graph that tensors were computed by."""
    waiting = [tensor.grad_fn for tensor in tensors if tensor is not None and tensor.grad_fn is not None]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        yield node
        new = {source for source, _ in node.next_functions if source is not None} - seen
        seen |= new
        waiting += new


def _pull(outputs: Sequence[Tensor | None], inputs: Sequence[Tensor], seeds: Sequence[Tensor | None], batched: bool) -> Pieces:
    """Vector-Jacobian products of the outputs that depend on anything; the graph stays."""
    live = [
        (output, seed)
        for output, seed in zip(outputs, seeds, strict=True)
        if output is not None and seed is not None and output.requires_grad
    ]
    if not live:
        return (None,) * len(inputs)
    heads, tails = zip(*live, strict=True)
    with explained():
        return torch.autograd.grad(heads, inputs, tails, retain_graph=True, allow_unused=True, is_grads_batched=batched)
