"""Fisher matrices and second moments of gradients, as operators."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Unpack, overload

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import grad

from curvscope.errors import InvalidArgument
from curvscope.operators._algebra import Composable, Sum
from curvscope.operators._identity import of_objective
from curvscope.operators._parameters import Parameters
from curvscope.operators._rank import RankBound, of_samples
from curvscope.operators.curvature._curvature import (
    CurvatureOperator,
    FunctionOptions,
    ProductOptions,
    build,
    with_criterion,
    with_damping,
)
from curvscope.operators.fingerprint import fingerprint
from curvscope.operators.objective import (
    COUNTED,
    ELEMENTWISE,
    Batch,
    Objective,
    ObjectiveOptions,
    WeightOptions,
    check_substitution,
    criterion_terms,
)
from curvscope.operators.products import FlatOutputs, ForwardModeLosses, SandwichMap
from curvscope.sketches import Streams
from curvscope.system import checked


class EmpiricalFisher(CurvatureOperator):
    """Second moment of the samples' gradients; build it with :func:`empirical_fisher`."""

    semidefinite = True

    def __init__(self, objective: Objective, **options: Unpack[ProductOptions]) -> None:
        objective = with_criterion(objective, "the empirical Fisher matrix")
        if getattr(objective, "mixes_samples", False):
            raise InvalidArgument(
                "the empirical Fisher matrix needs samples whose losses do not depend on each other, and this model's loss "
                "compares all samples of a batch: use cs.ggn, or cs.gradient_second_moment for mini-batches"
            )

        outputs = FlatOutputs()
        criterion = outputs.criterion(objective.criterion)

        def curve(output: Tensor, batch: Batch, tangent: Tensor) -> Tensor:
            """The labels' scores, times their products with the tangent; the score of a mean has the number of terms in it."""
            outputs.check_samples(output)
            with ForwardModeLosses():
                score = grad(lambda inner: criterion(inner, batch[1]))(output)
            return _outer(score, tangent, label_axes(objective.criterion, output.ndim)) * _divisor(objective, batch)

        super().__init__(objective, SandwichMap(objective, curve, outputs), **options)

    def rank_bound(self) -> RankBound:
        """At most the number of samples. Cost: one evaluation of the network."""
        return of_samples(self.objective)


class MonteCarloFisher(CurvatureOperator):
    """Second moment of gradients for labels drawn from the model; build it with :func:`monte_carlo_fisher`."""

    semidefinite = True

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

    def rank_bound(self) -> RankBound:
        """At most the number of samples times draws. Cost: one evaluation of the network."""
        return of_samples(self.objective, draws=self.num_draws)

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

    semidefinite = True
    depends_on_order = True
    objective: Objective

    def __init__(self, objective: Objective, *, centered: bool = False) -> None:
        self.objective, self.centered = objective, centered
        self.shape = (objective.parameters.size, objective.parameters.size)
        self.dtype, self.device = objective.dtype, objective.device

    @property
    def parameters(self) -> Parameters:
        """Names, shapes and places of the D parameters."""
        return self.objective.parameters

    def rank_bound(self) -> RankBound:
        """At most the number of mini-batches, each of which gives one gradient."""
        batches = sum(1 for _ in self.objective.batches())
        return RankBound(batches, f"{batches} mini-batches")

    def _apply(self, block: Tensor) -> Tensor:
        check_substitution(self.objective)
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
            """The product with the matrix of an objective."""
            return GradientSecondMoment(at) @ vector

        made = of_objective(self, multiply)
        return {**made, "exact": made["exact"] | {"centered": str(self.centered)}}


class _DrawnMap(SandwichMap):
    """J^T C J with C from drawn scores, which go with the batch: (x, y, scores, divisor)."""

    def __init__(self, objective: Objective, num_draws: int, seed: int) -> None:
        super().__init__(objective, self._curve)
        self.num_draws, self.random_seed = num_draws, seed
        self._first_labels = [0]

    def prepare(self, batch: Batch, number: int) -> Batch:
        """The batch with (num_draws, *output shape) scores, which depend on each label's place in the data alone.

        Labels that the loss ignores have no place, and score zero.
        """
        criterion = self.objective.criterion
        with torch.no_grad():
            output = self.objective.output_value(self.objective.values, batch)
            axes = label_axes(criterion, output.ndim)
            last = output.movedim(axes[0], -1) if axes else output[:, None]  # one row a label
            rows, places = last.reshape(-1, last.shape[-1]), last.shape[:-1]
            counted = _counted(criterion, len(rows), batch[1])
            self._first_labels[number + 1 :] = [self._first_labels[number] + int(counted.sum())]
            draw = _SCORES[type(criterion)]
            scores = output.new_zeros(self.num_draws, *output.shape)
            for index in range(self.num_draws):
                entries = 1 if draw is _categorical else rows.shape[1]
                stream = Streams("monte carlo fisher", self.random_seed, "labels").at(index)
                uniform = _uniform(stream, self._first_labels[number], int(counted.sum()), entries)
                drawn = torch.zeros_like(rows)
                drawn[counted] = draw(rows[counted], torch.from_numpy(uniform).to(output))
                score = drawn.view(*places, rows.shape[1])
                scores[index] = score.movedim(-1, axes[0]) if axes else score[:, 0]
        terms = 1.0 if self.objective.sums else float(counted.sum()) * (1 if draw is _categorical else rows.shape[1])
        return (batch[0], batch[1], scores, output.new_tensor(terms))

    def _curve(self, output: Tensor, batch: Batch, tangent: Tensor) -> Tensor:
        axes = tuple(axis + 1 for axis in label_axes(self.objective.criterion, output.ndim))
        products: Tensor = _outer(batch[2], tangent, axes).sum(0) / (self.num_draws * batch[3])
        return products


def label_axes(criterion: Callable[..., Tensor], ndim: int) -> tuple[int, ...]:
    """The axes of an output of ``ndim`` axes that belong to one label; the other axes count the labels.

    The classes of a cross-entropy (axis 1, as in PyTorch), the last axis for element-wise criteria, all axes but the first for
    criteria that are not known. As in curvlinops.

    >>> label_axes(nn.CrossEntropyLoss(), 3), label_axes(nn.MSELoss(), 3), label_axes(nn.TripletMarginLoss(), 3)
    ((1,), (2,), (1, 2))
    """
    if isinstance(criterion, nn.CrossEntropyLoss | nn.NLLLoss):
        return (1,) if ndim > 1 else (0,)
    if isinstance(criterion, ELEMENTWISE):
        return (ndim - 1,) if ndim > 1 else ()
    return tuple(range(1, ndim))


def _divisor(objective: Objective, batch: Batch) -> float:
    """Number of terms that the mean over a batch divides by; 1 for a sum."""
    if objective.sums:
        return 1.0
    known = isinstance(objective.criterion, COUNTED)
    return criterion_terms(objective.criterion, batch) if known else objective.terms(batch)


def _counted(criterion: Callable[..., Tensor], count: int, target: Tensor) -> Tensor:
    """Return which of so many labels have a loss."""
    if isinstance(criterion, nn.CrossEntropyLoss) and not target.is_floating_point():
        return target.reshape(-1) != criterion.ignore_index
    return torch.ones(count, dtype=torch.bool, device=target.device)


def _uniform(stream: np.random.Generator, first: int, count: int, entries: int) -> np.ndarray:
    """(count, entries) numbers in [0, 1) for the samples from ``first`` on, each sample's own whatever comes before it.

    Philox numbers its blocks of four 64-bit words; every sample owns whole blocks.
    """
    blocks = -(-entries // 4)
    assert isinstance(stream.bit_generator, np.random.Philox), "of Streams"
    stream.bit_generator.advance(first * blocks)
    return stream.random((count, 4 * blocks))[:, :entries]


def _outer(score: Tensor, tangent: Tensor, axes: tuple[int, ...]) -> Tensor:
    """score_i <score_i, tangent_i> for every label i, whose entries lie along ``axes``."""
    return score * ((score * tangent).sum(axes, keepdim=True) if axes else score * tangent)


def _categorical(output: Tensor, uniform: Tensor) -> Tensor:
    """d(-log p(label))/d(logits) = p - onehot(label)."""
    probabilities = output.softmax(1)
    labels = (probabilities.cumsum(1) < uniform).sum(1).clamp(max=output.shape[1] - 1)
    return probabilities - nn.functional.one_hot(labels, output.shape[1]).to(output.dtype)


def _normal(output: Tensor, uniform: Tensor) -> Tensor:
    """Squared errors are the negative log-likelihood of noise with variance 1 / 2."""
    noise = torch.special.ndtri(uniform.clamp(min=torch.finfo(uniform.dtype).tiny, max=1 - torch.finfo(uniform.dtype).eps))
    scaled: Tensor = noise * 2.0**0.5
    return scaled


def _bernoulli(output: Tensor, uniform: Tensor) -> Tensor:
    """P - label, for independent labels."""
    probability = output.sigmoid()
    return probability - (uniform < probability).to(output.dtype)


_SCORES: dict[type, Callable[[Tensor, Tensor], Tensor]] = {
    nn.CrossEntropyLoss: _categorical,
    nn.MSELoss: _normal,
    nn.BCEWithLogitsLoss: _bernoulli,
}


_UNDRAWABLE = ("weight", "pos_weight", "label_smoothing")
"""Options of a criterion with which it is no negative log-likelihood of the model's labels."""


class FisherOptions(WeightOptions, ProductOptions, FunctionOptions, total=False):
    """All options of the Fisher matrices: those of :class:`.WeightOptions` and of :class:`.ProductOptions`."""


@overload
def empirical_fisher(
    model: nn.Module | Callable[..., Any],
    loss: Any,
    data: Iterable[Any] | None = None,
    *,
    damping: float,
    **options: Unpack[FisherOptions],
) -> Sum: ...


@overload
def empirical_fisher(
    model: nn.Module | Callable[..., Any],
    loss: Any,
    data: Iterable[Any] | None = None,
    **options: Unpack[FisherOptions],
) -> EmpiricalFisher: ...


@checked
def empirical_fisher(
    model: nn.Module | Callable[..., Any],
    loss: Any,
    data: Iterable[Any] | None = None,
    *,
    damping: float | None = None,
    **options: Unpack[FisherOptions],
) -> EmpiricalFisher | Sum:
    r"""The empirical Fisher matrix: the second moment of the labels' gradients, for the labels in the data.

    .. math:: F = \frac{1}{T} \sum_i g_i g_i^\top, \qquad g_i = \nabla_\theta\, \ell(f_\theta(x), y)_i

    T is the number of terms that the mean loss divides by, and :math:`\ell_i` the sum of the terms that belong to label i, its
    negative log-likelihood. For labels drawn from the model the expectation of F is therefore :func:`.curvature.ggn`.
    One label is

    - for a cross-entropy with outputs (N, C, ...): the C classes at one place; T counts the labels that have a loss, or is the
      sum of their class weights;
    - for squared error, binary cross-entropy and other element-wise criteria with outputs (N, ..., C): the last axis; T is the
      number of entries;
    - for any other criterion: all axes but the first; T is ``weight(batch)``, by default N.

    For a criterion that sums there is no 1/T. A criterion of your own that averages over C outputs as well needs ``weight=``,
    such as ``lambda batch: batch[1].numel()``; else its matrix is 1/C of that of ``nn.MSELoss()``. Needs a criterion and
    pairs (x, y). D x D, positive semi-definite.

    Cost: that of a GGN product; no gradient of a single label is formed. Limits: it is no approximation of the Hessian
    away from a perfect fit. Arguments and errors: see :func:`.curvature.hessian`. Source: Kunstner et al. (2019).

    >>> F = empirical_fisher(nn.Linear(2, 2), nn.CrossEntropyLoss(), [(torch.eye(2), torch.tensor([0, 1]))])
    >>> F.shape
    (6, 6)
    """
    objective, products = build(model, loss, data, options, FisherOptions)
    return with_damping(EmpiricalFisher(objective, **products), damping)


@overload
def monte_carlo_fisher(
    model: nn.Module | Callable[..., Any],
    loss: Any,
    data: Iterable[Any] | None = None,
    *,
    num_draws: int = 1,
    seed: int = 0,
    damping: float,
    **options: Unpack[FisherOptions],
) -> Sum: ...


@overload
def monte_carlo_fisher(
    model: nn.Module | Callable[..., Any],
    loss: Any,
    data: Iterable[Any] | None = None,
    *,
    num_draws: int = 1,
    seed: int = 0,
    **options: Unpack[FisherOptions],
) -> MonteCarloFisher: ...


@checked
def monte_carlo_fisher(
    model: nn.Module | Callable[..., Any],
    loss: Any,
    data: Iterable[Any] | None = None,
    *,
    num_draws: int = 1,
    seed: int = 0,
    damping: float | None = None,
    **options: Unpack[FisherOptions],
) -> MonteCarloFisher | Sum:
    r"""The Fisher matrix with its expectation over labels replaced by draws from the model.

    .. math:: F = \frac{1}{T M} \sum_{i, m} g_{im} g_{im}^\top, \qquad g_{im} = \nabla_\theta\, \ell(f_\theta(x), y_m)_i,
        \quad y_{im} \sim p_\theta(\cdot \mid x)

    Labels i and terms T as for :func:`empirical_fisher`. Its expectation over draws is :func:`.curvature.ggn`. The draws depend
    on the seed and on each label's place in the data alone, so that an operator is one fixed matrix for any batching (not for
    another order). Criteria without class weights or label smoothing only: cross-entropy (labels with ``ignore_index`` are left
    out, as in the loss), squared error (normal labels of variance 1/2), binary cross-entropy with logits.

    Args:
        model: see :func:`.curvature.hessian`, as for all other arguments.
        loss: one of these criteria.
        data: pairs (x, y); the labels are not used.
        num_draws: M, labels drawn for each sample.
        seed: of the draws.
        damping: of F + damping I, which is then returned; None: F.
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
    return with_damping(MonteCarloFisher(objective, num_draws=num_draws, seed=seed, **products), damping)


@overload
def gradient_second_moment(
    model: nn.Module | Callable[..., Any],
    loss: Any,
    data: Iterable[Any] | None = None,
    *,
    centered: bool = False,
    damping: float,
    **options: Unpack[ObjectiveOptions],
) -> Sum: ...


@overload
def gradient_second_moment(
    model: nn.Module | Callable[..., Any],
    loss: Any,
    data: Iterable[Any] | None = None,
    *,
    centered: bool = False,
    **options: Unpack[ObjectiveOptions],
) -> GradientSecondMoment: ...


@checked
def gradient_second_moment(
    model: nn.Module | Callable[..., Any],
    loss: Any,
    data: Iterable[Any] | None = None,
    *,
    centered: bool = False,
    damping: float | None = None,
    **options: Unpack[ObjectiveOptions],
) -> GradientSecondMoment | Sum:
    r"""The second moment of the mini-batches' gradients: the noise of stochastic gradient descent, for any loss.

    .. math:: M = \sum_b w_b\, g_b g_b^\top \; [\, - g g^\top], \qquad g_b = \nabla_\theta\, \ell(f_\theta, \mathrm{batch}_b)

    Depends on the batching, as its subject does; its rank is at most the number of batches.

    Args:
        model: see :func:`.curvature.hessian`, as for all other arguments.
        loss: any.
        data: batches.
        centered: subtract the mean gradient's outer product, for the covariance.
        damping: of M + damping I, which is then returned; None: M.
        options: see :class:`.ObjectiveOptions`.

    Cost: one gradient a batch for a whole block, and two passes over the block.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> gradient_second_moment(model, nn.MSELoss(), [(torch.eye(2), torch.zeros(2, 1))]).shape
    (2, 2)
    """
    objective, _ = build(model, loss, data, options, ObjectiveOptions)
    return with_damping(GradientSecondMoment(objective, centered=centered), damping)
