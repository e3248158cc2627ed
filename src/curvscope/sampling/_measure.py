"""Solves of both halves and products of every fold, from which everything about the population follows."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from curvscope.errors import OutOfBudget
from curvscope.measurement import blocks
from curvscope.operators import CurvatureOperator
from curvscope.operators.fingerprint import fingerprint
from curvscope.sampling._deal import Dealt
from curvscope.sampling._folded import Folded, Pairs
from curvscope.sampling._mask_overlap import Rows
from curvscope.solvers import EigenProblem, Krylov, Resources, Solution
from curvscope.solvers.driver import metered
from curvscope.store import Record, Run
from curvscope.system import Advance, as_bytes, as_text, float32_products, resident_bytes, stage
from curvscope.tall import InMemory, TallMatrix, gram, orthonormalize, symmetrized

KIND = "population"
MORE = 5
"""Pairs of the halves beyond those asked for: with 5 the upper limit is within 3 % of that with all pairs, with none 10 %."""
BLOCK = 32
HALF_TOL = 1e-3


@dataclass(frozen=True)
class Measured:
    """What was measured of a sample, its halves and its folds.

    Attributes:
        shares: float64 (G,), of the loss terms.
        cores: float64 (G, m, m), Q' H_g Q for a basis Q of the span of all pairs.
        whole: the sample's pairs in coordinates of Q, (m, k).
        halves: the halves' pairs, each as eigenvalues, coordinates and residual norms.
        order: of the solutions, see :data:`.ordering.ORDERS`.
        products: with all of the data; half of the data counts as half a product.
        rows: of the basis and of its products, where masks were asked for.
    """

    shares: Tensor
    cores: Tensor
    whole: tuple[Tensor, Tensor, Tensor]
    halves: tuple[tuple[Tensor, Tensor, Tensor], ...]
    order: str
    products: float
    rows: Rows | None = None

    def end(self, sign: int, most: int) -> Folded:
        """The folds' matrices for one end of the spectrum, its first ``most`` pairs of the sample and all of the halves'.

        Args:
            sign: 1 for the largest eigenvalues, -1 for the most negative ones, whose signs are then changed.
            most: pairs of the sample.
        """
        first, second = (self._pairs(sign, *half, most=None) for half in self.halves)
        return Folded(self.shares, sign * self.cores, self._pairs(sign, *self.whole, most=most), (first, second))

    def _pairs(self, sign: int, values: Tensor, vectors: Tensor, residuals: Tensor, *, most: int | None) -> Pairs:
        ordered = (sign * values).argsort(descending=True)[:most]
        return Pairs(sign * values[ordered], vectors[:, ordered], self._rest(sign, values), float(residuals.norm()))

    def _rest(self, sign: int, values: Tensor) -> float:
        """A bound of the eigenvalues, with this sign, of what the pairs leave out."""
        signed = sign * values
        if self.order == "LM":
            return float(values.abs().min())
        if self.order == "BE":
            count = len(values) - len(values) // 2 if sign > 0 else len(values) // 2
            return float(signed.sort(descending=True).values[max(count - 1, 0)])
        return float(signed.min())


def measure(dealt: Dealt, solution: Solution, resources: Resources, index: Tensor | None = None) -> Measured:
    """Solve both halves from the sample's pairs, and multiply the span of all pairs by the matrix of every fold.

    Cost: two solves of k + 5 pairs with half of the data each, and at most 3 k + 10 products with all of the data.
        Memory: four matrices of D x (3 k + 10) numbers.

    Args:
        dealt: the operator, and which fold each sample belongs to.
        solution: of the operator.
        resources: where it is computed.
        index: rows that are kept of the basis and of its products.

    Raises:
        OutOfBudget: they do not fit.
    """
    k, size = solution.k, solution.eigenvectors.shape[0]
    wider = min(size, k + more_pairs(k))
    _check_room(size, k + 2 * wider, dealt.operator.dtype.itemsize, resources.memory)
    folds = list(range(dealt.folds))
    run = None if resources.run is None else _opened(dealt, solution, resources.run)
    parts = folds[: dealt.folds // 2], folds[dealt.folds // 2 :]
    halves = [
        solve_part(dealt.of_folds(part), solution.order, wider, _inside(resources, run, f"half-{number}"))
        for number, part in enumerate(parts, start=1)
    ]
    basis = _span([solution.eigenvectors, *(half.eigenvectors for half in halves)])
    shares, cores, products = _by_folds(dealt, basis, resources, run, index)
    half_shares = [float(shares[part].sum()) for part in parts]
    spent = [half.cost.products + half.cost.certificate_products for half in halves]
    return Measured(
        shares,
        cores,
        _coordinates(basis, solution),
        tuple(_coordinates(basis, half) for half in halves),
        solution.order,
        sum(share * count for share, count in zip(half_shares, spent, strict=True)) + basis.shape[1],
        None if index is None else Rows(_rows(basis, index), products),
    )


def more_pairs(k: int) -> int:
    """Pairs that the halves are asked for beyond k: few for a small k, so that the cost stays within 4 k products."""
    return min(MORE, max(1, k // 2))


def _opened(dealt: Dealt, solution: Solution, run: Any) -> Run:
    """The run that keeps what is measured."""
    options = {
        "folds": dealt.folds,
        "seed": dealt.seed,
        "unit": dealt.units.unit,
        "fold": fingerprint(dealt.fold),
        "operator": dealt.operator.fingerprint,
        "k": solution.k,
        "order": solution.order,
        "eigenvalues": fingerprint(solution.eigenvalues),
    }
    if isinstance(run, Run):
        run = run.path / KIND
    return Run.resume(Path(run), kind=KIND, options=options)


def _inside(resources: Resources, run: Run | None, name: str) -> Resources:
    return Resources(resources.memory, None if run is None else run.path / name, resources.executor, resources.progress)


def solve_part(operator: CurvatureOperator, order: str, k: int, resources: Resources) -> Solution:
    """Return k pairs of the matrix of a part of the samples, to a residual far below the sampling error."""
    # From a random vector: on mnist16, k = 20, that took 71 products, from the block of known pairs 142, as the basis then
    # grows by a block at each power of the matrix.
    return Krylov().solve(EigenProblem(operator, k, order, HALF_TOL), resources)


def _span(matrices: list[TallMatrix]) -> TallMatrix:
    """An orthonormal basis of the span of the columns of all."""
    columns = torch.cat([matrix.to_tensor() for matrix in matrices], dim=1)
    made = InMemory(columns)
    return orthonormalize(made, into=made).basis


def _coordinates(basis: TallMatrix, solution: Solution) -> tuple[Tensor, Tensor, Tensor]:
    inside = gram(basis, solution.eigenvectors, double=True).double().cpu()
    return solution.eigenvalues, inside, solution.residual_norms


def _by_folds(
    dealt: Dealt, basis: TallMatrix, resources: Resources, run: Run | None, index: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Share, Q' H_g Q and rows of H_g Q of every fold; what a run has is not measured again."""
    terms, cores, rows, width = [], [], [], basis.shape[1]
    operator: CurvatureOperator | None = None
    folder = "folds" if index is None else f"folds-{fingerprint(index)[:8]}"
    with (
        nullcontext() if run is None else run.session(),
        stage("folds", dealt.folds * width, resources.progress) as advance,
    ):
        for fold in range(dealt.folds):
            name = f"{folder}/{fold}"
            kept = None if run is None else run.records.read(name)
            if kept is None or kept.tensors["core"].shape[0] != width:
                if operator is None or operator.recipe is not None:
                    operator = dealt.of_folds([fold])
                else:  # what was traced for one fold serves the others
                    dealt.exchange(operator, [fold])
                core, inside = _products(operator, basis, index, resources, advance)
                facts = {"terms": operator.objective.total_terms}
                kept = Record(facts, {"core": core, "rows": inside})
                if run is not None:
                    run.records.write(name, facts, kept.tensors)
            else:
                advance(width, note="from the run")
            terms.append(float(kept.facts["terms"]))
            cores.append(kept.tensors["core"])
            rows.append(kept.tensors["rows"])
    shares = torch.tensor(terms, dtype=torch.float64, device="cpu")
    return shares / shares.sum(), torch.stack(cores), torch.stack(rows)


def _products(
    operator: CurvatureOperator, basis: TallMatrix, index: Tensor | None, resources: Resources, advance: Advance
) -> tuple[Tensor, Tensor]:
    """Q' H Q and some rows of H Q, float64 on the CPU."""
    width, rows = basis.shape[1], torch.arange(0, device="cpu") if index is None else index
    core = torch.zeros(width, width, dtype=torch.float64, device="cpu")
    inside = torch.zeros(len(rows), width, dtype=torch.float64, device="cpu")
    with metered(operator, resources.executor, False) as meter, float32_products():
        for start, stop in blocks(width, BLOCK):
            product = InMemory(meter.multiply(basis.columns(start, stop)))
            core[:, start:stop] = gram(basis, product, double=True).cpu()
            inside[:, start:stop] = _rows(product, rows)
            advance(stop - start)
    return symmetrized(core)[0], inside


def _rows(matrix: TallMatrix, index: Tensor) -> Tensor:
    return matrix.rows(index.to(matrix.device)).double().cpu()


def _check_room(size: int, columns: int, itemsize: int, memory: int | str | None) -> None:
    """Raise OutOfBudget where the bases do not fit beside what the process has."""
    if memory is None:
        return
    needed, bound = 4 * size * columns * itemsize, as_bytes(memory) - resident_bytes()
    if needed > bound:
        raise OutOfBudget(
            f"the vectors of the sample and its halves take {as_text(needed)}, memory={memory!r} leaves "
            f"{as_text(max(0, bound))}: allow more, or pass fewer pairs, such as solution[:10]"
        )
