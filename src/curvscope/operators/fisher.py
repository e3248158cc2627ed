"""Fisher matrices and second moments of gradients, as operators."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import grad

from curvscope.errors import InvalidArgument
from curvscope.operators.algebra import Composable
from curvscope.operators.curvature import CurvatureOperator, ProductOptions, build, with_criterion
from curvscope.operators.fingerprint import fingerprint
from curvscope.operators.identity import of_objective, with_rounded_values
from curvscope.operators.losses import COUNTED
from curvscope.operators.objective import Batch, Loss, Objective, SampleOptions
from curvscope.operators.parameters import ParameterFilter, Parameters
from curvscope.operators.products import SandwichMap
from curvscope.operators.products.forward_losses import ForwardModeLosses
from curvscope.sketches.streams import Streams


class EmpiricalFisher(CurvatureOperator):
    """Second moment of the samples' gradients; build it with :func:`empirical_fisher`."""

    def __init__(self, objective: Objective, **options: Unpack[ProductOptions]) -> None:
        objective = with_criterion(objective, "the empirical Fisher matrix")

        def curve(output: Tensor, batch: Batch, tangent: Tensor) -> Tensor:
            """The samples' scores, times their products with the tangent."""
            with ForwardModeLosses():
                score = grad(lambda inner: objective.criterion(inner, batch[1]))(output)
            return _outer(score, tangent) * _samples(objective, output, batch)

        super().__init__(objective, SandwichMap(objective, curve), **options)


class MonteCarloFisher(CurvatureOperator):
    """Second moment of gradients for labels drawn from the model; build it with :func:`monte_carlo_fisher`."""

    def __init__(self, objective: Objective, *, num_draws: int = 1, seed: int = 0, **options: Unpack[ProductOptions]) -> None:
        objective = with_criterion(objective, "the Monte-Carlo Fisher matrix")
        if num_draws < 1:
            raise InvalidArgument(f"num_draws={num_draws}: draw at least one label for each sample")
        if type(objective.criterion) not in _SCORES:
            known = ", ".join(kind.__name__ for kind in _SCORES)
            raise InvalidArgument(
                f"{type(objective.criterion).__name__} is not the negative log-likelihood of a model that labels can be "
                f"drawn from: use one of {known}, or cs.empirical_fisher"
            )
        options_set = [name for name in _UNDRAWABLE if getattr(objective.criterion, name, None) not in (None, 0.0)]
        if options_set:
            raise InvalidArgument(f"labels cannot be drawn for a loss with {' and '.join(options_set)}: drop these options")
        self.num_draws, self.seed = num_draws, seed
        super().__init__(objective, _DrawnMap(objective, num_draws, seed), **options)

    def on(self, objective: Objective) -> MonteCarloFisher:
        """See :meth:`CurvatureOperator.on`; with the same draws, for the same samples."""
        return MonteCarloFisher(objective, num_draws=self.num_draws, seed=self.seed)

    @property
    def depends_on_order(self) -> bool:
        """Always: draws belong to places in the data."""
        return True

    def _fingerprint(self) -> str:
        return fingerprint(super()._fingerprint(), self.num_draws, self.seed)

    def _identity(self) -> dict[str, Any]:
        made = super()._identity()
        return {**made, "exact": made["exact"] | {"num_draws": str(self.num_draws), "seed": str(self.seed)}}


class GradientSecondMoment(Composable):
    """Second moment of the mini-batches' gradients; build it with :func:`gradient_second_moment`."""

    def __init__(self, objective: Objective, *, centered: bool = False) -> None:
        self.objective, self.centered = objective, centered
        self.shape = (objective.parameters.size, objective.parameters.size)
        self.dtype, self.device = objective.dtype, objective.device

    @property
    def parameters(self) -> Parameters:
        """Names, shapes and places of the D parameters."""
        return self.objective.parameters

    def _apply(self, block: Tensor) -> Tensor:
        total, mean = torch.zeros_like(block), block.new_zeros(block.shape[0])
        with self.objective.isolated():
            for number, (batch, weight) in enumerate(self.objective.batches()):
                self.objective.seed(number)
                gradient = self.objective.batch_gradient(batch)
                total.addr_(gradient, gradient @ block, alpha=weight)
                mean.add_(gradient, alpha=weight)
        return total.addr_(mean, mean @ block, alpha=-1.0) if self.centered else total

    def _fingerprint(self) -> str:
        return fingerprint("gradient second moment", self.centered, self.objective.fingerprint())

    def _identity(self) -> dict[str, Any]:
        def multiply(vector: Tensor, at: Objective) -> Tensor:
            """The product with the first mini-batch's matrix."""
            return GradientSecondMoment(at) @ vector

        first = self.objective.of_first_batch()
        moved = with_rounded_values(first, self.rounding)
        made = of_objective(self, lambda vector: multiply(vector, first), lambda vector: multiply(vector, moved))
        return {**made, "exact": made["exact"] | {"centered": str(self.centered)}}


class _DrawnMap(SandwichMap):
    """J^T C J with C from drawn scores, which go with the batch: (x, y, scores)."""

    def __init__(self, objective: Objective, num_draws: int, seed: int) -> None:
        super().__init__(objective, self._curve)
        self.num_draws, self.random_seed = num_draws, seed
        self._first_samples = [0]

    def prepare(self, batch: Batch, number: int) -> Batch:
        """The batch with (num_draws, *output shape) scores, which depend on each sample's place in the data alone.

        Samples that the loss ignores have no place, and score zero.
        """
        with torch.no_grad():
            output = self.objective.output(self.objective.values, batch)
            counted = _counted(self.objective.criterion, output, batch[1])
            self._first_samples[number + 1 :] = [self._first_samples[number] + int(counted.sum())]
            scores = output.new_zeros(self.num_draws, *output.shape)
            draw = _SCORES[type(self.objective.criterion)]
            for index in range(self.num_draws):
                entries = 1 if draw is _categorical else output[0].numel()
                places = Streams("monte carlo fisher", self.random_seed, "labels").at(index)
                uniform = _uniform(places, self._first_samples[number], int(counted.sum()), entries)
                scores[index, counted] = draw(output[counted], torch.from_numpy(uniform).to(output))
        return (batch[0], batch[1], scores, counted.sum().to(output.dtype))

    def _curve(self, output: Tensor, batch: Batch, tangent: Tensor) -> Tensor:
        total = _outer(batch[2], tangent, first_axis=2).sum(0) / self.num_draws
        if not self.objective.sums:
            return total / batch[3]
        # The scores are those of means over a sample's outputs.
        return total if isinstance(self.objective.criterion, nn.CrossEntropyLoss) else total * output[0].numel()


def _counted(criterion: Callable[..., Tensor], output: Tensor, target: Tensor) -> Tensor:
    """Which samples have a loss."""
    if isinstance(criterion, nn.CrossEntropyLoss) and not target.is_floating_point() and target.ndim == 1:
        return target != criterion.ignore_index
    return torch.ones(len(output), dtype=torch.bool, device=output.device)


def _uniform(stream: np.random.Generator, first: int, count: int, entries: int) -> np.ndarray:
    """(count, entries) numbers in [0, 1) for the samples from ``first`` on, each sample's own whatever comes before it.

    Philox numbers its blocks of four 64-bit words; every sample owns whole blocks.
    """
    blocks = -(-entries // 4)
    stream.bit_generator.advance(first * blocks)
    return stream.random((count, 4 * blocks))[:, :entries]


def _outer(score: Tensor, tangent: Tensor, first_axis: int = 1) -> Tensor:
    """score_i <score_i, tangent_i> for every sample i; the entries of a sample lie along the axes from ``first_axis`` on."""
    axes = tuple(range(first_axis, score.ndim))
    return score * ((score * tangent).sum(axes, keepdim=True) if axes else score * tangent)


def _samples(objective: Objective, output: Tensor, batch: Batch) -> float:
    """How often the mean over a batch divides each sample's gradient; 1 for a sum."""
    if objective.sums:
        return 1.0
    if objective.weight is None and not isinstance(objective.criterion, COUNTED):
        return float(output.shape[0])  # terms are samples; each is a mean over its outputs
    target = batch[1]
    soft = target.shape == output.shape and isinstance(objective.criterion, nn.CrossEntropyLoss)
    places = target.numel() / (output.shape[1] if soft else 1)
    return objective.terms(batch) * output.shape[0] / places


def _categorical(output: Tensor, uniform: Tensor) -> Tensor:
    """d(-log p(label))/d(logits) = p - onehot(label)."""
    if output.ndim != 2:
        raise InvalidArgument(f"labels can be drawn for logits of shape (N, C), got {tuple(output.shape)}: flatten them")
    probabilities = output.softmax(1)
    labels = (probabilities.cumsum(1) < uniform).sum(1).clamp(max=output.shape[1] - 1)
    return probabilities - nn.functional.one_hot(labels, output.shape[1]).to(output.dtype)


def _normal(output: Tensor, uniform: Tensor) -> Tensor:
    """Squared errors averaged over m outputs are the likelihood of noise with variance m / 2."""
    noise = torch.special.ndtri(uniform.clamp(min=torch.finfo(uniform.dtype).tiny, max=1 - torch.finfo(uniform.dtype).eps))
    return noise.view(output.shape) * (2.0 / uniform.shape[1]) ** 0.5


def _bernoulli(output: Tensor, uniform: Tensor) -> Tensor:
    """Independent labels, scaled for the mean over m outputs."""
    probability = output.sigmoid()
    return (probability - (uniform.view(output.shape) < probability).to(output.dtype)) * uniform.shape[1] ** -0.5


_SCORES: dict[type[nn.Module], Callable[[Tensor, Tensor], Tensor]] = {
    nn.CrossEntropyLoss: _categorical,
    nn.MSELoss: _normal,
    nn.BCEWithLogitsLoss: _bernoulli,
}


_UNDRAWABLE = ("weight", "pos_weight", "label_smoothing")
"""Options of a criterion with which it is no negative log-likelihood of the model's labels."""


class FisherOptions(SampleOptions, ProductOptions, total=False):
    """All options of the Fisher matrices: places and pieces of :class:`.objective.Objective`, and :class:`.ProductOptions`."""


def empirical_fisher(model: nn.Module, loss: Loss, data: Iterable[Any], **options: Unpack[FisherOptions]) -> EmpiricalFisher:
    r"""The empirical Fisher matrix: the second moment of the samples' gradients for the labels in the data.

    .. math:: F = \frac{1}{N} \sum_i g_i g_i^\top, \qquad g_i = \nabla_\theta\, \ell(f_\theta(x_i), y_i)

    A sample is an index of the first axis of the model's output. With class weights, g_i carries its weight and N is their
    sum; for a criterion that sums, there is no 1/N. Needs a criterion and pairs (x, y). D x D, positive semi-definite.

    Cost: that of a GGN product; no gradient of a single sample is formed. Limits: it is no approximation of the Hessian
    away from a perfect fit. Arguments and errors: see :func:`.curvature.hessian`. Source: Kunstner et al. (2019).

    >>> F = empirical_fisher(nn.Linear(2, 2), nn.CrossEntropyLoss(), [(torch.eye(2), torch.tensor([0, 1]))])
    >>> F.shape
    (6, 6)
    """
    objective, products = build(model, loss, data, options, FisherOptions)
    return EmpiricalFisher(objective, **products)


def monte_carlo_fisher(
    model: nn.Module,
    loss: Loss,
    data: Iterable[Any],
    *,
    num_draws: int = 1,
    seed: int = 0,
    **options: Unpack[FisherOptions],
) -> MonteCarloFisher:
    r"""The Fisher matrix with its expectation over labels replaced by draws from the model.

    .. math:: F = \frac{1}{N M} \sum_{i, m} g_{im} g_{im}^\top, \qquad g_{im} = \nabla_\theta\, \ell(f_\theta(x_i), y_{im}),
        \quad y_{im} \sim p_\theta(\cdot \mid x_i)

    Its expectation over draws is :func:`.curvature.ggn`. The draws depend on the seed and on each sample's place in the data
    alone, so that an operator is one fixed matrix for any batching (not for another order). Criteria without class weights
    or label smoothing only: cross-entropy of (N, C) logits (samples with ``ignore_index`` are left out, as in the loss),
    squared error, binary cross-entropy with logits.

    Args:
        model: see :func:`.curvature.hessian`, as for all other arguments.
        loss: one of these criteria.
        data: pairs (x, y); the labels are not used.
        num_draws: M, labels drawn for each sample.
        seed: of the draws.
        options: see :class:`FisherOptions`.

    Cost: that of a GGN product and M times the output's memory.

    Raises:
        InvalidArgument: a criterion that labels cannot be drawn for.

    >>> F = monte_carlo_fisher(nn.Linear(2, 2), nn.CrossEntropyLoss(), [(torch.eye(2), torch.tensor([0, 1]))], seed=1)
    >>> x = torch.ones(6)
    >>> torch.allclose(F @ x, F @ x)
    True
    """
    objective, products = build(model, loss, data, options, FisherOptions)
    return MonteCarloFisher(objective, num_draws=num_draws, seed=seed, **products)


def gradient_second_moment(
    model: nn.Module,
    loss: Loss,
    data: Iterable[Any],
    *,
    centered: bool = False,
    params: ParameterFilter = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> GradientSecondMoment:
    r"""The second moment of the mini-batches' gradients: the noise of stochastic gradient descent, for any loss.

    .. math:: M = \sum_b w_b\, g_b g_b^\top \; [\, - g g^\top], \qquad g_b = \nabla_\theta\, \ell(f_\theta, \mathrm{batch}_b)

    Depends on the batching, as its subject does; its rank is at most the number of batches.

    Args:
        model: see :func:`.curvature.hessian`, as for all other arguments.
        loss: any.
        data: batches.
        centered: subtract the mean gradient's outer product, for the covariance.
        params: which parameters vary.
        dtype: where to compute.
        device: where to compute.

    Cost: one gradient a batch for a whole block, and two passes over the block.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> gradient_second_moment(model, nn.MSELoss(), [(torch.eye(2), torch.zeros(2, 1))]).shape
    (2, 2)
    """
    objective = Objective(model, loss, data, params=params, dtype=dtype, device=device)
    return GradientSecondMoment(objective, centered=centered)
