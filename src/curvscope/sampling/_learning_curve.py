"""Curvature against the number of samples: eigenvalues of random parts of the data, each half as large as the last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.estimators import RULES, count_outliers
from curvscope.measurement import Place
from curvscope.operators import Unit
from curvscope.operators.fingerprint import fingerprint
from curvscope.sampling._curve_result import LearningCurve
from curvscope.sampling._deal import Dealt, dealt
from curvscope.sampling._ends import places_of
from curvscope.sampling._measure import more_pairs, solve_part
from curvscope.sampling._population import check_request
from curvscope.sampling._result import Population
from curvscope.solvers import Resources, Solution
from curvscope.store import Run
from curvscope.system import Progress, checked

KIND = "learning-curve"


@checked
def learning_curve(  # noqa: PLR0913 -- a public function: request and resources, by keyword
    operator: Any,
    solution: Solution,
    population: Population,
    *,
    halvings: int = 4,
    repeats: int = 4,
    groups: Any = None,
    by: Unit | None = None,
    seed: int = 0,
    memory: int | str | None = None,
    run: Place | Run | None = None,
    executor: Any = None,
    progress: Progress = None,
) -> LearningCurve:
    """Eigenvalues, sums and number of outliers against the number of samples, and how many samples are needed.

    The samples are dealt at random to parts of n/2, n/4, ..., n/2^halvings. Parts of one size have no sample in common, so that
    their scatter is that of independent data sets of this size. How far their mean lies above the value of all samples is
    the bias of a small sample.

    Args:
        operator: of all n samples, as for :func:`curvscope.population`.
        solution: its eigenpairs; the number and the ends are those of the result.
        population: what :func:`curvscope.population` returned for both.
        halvings: number of sizes below n.
        repeats: parts of each size that are solved, or as many as there are. At least 2.
        groups: a label for each sample, as for :func:`curvscope.population`.
        by: "samples" or "batches", as there.
        seed: of the dealing.
        memory: bound for the memory of the whole process, as for :func:`curvscope.eigsh`.
        run: a directory that keeps every solved part, so that the same call resumes.
        executor: who computes the products; see :func:`curvscope.eigsh`.
        progress: see :data:`.progress.Progress`.

    Returns:
        A :class:`.LearningCurve`; print or plot it.

    Cost: solves of k + 5 pairs of each part, to a relative residual of 1e-3. With the default numbers all parts together have
        2.75 times the data.
        Memory: that of one solve.

    Raises:
        InvalidType: an operator that does not know its samples. InvalidArgument: another operator than the solution's, another
            number of eigenvalues in ``population``, too few samples for the parts. RunConflict: the run is of something else.
    Limits: as for :func:`curvscope.population`. Parts of one size scatter as independent samples, means of different sizes do
        not: they share samples.

    >>> import curvscope as cs
    >>> _ = torch.manual_seed(0)
    >>> data = [(torch.randn(256, 3) * torch.tensor([3.0, 1.0, 0.1]), torch.randn(256, 1))]
    >>> H = cs.hessian(torch.nn.Linear(3, 1, bias=False), torch.nn.MSELoss(), data)
    >>> solution = cs.eigsh(H, k=2)
    >>> curve = learning_curve(H, solution, cs.population(H, solution), halvings=2)
    >>> curve.sizes.tolist(), curve.parts.tolist()
    ([64, 128, 256], [4, 2, 1])
    """
    curvature = check_request(operator, solution)
    if len(population) != solution.k or not torch.equal(population.eigenvalues, solution.eigenvalues):
        raise InvalidArgument("population is of another solution: pass what cs.population(operator, solution) returned")
    for name, number, least in (("halvings", halvings, 1), ("repeats", repeats, 2)):
        if number < least:
            raise InvalidArgument(f"{name}={number}: choose at least {least}")
    shared = dealt(curvature, 2 ** max(halvings, 2), seed, by, groups)
    resources = Resources(memory, run, executor, progress)
    keeping = None if run is None else _opened(shared, solution, run)
    sizes, stacked, products = [], [], 0.0
    for halving in range(halvings, 0, -1):
        width = shared.folds // 2**halving
        parts = [range(part * width, (part + 1) * width) for part in range(min(repeats, 2**halving))]
        found = [_values_of(shared, solution, list(part), resources, keeping) for part in parts]
        counts = [shared.count_of(part) for part in parts]
        sizes.append(round(sum(counts) / len(counts)))
        stacked.append(torch.stack([values for values, _ in found]))
        products += sum(spent * count for (_, spent), count in zip(found, counts, strict=True)) / shared.units.count
    stacked.append(solution.eigenvalues[None])
    return LearningCurve(
        sizes=torch.tensor([*sizes, shared.units.count], device="cpu"),
        parts=torch.tensor([len(found) for found in stacked], device="cpu"),
        eigenvalues=torch.stack([found.nanmean(0) for found in stacked]),
        spread=torch.stack([_deviation(found) for found in stacked]),
        sums=torch.stack([_sums(found, solution).nanmean(0) for found in stacked]),
        outliers={
            rule: torch.tensor([_mean_outliers(found, rule) for found in stacked], dtype=torch.float64, device="cpu")
            for rule in RULES
        },
        unit=shared.units.unit,
        population=population,
        products=products,
    )


def _opened(shared: Dealt, solution: Solution, run: Any) -> Run:
    options = {
        "folds": shared.folds,
        "seed": shared.seed,
        "unit": shared.units.unit,
        "fold": fingerprint(shared.fold),
        "operator": shared.operator.fingerprint,
        "k": solution.k,
        "order": solution.order,
        "eigenvalues": fingerprint(solution.eigenvalues),
    }
    place = run.path / KIND if isinstance(run, Run) else Path(run)
    return Run.resume(place, kind=KIND, options=options)


def _values_of(
    shared: Dealt, solution: Solution, chosen: list[int], resources: Resources, run: Run | None
) -> tuple[Tensor, float]:
    """The eigenvalues of some folds' matrix at the places of the solution, and the products that they cost."""
    name = f"parts/{chosen[0]}-{chosen[-1]}"
    kept = None if run is None else run.records.read(name)
    if kept is None:
        size = solution.eigenvectors.shape[0]
        beyond = min(size, solution.k + more_pairs(solution.k))
        inside = Resources(resources.memory, None, resources.executor, resources.progress)
        found = solve_part(shared.of_folds(chosen), solution.order, beyond, inside)
        values = _at_places(found.eigenvalues, solution)
        spent = float(found.cost.products + found.cost.certificate_products)
        if run is not None:
            with run.session():
                run.records.write(name, {"products": spent}, {"eigenvalues": values})
        return values, spent
    return kept.tensors["eigenvalues"], float(kept.facts["products"])


def _at_places(values: Tensor, solution: Solution) -> Tensor:
    """Eigenvalues of a part where the solution has those of the same end and rank; NaN where the part has fewer of a sign."""
    found = torch.full((solution.k,), torch.nan, dtype=torch.float64, device="cpu")
    for sign in (1, -1):
        places = places_of(solution, sign)
        ends = (sign * values).sort(descending=True).values
        if solution.order == "LM":
            ends = ends[ends > 0]
        count = min(len(ends), len(places))
        found[places[:count]] = sign * ends[:count]
    return found


def _deviation(found: Tensor) -> Tensor:
    """Standard deviation over parts of one size; NaN for one part."""
    return found.std(0) if len(found) > 1 else torch.full_like(found[0], torch.nan)


def _sums(found: Tensor, solution: Solution) -> Tensor:
    """Sums of the eigenvalues of the same end up to each place."""
    sums = torch.full_like(found, torch.nan)
    for sign in (1, -1):
        places = places_of(solution, sign)
        sums[:, places] = found[:, places].cumsum(1)
    return sums


def _mean_outliers(found: Tensor, rule: Any) -> float:
    """Mean number of outliers among the largest eigenvalues of each part."""
    numbers = [count_outliers(values[~values.isnan()], rule, most=max(1, len(values) - 1)) for values in found]
    return sum(numbers) / len(numbers)
