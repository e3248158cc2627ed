"""The one entry for intervals over the choice of the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument, InvalidType
from curvscope.measurement import Place
from curvscope.operators import CurvatureOperator, Unit, operator_differences
from curvscope.sampling._deal import Dealt, check_measured, dealt
from curvscope.sampling._end import end_of
from curvscope.sampling._ends import places_of
from curvscope.sampling._mask_overlap import overlap_interval, rows_of
from curvscope.sampling._measure import Measured, measure
from curvscope.sampling._result import Group, Population
from curvscope.solvers import Resources, Solution
from curvscope.store import Run
from curvscope.subspaces import Mask, Ranking, as_subspace, is_given_mask
from curvscope.system import Progress, checked


@checked
def population(  # noqa: PLR0913 -- a public function: request and resources, by keyword
    operator: Any,
    solution: Solution,
    *,
    folds: int = 20,
    groups: Sequence[Any] | None = None,
    by: Unit | None = None,
    masks: Any = (),
    level: float = 0.95,
    seed: int = 0,
    memory: int | str | None = None,
    run: Place | Run | None = None,
    executor: Any = None,
    progress: Progress = None,
) -> Population:
    r"""Intervals for the eigenvalues of the population's matrix: what the sample's curvature says about all data like it.

    ``solution.intervals`` hold eigenvalues of the matrix of *these samples*; they are about numerical error alone. What is
    returned here holds those of :math:`H^* = E H_n`, the matrix of the mean over all data that the samples were drawn from:

    - ``sampling_bracket``: limits that hold for every eigenvalue, whatever the gaps, as vectors of one half of the samples are
      judged by the other half. They are wide where samples are few.
    - ``estimate`` with ``sampling_interval``: corrected for the sample's bias (its eigenvalues are too large), narrow, and
      marked ``valid`` where eigenvalues are separated. A close group has an interval for its mean, in ``close``.
    - ``sum_bracket``: for the sums of the 1, 2, ... outermost eigenvalues of each end.
    - ``overlap_of_halves``: of the eigenspaces of both halves, for every number of pairs.
    - ``overlaps``: with each of ``masks``, curves with ``sampling_lower`` and ``sampling_upper``.

    Args:
        operator: of all samples: :func:`curvscope.hessian`, :func:`curvscope.ggn`,
            :func:`curvscope.empirical_fisher` or :func:`curvscope.monte_carlo_fisher`.
        solution: its eigenpairs, from :func:`curvscope.eigsh`; the number and the ends are those of the result.
        folds: parts of the samples, dealt at random; the spread is told from leaving each one out. At least 4.
        groups: a label for each sample, where samples are correlated (frames of a video, words of a text): those of one label
            are one observation.
        by: "samples", or "batches" where samples of a batch depend on each other; None: samples where that is possible.
        masks: a mask or a list of masks, in every form that :func:`curvscope.overlap` takes: rankings such as
            ``cs.masks.by_magnitude(model)``, or masks of at most 4,096 parameters. Their overlaps with the population's
            eigenspaces are in ``overlaps`` by name, for every k.
        level: probability that an interval holds its number.
        seed: of the dealing.
        memory: bound for the memory of the whole process, as for :func:`curvscope.eigsh`.
        run: a directory that keeps everything, so that the same call resumes.
        executor: who computes the products; see :func:`curvscope.eigsh`. The operator has to be a recipe's.
        progress: see :data:`.progress.Progress`.

    Returns:
        A :class:`.Population`; print it.

    Cost: two solves of k + 5 pairs with half of the data each, and at most 3 k + 10 products with all of the data.
        Memory: four matrices of D x (3 k + 10) numbers.

    Raises:
        InvalidType: an operator that does not know its samples. InvalidArgument: another operator than the solution's, a loss
            that sums, dropout, too few samples for the folds. OutOfBudget: it does not fit. RunConflict:
            the run is of something else.
    Limits: samples must be independent of each other and of the parameters. For data that the network was trained on the
        population is one of which the training set is a random part, at fixed parameters: how curvature differs on data that
        were not trained on needs these data. Coverage was measured with 50 samples or more (benchmarks/population.py).
    Source: Courant-Fischer and Jensen for the bracket; jackknife by groups (Busing et al. 1999); see the page "How many
        samples do I need?".

    >>> import curvscope as cs
    >>> _ = torch.manual_seed(0)
    >>> data = [(torch.randn(200, 3) * torch.tensor([3.0, 1.0, 0.1]), torch.randn(200, 1))]
    >>> H = cs.hessian(torch.nn.Linear(3, 1, bias=False), torch.nn.MSELoss(), data)      # 2 E x x' = diag(18, 2, 0.02)
    >>> found = population(H, cs.eigsh(H, k=2))
    >>> low, high = found.sampling_bracket[0].tolist()
    >>> low < 18 < high, found.samples
    (True, 200)
    """
    curvature = check_request(operator, solution)
    if not 0 < level < 1:
        raise InvalidArgument(f"level={level}: choose a probability below 1, such as 0.95")
    if by not in (None, "samples", "batches"):
        raise InvalidArgument(f"by={by!r}: choose 'samples' or 'batches', or None to have it told from the data")
    read = _masks_of(masks, solution)
    index = [rows_of(mask, solution.k) for mask in read.values()]
    shared = dealt(curvature, folds, seed, by, groups)
    resources = Resources(memory, run, executor, progress)
    measured = measure(shared, solution, resources, torch.cat(index) if index else None)
    curves, start = {}, 0
    for (name, mask), rows in zip(read.items(), index, strict=True):
        assert measured.rows is not None, "asked for"
        part = measured.rows.part(start, start + len(rows))
        vectors = measured.whole[1], measured.halves[0][1], measured.halves[1][1]
        curves[name] = overlap_interval(mask, part, measured.cores, measured.shares, vectors, solution.order, level)
        start += len(rows)
    return replace(result_of(measured, solution, shared, level), overlaps=curves)


def check_request(operator: Any, solution: Solution) -> CurvatureOperator:
    """Return the operator, if it is the mean over samples that the solution is of.

    Raises:
        InvalidType, InvalidArgument: it is not.
    """
    check_measured(operator)
    assert isinstance(operator, CurvatureOperator), "of check_measured"
    differing = operator_differences(solution.provenance, operator, there="in the solution")
    if operator.shape[0] != solution.eigenvectors.shape[0] or differing:
        raise InvalidArgument(
            f"this is not the operator of the solution: {'; '.join(differing) or 'another number of parameters'}. Pass "
            f"{operator.needed_again}"
        )
    return operator


def _masks_of(masks: Any, solution: Solution) -> dict[str, Ranking | Mask]:
    """Read the masks, by their names; a name that came already gets a number.

    Raises:
        InvalidType: something else than a mask. InvalidArgument: a mask of other parameters.
    """
    found: dict[str, Ranking | Mask] = {}
    size = solution.eigenvectors.shape[0]
    if isinstance(masks, list | tuple) and (texts := [mask for mask in masks if isinstance(mask, str)]):
        raise InvalidType(f"masks has a str in it, {texts[0]!r}: pass rankings or masks, such as cs.masks.by_magnitude(model)")
    several = isinstance(masks, list | tuple) and all(_is_whole_mask(mask, size) for mask in masks)
    for given in masks if several else [masks]:
        if not isinstance(given, Ranking | Mask) and not is_given_mask(given):
            raise InvalidType(f"masks has a {type(given).__name__} in it: pass rankings or masks, see cs.masks")
        mask = as_subspace(given, solution)
        assert isinstance(mask, Ranking | Mask), "of as_subspace"
        if mask.size != size:
            raise InvalidArgument(
                f"the mask {mask.name!r} has {mask.size} parameters, the vectors {size} rows: rank the "
                "parameters that the operator was built on"
            )
        same = sum(name == mask.name or name.startswith(f"{mask.name} (") for name in found)
        found[f"{mask.name} ({same + 1})" if same else mask.name] = mask
    return found


def _is_whole_mask(given: Any, size: int) -> bool:
    """Return whether this is a mask of all parameters, and not that of one tensor in a list with one for each."""
    if isinstance(given, Tensor) and given.numel() != size and (given.is_floating_point() or given.dtype == torch.bool):
        return False
    return isinstance(given, Ranking | Mask) or is_given_mask(given)


def result_of(measured: Measured, solution: Solution, shared: Dealt, level: float) -> Population:
    """Return everything that follows from what was measured."""
    k = solution.k
    columns = {
        name: torch.full((k, 2), torch.nan, dtype=torch.float64, device="cpu") for name in ("bracket", "interval", "sums")
    }
    single = {name: torch.full((k,), torch.nan, dtype=torch.float64, device="cpu") for name in ("estimate", "bias", "spread")}
    valid, close = torch.zeros(k, dtype=torch.bool, device="cpu"), []
    radii = (solution.intervals[:, 1] - solution.intervals[:, 0]) / 2
    overlaps = torch.full((k,), torch.nan, dtype=torch.float64, device="cpu")
    for sign in (1, -1):
        places = places_of(solution, sign)
        if not len(places):
            continue
        folded = measured.end(sign, len(places))
        residual = max(float(residuals.max()) for _, _, residuals in measured.halves)
        end = end_of(folded, len(places), level, 2 * radii[places] + residual)
        _put(columns["bracket"], places, sign, end.limits.lower, end.limits.upper)
        _put(columns["sums"], places, sign, end.sums.lower, end.sums.upper)
        _put(columns["interval"], places, sign, end.found.lower, end.found.upper)
        for name, numbers in (
            ("estimate", sign * end.found.value),
            ("bias", sign * end.found.bias),
            ("spread", end.found.spread),
        ):
            single[name][places] = numbers
        valid[places] = end.valid
        close += [_signed(group, places, sign) for group in end.close]
        overlaps[places] = end.overlaps
    return Population(
        eigenvalues=solution.eigenvalues,
        numerical_interval=solution.intervals,
        sampling_bracket=columns["bracket"],
        estimate=single["estimate"],
        sampling_interval=columns["interval"],
        valid=valid,
        bias=single["bias"],
        spread=single["spread"],
        close=close,
        sum_bracket=columns["sums"],
        overlap_of_halves=overlaps,
        order=solution.order,
        level=level,
        samples=shared.units.count,
        unit=shared.units.unit,
        folds=shared.folds,
        observations=shared.units.count if shared.labels is None else len(set(map(str, shared.labels))),
        duplicates=shared.units.duplicates,
        products=measured.products,
    )


def _put(into: Tensor, places: Tensor, sign: int, lower: Tensor, upper: Tensor) -> None:
    """Write limits, with the signs of the end turned back."""
    into[places] = torch.stack([lower, upper] if sign > 0 else [-upper, -lower], dim=1)


def _signed(group: Group, places: Tensor, sign: int) -> Group:
    members = tuple(int(places[member]) for member in group.members)
    lower, upper = (group.lower, group.upper) if sign > 0 else (-group.upper, -group.lower)
    return Group(members, sign * group.mean, sign * group.estimate, lower, upper)
