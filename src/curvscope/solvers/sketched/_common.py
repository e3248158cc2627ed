"""The driver of all sketched eigensolvers: checks before any product, one solve, and the way from a core to pairs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.measurement import Meter
from curvscope.operators import as_operator
from curvscope.operators.base import Operator
from curvscope.sketches import SketchKind, check_kind
from curvscope.solvers.driver import EigenProblem, MethodOptions, Pairs, Prepared, Resources, check_operator, solve
from curvscope.solvers.results import Solution, check_which, wanted
from curvscope.solvers.sizing import fit_sketch, sizes_for_pairs
from curvscope.tall import TallMatrix, multiply

ADVICE = 'a sketch does not iterate: judge each pair by its residual; use method="krylov" for more accuracy'


@dataclass(frozen=True)
class Sketch(MethodOptions, ABC):
    """A sketched eigensolver: subclasses say their sizes, measure and recover; :meth:`solve` is the same for all.

    Attributes:
        num_outer: dimension of the space that is found; None: as ``max_products`` allows.
        sketch: kind of the test matrix that is multiplied; see :class:`.TestMatrix`.
        block_size: columns a product call; default 32, fewer where memory is short.
        max_products: budget from which sizes follow that are not given; default 4 k.
    """

    num_outer: int | None = None
    sketch: SketchKind = "gaussian"
    block_size: int | None = None
    max_products: int | None = None

    FREE: ClassVar[tuple[str, ...]] = ("num_outer", "k")

    @abstractmethod
    def sized(self, problem: EigenProblem) -> Self:
        """Return the method with all sizes filled in.

        Raises:
            InvalidArgument: sizes that cannot work.
        """

    @abstractmethod
    def find(self, problem: EigenProblem, meter: Meter) -> Pairs:
        """Measure and recover, with all sizes known."""

    def budgeted(self, problem: EigenProblem) -> Self:
        """Return the method with num_outer from the budget of products, unless it was given."""
        if self.num_outer is not None:
            if self.max_products is not None:
                raise InvalidArgument(f"num_outer={self.num_outer} and max_products={self.max_products}: pass one of them")
            return self
        if problem.k is None:
            raise InvalidArgument(f"{type(self).__name__} needs num_outer, or k for the sizes to follow from")
        sizes = sizes_for_pairs(self.name, problem.k, problem.operator.shape[0], self.max_products)
        return self.with_sizes(sizes.num_outer, sizes.num_inner)

    def with_sizes(self, num_outer: int, num_inner: int) -> Self:
        """Return the method with these sizes of a budget."""
        return replace(self, num_outer=num_outer, max_products=None)

    def columns(self) -> dict[str, int | None]:
        """Sizes that its memory follows from; see :func:`.sizing.footprint`."""
        return {"num_outer": self.num_outer}

    def kinds(self) -> tuple[str, ...]:
        """Kinds of its test matrices."""
        return (self.sketch,)

    def prepare(self, problem: EigenProblem, resources: Resources) -> Prepared[Pairs]:
        """Return the solve with every size known, before its first product."""
        made = self.budgeted(problem).sized(problem)
        columns = {**made.columns(), "k": problem.k}
        fitted = fit_sketch(self.name, problem.operator, columns, resources, self.block_size, made.kinds())
        made = replace(made, block_size=fitted.block_size)
        sizes = made.options()
        del sizes["max_products"], sizes["block_size"]  # the first is said by the sizes, the second comes last
        wanted_pairs = {"k": problem.k, "which": problem.which, "seed": problem.seed}
        options = {"method": self.name, **sizes, **wanted_pairs, "block_size": fitted.block_size}
        return Prepared(partial(made.find, problem), options, self.FREE, fitted)

    def solve(self, problem: EigenProblem, resources: Resources) -> Solution:
        """Find the pairs; see :func:`curvscope.eigsh`."""
        return solve(problem, self.prepare(problem, resources), resources)


def check_sketch(problem: EigenProblem, sketch: str, num_outer: int, num_inner: int) -> None:
    """Raise InvalidArgument where sizes, names or the operator cannot work; see :func:`hermitian_request`."""
    sizes = {"num_outer": num_outer, "num_inner": num_inner}
    hermitian_request(problem.operator, **sizes, k=problem.k, which=problem.which, sketch=sketch)


def hermitian_request(operator: Any, *, num_outer: int, num_inner: int, k: int | None, which: str, sketch: str) -> Operator:
    """The operator, after everything that can be told without a product was looked at.

    Raises:
        InvalidArgument: sizes out of order, unknown names, an operator that is not square or not Hermitian, a complex test
            matrix for a real operator.
    """
    made: Operator = as_operator(operator)
    check_operator(made, real=False)
    check_which(which)
    check_kind(sketch, made.dtype)
    check_sizes(made.shape[0], num_outer, num_inner, num_outer if k is None else k)
    return made


def check_sizes(size: int, num_outer: int, num_inner: int, k: int) -> None:
    """Raise InvalidArgument unless 1 <= k <= num_outer <= num_inner <= D."""
    if not 1 <= num_outer <= num_inner <= size:
        raise InvalidArgument(
            f"num_outer={num_outer} and num_inner={num_inner} with D = {size}: need 1 <= num_outer <= num_inner <= D"
        )
    if not 1 <= k <= num_outer:
        raise InvalidArgument(f"k={k}: a sketch with num_outer={num_outer} gives 1 to {num_outer} pairs")


def pairs_of_core(
    basis: TallMatrix, core: Tensor, *, k: int | None, which: str, diagnostics: dict[str, float], advice: str = ADVICE
) -> Pairs:
    """The wanted eigenpairs of Q C Q*, all of them for k = None. Cost: 2 D r k operations."""
    values, rotation = torch.linalg.eigh(core)
    chosen = wanted(values, len(values) if k is None else k, which)
    vectors = multiply(basis, rotation[:, chosen])
    advice = advised(advice, len(chosen), k)
    return Pairs(values[chosen], vectors, tol=None, advice=advice, diagnostics=diagnostics)


def advised(advice: str, found: int, k: int | None) -> str:
    """The advice, and that there are fewer pairs than were asked for, where there are."""
    if k is None or found >= k:
        return advice
    return (
        f"{found} of the {k} asked for: the products have {found} directions beyond rounding, all others are 0 to it; {advice}"
    )
