"""Dealing samples to folds, and the operator of some of the folds."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument, InvalidType
from curvscope.operators import CurvatureOperator, MonteCarloFisher, Part, Recipe, Unit, Units, units_of
from curvscope.sampling._folded import FEWEST_FOLDS

log = logging.getLogger(__name__)

FEWEST_SAMPLES = 2
"""In each fold."""


def deal(units: Units, folds: int, seed: int = 0, labels: Sequence[Any] | None = None) -> Tensor:
    """Return the fold of every unit, at random, folds of equal size; units of one label stay together.

    Raises:
        InvalidArgument: too few units or labels for so many folds, or another number of labels than of units.

    >>> deal(Units("samples", (8,), 0), 4).bincount().tolist()
    [2, 2, 2, 2]
    >>> deal(Units("samples", (8,), 0), 4, labels=list("aabbccdd")).reshape(4, 2).diff().abs().sum().item()
    0
    """
    if folds < FEWEST_FOLDS:
        raise InvalidArgument(f"folds={folds}: choose at least {FEWEST_FOLDS}, as each half needs two")
    generator = torch.Generator().manual_seed(seed)
    if labels is None:
        if units.count < FEWEST_SAMPLES * folds:
            raise InvalidArgument(
                f"{units.count} {units.unit} for {folds} folds: pass data of at least {FEWEST_SAMPLES * folds}, or fewer "
                f"folds={max(FEWEST_FOLDS, units.count // FEWEST_SAMPLES)}"
                f"{'' if units.unit == 'samples' else ', or batches that can be cut into samples'}"
            )
        order = torch.randperm(units.count, generator=generator, device="cpu")
        fold = torch.empty(units.count, dtype=torch.long, device="cpu")
        fold[order] = torch.arange(units.count, device="cpu") * folds // units.count
        return fold
    if len(labels) != units.count:
        raise InvalidArgument(f"groups has {len(labels)} labels, and the data {units.count} {units.unit}: pass one for each")
    return _deal_labels([label.item() if hasattr(label, "item") else label for label in labels], folds, generator)


def _deal_labels(labels: list[Any], folds: int, generator: torch.Generator) -> Tensor:
    """Groups in random order, each to the fold that has fewest samples by then."""
    names = list(dict.fromkeys(labels))
    if len(names) < folds:
        raise InvalidArgument(
            f"groups has {len(names)} different labels for {folds} folds: a group is one observation, pass at least "
            f"{FEWEST_FOLDS} of them and folds of at most that number"
        )
    number = {name: place for place, name in enumerate(names)}
    member = torch.tensor([number[label] for label in labels], device="cpu")
    sizes, filled = member.bincount(minlength=len(names)), torch.zeros(folds, dtype=torch.long, device="cpu")
    fold_of = torch.empty(len(names), dtype=torch.long, device="cpu")
    for name in torch.randperm(len(names), generator=generator, device="cpu").tolist():
        fold_of[name] = int(filled.argmin())
        filled[fold_of[name]] += sizes[name]
    return fold_of[member]


@dataclass(frozen=True)
class Dealt:
    """An operator whose data is dealt to folds.

    Attributes:
        operator: of all data.
        units: samples or batches.
        folds: number of folds.
        seed: of the dealing.
        labels: groups of units that stay together; None: each is its own.
    """

    operator: CurvatureOperator
    units: Units
    folds: int
    seed: int
    labels: Sequence[Any] | None = None

    @cached_property
    def fold(self) -> Tensor:
        """The fold of every unit."""
        return deal(self.units, self.folds, self.seed, self.labels)

    def data_of(self, chosen: Sequence[int]) -> Part:
        """The samples in some folds."""
        return Part(self.operator.objective.data, self.units, self._members(chosen))

    def count_of(self, chosen: Sequence[int]) -> int:
        """The number of units in some folds, which differ in size where groups do."""
        return int(self._members(chosen).sum())

    def _members(self, chosen: Sequence[int]) -> Tensor:
        return torch.isin(self.fold, torch.tensor(list(chosen), device="cpu"))

    def of_folds(self, chosen: Sequence[int]) -> CurvatureOperator:
        """The matrix of the samples in some folds. Cost: one evaluation of their loss, one copy of the parameters."""
        objective = self.operator.objective
        made = self.operator.on(objective.like(self.data_of(chosen), microbatch=objective.microbatch))
        self._draw_as_in_whole(made, chosen)
        made.memory = self.operator.memory
        # The same model and loss, whose derivatives were verified.
        made.batch_map.verdict = self.operator.batch_map.verdict
        if self.operator.recipe is not None:
            made.recipe = self._recipe(self.operator.recipe, list(chosen))
        return made

    def exchange(self, operator: CurvatureOperator, chosen: Sequence[int]) -> None:
        """Give an operator that :meth:`of_folds` made the samples of other folds; what was traced is used again."""
        operator.exchange(self.data_of(chosen))
        self._draw_as_in_whole(operator, chosen)

    def _draw_as_in_whole(self, operator: CurvatureOperator, chosen: Sequence[int]) -> None:
        """Give the samples of a Monte-Carlo Fisher matrix the labels that they have in the whole, where draws go by place."""
        if isinstance(operator, MonteCarloFisher):
            operator.draw_at(self._members(chosen).repeat_interleave(self._labels_in).nonzero().flatten())

    @cached_property
    def _labels_in(self) -> Tensor:
        assert isinstance(self.operator, MonteCarloFisher), "of _draw_as_in_whole"
        return self.operator.labels_in(self.units)

    def _recipe(self, whole: Recipe, chosen: list[int]) -> Recipe:
        return Recipe(
            "curvscope.sampling:operator_of_folds",
            source=whole.target,
            options=whole.options,
            folder=whole.folder,
            unit=self.units.unit,
            folds=self.folds,
            seed=self.seed,
            labels=None if self.labels is None else self.fold.tolist(),
            chosen=chosen,
        )


def operator_of_folds(
    source: str,
    options: dict[str, Any],
    folder: str,
    unit: Unit,
    folds: int,
    seed: int,
    labels: list[int] | None,
    chosen: list[int],
) -> CurvatureOperator:
    """Return the matrix of the samples in some folds, built from the recipe of the whole; for workers.

    Args:
        source: target of the recipe of the whole.
        options: of it.
        folder: of it.
        unit: "samples" or "batches".
        folds: number of folds.
        seed: of the dealing.
        labels: the fold of every unit where groups were dealt; None: dealt from the seed.
        chosen: the folds.
    """
    recipe = Recipe(source, **options)
    object.__setattr__(recipe, "folder", folder if Path(folder).is_dir() else recipe.folder)
    operator = recipe.build()
    check_measured(operator)
    assert isinstance(operator, CurvatureOperator)
    dealt = Dealt(operator, units_of(operator.objective.data, by=unit), folds, seed)
    if labels is not None:
        dealt.__dict__["fold"] = torch.tensor(labels, device="cpu")
    return dealt.of_folds(chosen)


def check_measured(operator: Any) -> None:
    """Raise unless an operator is a mean over samples that can be drawn again.

    Raises:
        InvalidType: it does not know its data. InvalidArgument: a sum, or a matrix that depends on the places of its samples.
    """
    if not isinstance(operator, CurvatureOperator):
        raise InvalidType(
            f"a {type(operator).__name__} does not know the samples that it is a mean of: pass cs.hessian(model, loss, data), "
            "cs.ggn or cs.empirical_fisher itself (without damping, which adds the same to every eigenvalue)"
        )
    objective = operator.objective
    if not getattr(objective, "takes_batches", True):
        raise InvalidArgument(
            "this function has no data, so that there is no sample to speak of: pass function, parameters, data"
        )
    if objective.sums:
        raise InvalidArgument(
            "the loss sums over the samples, so that its matrix grows with their number and no population has it: pass the "
            "mean (reduction='mean'); its eigenvalues are those of the sum, divided by the number of samples"
        )
    if objective.draws:
        raise InvalidArgument(
            "dropout= or noise= draw one mask for each place in the data, so that parts of it are other functions: leave "
            "them out"
        )


def dealt(operator: CurvatureOperator, folds: int, seed: int, by: Unit | None, labels: Sequence[Any] | None) -> Dealt:
    """Return an operator with its data dealt to folds, by samples where their losses do not depend on each other.

    Raises:
        InvalidArgument: the samples of a batch depend on each other and cannot be dealt one by one, or too few of them.
    """
    objective, reason = operator.objective, ""
    if objective.batchnorm == "batch":
        reason = "batch statistics make the loss of a sample depend on its batch"
    elif getattr(objective, "mixes_samples", False) or objective.weighs_right is False:
        reason = "the loss of a batch is no mean over its samples"
    if reason and by == "samples":
        raise InvalidArgument(f"by='samples': {reason}; choose by='batches', for a population of batches of this size")
    if reason and by is None:
        log.warning("population: %s, so whole batches are dealt, and the population is one of batches of this size", reason)
    units = units_of(objective.data, by="batches" if reason else by)
    if units.duplicates and labels is None:
        log.warning(
            "population: %d of %d %s are equal to an earlier one: they are no independent samples, and intervals come out too "
            "narrow. Leave them out, or pass groups= with one label for equal ones",
            units.duplicates,
            units.count,
            units.unit,
        )
    made = Dealt(operator, units, folds, seed, labels)
    _ = made.fold  # says before any product what cannot be dealt
    return made
