"""Block Krylov as a method of its own options: sizes, memory, start, and the basis to continue from."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from curvscope.errors import InvalidArgument, InvalidType
from curvscope.measurement import Fit, Meter, begun_with
from curvscope.operators import operator_differences
from curvscope.operators.base import Operator
from curvscope.operators.fingerprint import fingerprint
from curvscope.parallel import as_workers
from curvscope.solvers.driver import EigenProblem, MethodOptions, Pairs, Prepared, Resources, solve
from curvscope.solvers.krylov._basis import KrylovOptions, default_columns
from curvscope.solvers.krylov._eigen_basis import Expansion
from curvscope.solvers.krylov._iterate import Loop, block_krylov
from curvscope.solvers.results import Solution
from curvscope.solvers.sizing import default_width, fit, footprint, multiple_of
from curvscope.tall import TallMatrix

FREE = ("k", "tol", "ncv", "max_products")
"""Options under which a run may be resumed with other values: its basis serves them all."""


@dataclass(frozen=True)
class Krylov(MethodOptions):
    """Randomized block Krylov with thick restart, to a tolerance: for ``method=`` of :func:`curvscope.eigsh`.

    Attributes:
        ncv: most columns of the basis; default 3 k + 20 block_size.
        block_size: vectors multiplied at a time: narrow blocks need fewer products, wide ones are cheaper each. Default: from
            k, see :func:`.sizing.default_width`. Blocks get wider where copies of eigenvalues are found. A narrower last block
            uses up the budget exactly.
        max_products: budget, residual measurement (k more) not counted; default max(5000, 100 k).
        keep_basis: keep the Krylov basis (D x ncv numbers) in ``solution.basis``, to continue from.

    Cost: see :func:`.krylov.block_krylov`.

    >>> from curvscope.solvers import eigsh
    >>> solution = eigsh(torch.diag(torch.arange(50.0)), 3, method=Krylov(block_size=2), tol=1e-5)
    >>> solution.status.converged, solution.provenance["options"]["block_size"]
    (True, 2)
    """

    ncv: int | None = None
    block_size: int | None = None
    max_products: int | None = None
    keep_basis: bool = False

    name: ClassVar[str] = "krylov"

    def solve(self, problem: EigenProblem, resources: Resources) -> Solution:
        """Find the pairs; see :func:`curvscope.eigsh`."""
        if self.keep_basis and resources.run is not None:
            raise InvalidArgument("keep_basis and run: the run keeps the basis, leave keep_basis out")
        start = problem.start
        earlier = start if isinstance(start, Solution) and _continues(problem.operator, start) else None
        block = None if earlier else _start_block(problem.operator, start)
        options, fitted = self.fitted(problem, resources, spent=earlier.cost.products if earlier else 0)
        plain = {"method": self.name, **asdict(options)} | ({} if block is None else {"v0": fingerprint(block)})
        find = partial(self.find, options, block, earlier)
        solution = solve(problem, Prepared(find, plain, FREE, fitted), resources)
        return replace(solution, cost=earlier.cost + solution.cost) if earlier else solution

    def fitted(self, problem: EigenProblem, resources: Resources, *, spent: int = 0) -> tuple[KrylovOptions, Fit]:
        """Return all options, the block as wide as memory and workers want it, and where the matrices lie."""
        operator, fixed = problem.operator, self.block_size or begun_with(resources.run, "block_size")
        width = fixed if self.block_size is None else self.block_size
        if resources.executor is not None and width is None:
            width = multiple_of(default_width(int(problem.k or 1)), as_workers(resources.executor).expected, operator.shape[0])
        options = krylov_options(problem, replace(self, block_size=width), spent=spent)
        fitted = fit(
            footprint("krylov", operator, asdict(options), predict=resources.memory is not None),
            resources.memory,
            block_size=fixed,
            default=options.block_size,
            stored=resources.run is not None,
            device=operator.device,
        )
        if fitted.block_size != options.block_size:
            options = krylov_options(problem, replace(self, block_size=fitted.block_size), spent=spent)
        return options, fitted

    def find(self, options: KrylovOptions, block: Tensor | None, earlier: Solution | None, meter: Meter) -> Pairs:
        """Iterate from the run's basis, an earlier solution's, or a new one."""
        expansion, loop = _begun(meter, options, block, earlier)
        pairs = block_krylov(meter, options, expansion, loop)
        return replace(pairs, basis=expansion) if self.keep_basis else pairs


def krylov_options(problem: EigenProblem, method: Krylov, *, spent: int = 0) -> KrylovOptions:
    """The options with their defaults filled in, for eigenpairs, or singular triplets of a rectangular operator.

    Args:
        problem: k, order, tolerance and seed; the smaller side of its operator is D.
        method: what was asked for.
        spent: products of an earlier solve whose basis is continued.

    Raises:
        InvalidArgument: sizes that cannot work.
    """
    size, k = min(problem.operator.shape), int(problem.k or 0)
    budget = max(5000, 100 * k) if method.max_products is None else method.max_products
    width = min(size, default_width(k) if method.block_size is None else method.block_size)
    if budget < k - spent:
        raise InvalidArgument(f"max_products={budget} is less than k={k}: each pair needs at least one product, better two")
    columns = default_columns(size, k, width) if method.ncv is None else method.ncv
    if columns < min(size, k + 2 * width):
        raise InvalidArgument(f"ncv={method.ncv}: choose at least k + 2 block_size = {min(size, k + 2 * width)}")
    return KrylovOptions(k, problem.which, problem.tol, width, min(columns, size, budget + spent), budget, problem.seed)


def _begun(
    meter: Meter, options: KrylovOptions, start: Tensor | None, earlier: Solution | None
) -> tuple[Expansion, Loop | None]:
    """The expansion to continue: the run's, an earlier solution's, or a new one; and where its iteration stands."""
    saved = Expansion.saved(meter.operator, options, meter.workspace)
    if saved is not None:
        expansion, facts = saved
        meter.restore(facts["spent"])
        return expansion, Loop.restored(facts["loop"]) if facts["scope"] == meter.workspace.scope else None
    if earlier is not None:
        basis: Expansion = earlier.basis
        basis.adopt(options)
        return basis, None
    return Expansion(meter.operator, options, start, workspace=meter.workspace), None


def _continues(operator: Operator, earlier: Solution) -> bool:
    """Return whether the basis of an earlier solution can be continued."""
    return earlier.basis is not None and not operator_differences(earlier.provenance, operator)


def _start_block(operator: Operator, v0: Any) -> Tensor | None:
    """The (D, b) block to start from; None: a random one."""
    if v0 is None:
        return None
    source = v0.eigenvectors if isinstance(v0, Solution) else v0
    block = source.to_tensor() if isinstance(source, TallMatrix) else source
    block = torch.from_numpy(block) if isinstance(block, np.ndarray) else block
    if not isinstance(block, Tensor) or block.is_complex():
        kind = block.dtype if isinstance(block, Tensor) else type(block).__name__
        raise InvalidType(f"v0 is a {kind}: pass a real tensor (torch.as_tensor) or a solution")
    block = block[:, None] if block.ndim == 1 else block
    if block.ndim != 2 or block.shape[0] != operator.shape[0]:
        raise InvalidArgument(f"v0 has shape {tuple(block.shape)}, expected ({operator.shape[0]},) or ({operator.shape[0]}, b)")
    if not bool(torch.isfinite(block).all()) or not bool(block.any()):
        raise InvalidArgument("v0 must be finite and not zero")
    return block.to(operator.device, operator.dtype)
