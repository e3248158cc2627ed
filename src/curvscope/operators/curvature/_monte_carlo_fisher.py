"""The Fisher matrix by Monte Carlo: labels are drawn from the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Unpack, overload

import numpy as np
import torch
from torch import Tensor, nn

from curvscope.errors import InvalidArgument
from curvscope.operators._algebra import Sum
from curvscope.operators._rank import RankBound, of_samples
from curvscope.operators.collective import Grouped, grouped
from curvscope.operators.curvature._build import FisherOptions, build, with_criterion, with_damping
from curvscope.operators.curvature._empirical_fisher import label_axes, outer
from curvscope.operators.curvature._operator import CurvatureOperator, ProductOptions
from curvscope.operators.fingerprint import fingerprint
from curvscope.operators.objective import (
    Batch,
    Objective,
    Units,
    move,
)
from curvscope.operators.products import SandwichMap, TokenDraws, token_curvature
from curvscope.operators.rules import PendingLogits, drawn_labels, logsumexp_of
from curvscope.sketches import Streams
from curvscope.system import checked


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

    def _made_on(self, objective: Objective, strategy: str) -> MonteCarloFisher:
        """See :meth:`CurvatureOperator.on`; with the same draws, for the same samples."""
        return MonteCarloFisher(objective, num_draws=self.num_draws, seed=self.seed, strategy=strategy)

    @property
    def depends_on_order(self) -> bool:
        """Always: draws belong to places in the data."""
        return True

    def labels_in(self, units: Units) -> Tensor:
        """(units.count,) int64: the labels with a loss of every sample or batch of its data.

        Cost: one evaluation of the network on all data.
        """
        counts = [self._map.labels_of(batch, length) for batch, length in zip(self.objective.data, units.lengths, strict=True)]
        return torch.cat(counts)

    def draw_at(self, places: Tensor) -> None:
        """Draw the labels as if they stood at other places, such as those that a part of the data has in the whole.

        Args:
            places: int64, ascending, one for every label with a loss in the data.
        """
        self._map.places = places
        self._engine.forget()
        for name in ("fingerprint", "identity"):
            self.__dict__.pop(name, None)

    @property
    def _map(self) -> _DrawnMap:
        assert isinstance(self.batch_map, _DrawnMap), "of __init__"
        return self.batch_map

    def _fingerprint(self) -> str:
        places = () if self._map.places is None else (self._map.places,)
        return fingerprint(super()._fingerprint(), self.num_draws, self.seed, *places)

    def _identity(self) -> dict[str, Any]:
        made = super()._identity()
        return {**made, "exact": made["exact"] | {"num_draws": str(self.num_draws), "seed": str(self.seed)}}


class _DrawnMap(SandwichMap):
    """J^T C J with C from drawn scores, which go with the batch: (x, y, scores, divisor).

    Of logits over a large vocabulary the drawn labels go with the batch in the place of their scores.
    """

    def __init__(self, objective: Objective, num_draws: int, seed: int) -> None:
        super().__init__(objective, self._curve, tokens=token_curvature(TokenDraws, objective.criterion))
        self.num_draws, self.random_seed = num_draws, seed
        self._first_labels = [0]
        self.places: Tensor | None = None

    def labels_of(self, batch: Batch, length: int) -> Tensor:
        """(length,) int64: the labels with a loss of each sample of a batch; of the whole batch for a length of 1."""
        criterion, objective = self.objective.criterion, self.objective
        moved = move(batch, objective.device, objective.dtype)
        with torch.no_grad(), objective.isolated():
            output = objective.evaluation.value(lambda: objective.output_or_logits(objective.values, moved))
        axes = label_axes(criterion, output.ndim)
        rows = output.numel() // output.shape[axes[0]] if axes else len(output)
        return _counted(criterion, rows, moved[1]).reshape(length, -1).sum(1).cpu()

    def prepare(self, batch: Batch, number: int) -> Batch:
        """The batch with (num_draws, *output shape) scores, which depend on each label's place in the data alone.

        Labels that the loss ignores have no place, and score zero.
        """
        criterion = self.objective.criterion
        with torch.no_grad():
            output = self.objective.evaluation.value(lambda: self._output(self.objective.values, batch))
            if isinstance(output, PendingLogits):
                return self._with_labels(output, batch, number)
            axes = label_axes(criterion, output.ndim)
            last = output.movedim(axes[0], -1) if axes else output[:, None]  # one row a label
            rows, places = last.reshape(-1, last.shape[-1]), last.shape[:-1]
            counted = _counted(criterion, len(rows), batch[1])
            draw = _SCORES[type(criterion)]
            scores = output.new_zeros(self.num_draws, *output.shape)
            entries = 1 if draw is _categorical else rows.shape[1]
            for index, uniform in enumerate(self._uniform(number, int(counted.sum()), entries)):
                drawn = torch.zeros_like(rows)
                drawn[counted] = draw(rows[counted], torch.from_numpy(uniform).to(output))
                score = drawn.view(*places, rows.shape[1])
                scores[index] = score.movedim(-1, axes[0]) if axes else score[:, 0]
        terms = 1.0 if self.objective.sums else float(counted.sum()) * (1 if draw is _categorical else rows.shape[1])
        return (batch[0], batch[1], scores, output.new_tensor(terms))

    def _with_labels(self, logits: PendingLogits, batch: Batch, number: int) -> Batch:
        """The batch with (num_draws, tokens) labels, -1 where a token does not count, and the number of those that do."""
        assert self.tokens is not None, "what made the logits"
        head = self.tokens.head(logits.tensors(), batch)
        counted = head.labels != head.ignored
        few = head._replace(inputs=head.inputs[counted], labels=head.labels[counted])
        uniform = [torch.from_numpy(u[:, 0]) for u in self._uniform(number, len(few.labels), 1)]
        labels = torch.full((self.num_draws, len(counted)), -1, dtype=torch.int64, device=logits.device)
        labels[:, counted] = drawn_labels(few, logsumexp_of(few), torch.stack(uniform).to(few.inputs))
        terms = 1.0 if self.objective.sums else float(len(few.labels))
        return (batch[0], batch[1], labels, few.inputs.new_tensor(terms))

    def _uniform(self, number: int, count: int, entries: int) -> Iterator[np.ndarray]:
        """For each draw (count, entries) numbers in [0, 1) for the labels of mini-batch ``number``."""
        self._first_labels[number + 1 :] = [self._first_labels[number] + count]
        for index in range(self.num_draws):
            stream = Streams("monte carlo fisher", self.random_seed, "labels").at(index)
            yield self._at_places(stream, self._first_labels[number], count, entries)

    def _at_places(self, stream: np.random.Generator, first: int, count: int, entries: int) -> np.ndarray:
        """The numbers of ``count`` labels from the ``first`` one on, each at its own place."""
        if self.places is None or not count:
            return _uniform(stream, first, count, entries)
        places = self.places[first : first + count].numpy()
        low, high = int(places[0]), int(places[-1])
        numbers: np.ndarray = _uniform(stream, low, high + 1 - low, entries)[places - low]
        return numbers

    def _curve(self, output: Tensor, batch: Batch, tangent: Tensor) -> Tensor:
        axes = tuple(axis + 1 for axis in label_axes(self.objective.criterion, output.ndim))
        products: Tensor = outer(batch[2], tangent, axes).sum(0) / (self.num_draws * batch[3])
        return products


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
) -> MonteCarloFisher | Grouped | Sum:
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
    if options.get("group") is not None:
        return grouped(
            monte_carlo_fisher, (model, loss, data), {**options, "damping": damping, "num_draws": num_draws, "seed": seed}
        )
    objective, products = build(model, loss, data, options, FisherOptions)
    return with_damping(MonteCarloFisher(objective, num_draws=num_draws, seed=seed, **products), damping)
