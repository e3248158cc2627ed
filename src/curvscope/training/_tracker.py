"""Curvature along training: eigenpairs at every so many steps, each time from where the last ones were."""

from __future__ import annotations

import inspect
import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor, nn

from curvscope.errors import InvalidArgument, InvalidType
from curvscope.estimators import density, trace
from curvscope.operators import CurvatureOperator, Hessian, Objective, hessian
from curvscope.operators.curvature import MatrixOptions, check_weights
from curvscope.operators.objective import trains_with_batch_statistics
from curvscope.sketches import TestMatrix
from curvscope.solvers import EigenProblem, Krylov, eigsh, krylov_options
from curvscope.solvers.driver import check_k, metered
from curvscope.solvers.krylov import Expansion, grow
from curvscope.subspaces import gradient_fraction, masks, overlap
from curvscope.system import Displayed, Hinted, checked, frame, integer, unknown_argument
from curvscope.tall import InMemory, multiply
from curvscope.training._seen_by_optimizer import SeenByOptimizer

PREFIX = "curvature/"
Found = dict[str, float]
FRESH = 0.1
"""Share of a random direction in a warm start, so that nothing is out of its reach."""


class Tracker(Displayed, Hinted):
    r"""Follows the top eigenpairs of the curvature while a model is trained; call :meth:`step` before each update.

    The first check is an :func:`curvscope.eigsh`. Every other is one Lanczos run with full re-orthogonalisation from a single
    vector, sum_i v_i / |lambda_i| of the last check's eigenvectors (and a little of a random one), which needs fewer products
    than the block of these vectors. It ends when each of the k values is right to ``tol`` by its residual r and gap,
    min(r, r^2 / gap) <= tol |lambda|, and one more product left them where they were; or when its budget is spent.

    Args:
        objective: the :class:`.Objective` of the model that is trained, or any curvature operator on it; or the model, followed
            by loss and data, with the options of :func:`curvscope.hessian`. Of a model in training mode batch normalisation
            uses the statistics of each batch, as training does, unless ``batchnorm=`` says otherwise.
        given: loss and data, where the model was given; then k and every.
        k: number of eigenpairs, largest magnitude first.
        every: steps from one check to the next.
        tol: of the eigenvalues, relative.
        max_products: budget of a check after the first; default 6 k. What it left undone is told by "curvature/error".
        trace_products: further products for the trace; 0: no trace.
        density_probes: probes of a spectral density with 30 steps each; 0: no density.
        optimizer: that trains the model: every check also follows the curvature as it sees it, see
            :func:`curvscope.preconditioned`. All eigenvalues above ``fraction`` of its threshold are found, and both ends.
        fraction: of the threshold.
        log: called as ``log(found, step)`` at every check, for example ``lambda found, step: wandb.log(found, step=step)``.
        seed: of all random vectors.
        options: of :func:`curvscope.hessian`, where the model was given.

    Attributes:
        history: what was found, by step.
        eigenvectors: (D, k), of the last check; None before.

    Cost: a check, its products ("curvature/products"), one gradient and two evaluations of the loss on the objective's data;
        memory: max_products + 2 k vectors while it lasts, k between. In training steps it is measured:
        "curvature/training_steps". On mnist16 (k = 10, every 100 steps, three runs) 22 to 39 products a check, 28 on average,
        for values right to 2e-4. No stopping rule could go below 26 on average and, in the checks in which the top space
        turned fastest, 31 and 32 from the best of nine starts (``benchmarks/tracking.py --starts``).

    Raises:
        InvalidType: neither an objective nor a curvature operator. InvalidArgument: sizes that cannot work.
    Limits: one vector sees one copy of a multiple eigenvalue. An eigenvalue that no start vector reaches in so few steps is
        missed; :func:`curvscope.eigsh` and :func:`curvscope.certify` are for certainty.

    >>> from torch import nn
    >>> model, data = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)), [(torch.randn(8, 4), torch.arange(8) % 2)]
    >>> tracker = Tracker(Objective(model, nn.CrossEntropyLoss(), data), k=2, every=5)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> for i in range(11):
    ...     _ = tracker.step(i)
    ...     optimizer.zero_grad(); nn.CrossEntropyLoss()(model(data[0][0]), data[0][1]).backward(); optimizer.step()
    >>> list(tracker.history), "curvature/eigenvalue/1" in tracker.history[10]
    ([0, 5, 10], True)
    """

    @checked
    def __init__(  # noqa: PLR0913 -- a public function: request and resources, by keyword
        self,
        objective: Objective | CurvatureOperator | nn.Module,
        *given: Any,
        k: int | None = None,
        every: int | None = None,
        tol: float = 1e-3,
        max_products: int | None = None,
        trace_products: int = 0,
        density_probes: int = 0,
        optimizer: Any = None,
        fraction: float = 0.5,
        log: Callable[[Found, int], object] | None = None,
        seed: int = 0,
        **options: Unpack[MatrixOptions],
    ) -> None:
        own = inspect.signature(Tracker.__init__).parameters
        if unknown := [name for name in options if name not in MatrixOptions.__annotations__]:
            raise InvalidType(unknown_argument("Tracker", unknown[0], own))
        if isinstance(objective, nn.Module) and (given or options):
            if "microbatch" not in options and trains_with_batch_statistics(objective):
                options = {"batchnorm": "batch", **options}
            objective, given = hessian(objective, *given[:2], **options), given[2:]
        elif options:
            raise InvalidType(
                f"Tracker({next(iter(options))}=) is for a model: pass it to curvscope.hessian, which made this one"
            )
        k = integer("k", (*given[:1], 10)[0] if k is None else k)
        every = integer("every", (*given[1:2], 100)[0] if every is None else every)
        if not isinstance(objective, Objective | CurvatureOperator):
            raise InvalidType(
                f"cannot follow a {type(objective).__name__}: pass curvscope.Objective(model, loss, data), or the operator "
                "that curvscope.hessian or curvscope.ggn gives"
            )
        if isinstance(objective, Objective):
            objective.follow_training_mode()
            check_weights(objective)
        self.operator = Hessian(objective) if isinstance(objective, Objective) else objective
        self.size = self.operator.shape[0]
        check_k(k, self.size)
        self.budget = 6 * k if max_products is None else max_products
        if every < 1 or not 0 < tol < 1 or self.budget < k + 1:
            raise InvalidArgument(f"every={every}, tol={tol}, max_products={max_products}: need every >= 1, 0 < tol < 1, > k")
        if trace_products and trace_products < 6:
            raise InvalidArgument(f"trace_products={trace_products}: allow at least 6, or 0 for no trace")
        if not fraction > 0:
            raise InvalidArgument(f"fraction={fraction}: choose a number above 0, such as 0.5 of the threshold")
        self.seen_by_optimizer = None if optimizer is None else SeenByOptimizer(self.operator, optimizer, fraction, tol, seed)
        self.k, self.every, self.tol, self.seed = k, every, tol, seed
        self.trace_products, self.density_probes, self.log = trace_products, density_probes, log
        self.history: dict[int, Found] = {}
        self.eigenvectors: Tensor | None = None
        self._values = torch.zeros(0, dtype=torch.float64, device="cpu")
        self._next = 0
        self._last_call: float | None = None
        self._step_seconds: list[float] = []

    @checked
    def step(self, i: int | None = None) -> Found | None:
        """Check if ``i`` is a multiple of ``every`` and was not checked before; what was found, else None.

        Without ``i`` the calls are counted, from 0, or from the one after the last ``i``.
        """
        i = self._next if i is None else i
        self._next = i + 1
        now = time.perf_counter()
        if self._last_call is not None:
            self._step_seconds = [*self._step_seconds[-99:], now - self._last_call]
        found = self.check(i) if i % self.every == 0 and i not in self.history else None
        self._last_call = time.perf_counter()
        return found

    @checked
    def check(self, i: int) -> Found:
        """Measure at the model's present parameters; a flat dict of floats, also kept in :attr:`history`.

        Keys, each after "curvature/": eigenvalue/1 to k, largest, smallest (the lowest Ritz value), loss, gradient_norm,
        gradient_fraction (of the squared gradient in the top space), overlap_mask (with the k largest weights),
        overlap_previous (with the last check's space), error (the largest estimated relative error of the k values), products,
        seconds, training_steps; where asked for: trace, trace_stderr, outliers, negative (share of eigenvalues below -1e-3 of
        the largest), q10, q50, q90 (quantiles). With an optimizer: preconditioned/largest, /smallest, /threshold,
        /over_threshold (largest over threshold; steps along it grow above 1), /above (number of eigenvalues above ``fraction``
        of the threshold) and /products; NaN until an adaptive optimizer has made its first step.
        """
        start = time.perf_counter()
        self.operator.move()
        values, vectors, error, lowest, products = self._pairs()
        highest = float(values.max())
        if not highest > 0:  # with a positive one among the largest magnitudes, the largest of all is among them too
            top = eigsh(self.operator, 1, which="LA", method="krylov", tol=self.tol, seed=self.seed, progress=False)
            highest, products = float(top.eigenvalues[0]), products + top.products
        found = {f"eigenvalue/{j + 1}": float(value) for j, value in enumerate(values)}
        found |= {"largest": highest, "smallest": min(lowest, float(values.min())), "error": error}
        found |= self._spaces(vectors)
        if self.trace_products or self.density_probes:
            extra, spent = self._whole()
            found, products = found | extra, products + spent
        if self.seen_by_optimizer is not None:
            extra, spent = self.seen_by_optimizer.check()
            found, products = found | extra, products + spent
        self.eigenvectors, self._values = vectors, values
        seconds = time.perf_counter() - start
        found |= {"products": float(products), "seconds": seconds}
        if self._step_seconds:
            found["training_steps"] = seconds / max(statistics.median(self._step_seconds), 1e-9)
        named = {PREFIX + name: value for name, value in found.items()}
        self.history[i] = named
        if self.log is not None:
            self.log(named, i)
        return named

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is held open."""

    _instead: ClassVar[Mapping[str, str]] = {
        "update": "tracker.step()",
        "log_step": "tracker.step()",
        "values": "tracker.history, by step, or tracker.to_pandas()",
        "eigenvalues": "tracker.history[step]['curvature/eigenvalue/1'], or tracker.to_pandas()",
        "results": "tracker.history, by step, or tracker.to_pandas()",
        "to_dataframe": "tracker.to_pandas()",
        "save": "json.dumps(tracker.history)",
        "steps": "list(tracker.history)",
    }

    @checked
    def to_pandas(self) -> Any:
        """A data frame with a row for each step that was checked; needs pandas."""
        names = list(dict.fromkeys(name for found in self.history.values() for name in found))
        columns = {name: [found.get(name, math.nan) for found in self.history.values()] for name in names}
        return frame(columns, list(self.history))

    def to_dict(self) -> dict[int, Found]:
        """The history as plain numbers, by step, for JSON."""
        return {step: dict(found) for step, found in self.history.items()}

    def __str__(self) -> str:
        """Describe the last check in a few lines."""
        kind = type(self.operator).__name__
        rows = [f"Tracker of the {self.k} largest pairs of a {kind}, D = {self.size}, every {self.every} steps"]
        if self.history:
            step, found = list(self.history.items())[-1]
            values = ", ".join(f"{found[f'{PREFIX}eigenvalue/{j}']:.4g}" for j in range(1, min(self.k, 6) + 1))
            rows += [f"{len(self.history)} checks; step {step}: {values}{', ...' if self.k > 6 else ''}"]
        return "\n".join(rows)

    @checked
    def plot(self, ax: Any = None) -> Any:
        """Draw the eigenvalues over the steps into matplotlib axes (default: pyplot's current ones); returns the axes."""
        if ax is None:
            from matplotlib import pyplot

            ax = pyplot.gca()
        for j in range(1, self.k + 1):
            ax.plot(list(self.history), [found[f"{PREFIX}eigenvalue/{j}"] for found in self.history.values()], label=str(j))
        ax.set(xlabel="step", ylabel="eigenvalue")
        return ax

    # --- inside -------------------------------------------------------------------------------------------------------------

    def _pairs(self) -> tuple[Tensor, Tensor, float, float, int]:
        """Values, vectors, estimated error of the values, lowest Ritz value, products."""
        wanted = min(self.k + 1, self.size)
        if self.eigenvectors is None:
            solution = eigsh(
                self.operator, wanted, method="krylov", tol=self.tol, seed=self.seed, keep_basis=True, progress=False
            )
            values, vectors = solution.eigenvalues, solution.eigenvectors.to_tensor()[:, : self.k]
            error, products = self._error(values, solution.residual_norms), solution.cost
            return values[: self.k], vectors, error, _lowest(solution.basis), products.products + products.certificate_products
        budget = min(self.size, self.budget)
        problem = EigenProblem(self.operator, wanted, tol=self.tol, seed=self.seed)
        options = krylov_options(problem, Krylov(budget + 1, 1, budget))
        expansion, before = Expansion(self.operator, options, self._start()), torch.zeros(0, device="cpu")

        def finished() -> bool:
            """Return whether the values are right to tol, and one more product left them where they were."""
            nonlocal before
            if expansion.multiplied <= self.k:
                return False
            values, _, residuals = expansion.ritz()
            right = self._error(values, residuals) <= self.tol and self._close(values, before)
            before = values
            return right

        with metered(self.operator, None, False) as meter:
            grow(meter, expansion, stage="tracked pairs", finished=finished)
        values, rotation, residuals = expansion.ritz()
        vectors = multiply(expansion.basis.leading(expansion.multiplied), rotation[:, : self.k]).to_tensor()
        return values[: self.k], vectors, self._error(values, residuals), _lowest(expansion), meter.products

    def _close(self, values: Tensor, before: Tensor) -> bool:
        """Return whether one more product left the k values where they were."""
        k = self.k
        return len(before) >= k and bool(((values[:k] - before[:k]).abs() <= self.tol * values[:k].abs()).all())

    def _start(self) -> Tensor:
        """(D, 1): the last eigenvectors, and a little of a random direction."""
        random = TestMatrix(
            "gaussian", self.size, seed=self.seed, role="tracker", dtype=self.operator.dtype, device=self.operator.device
        ).columns(len(self.history), len(self.history) + 1)
        assert self.eigenvectors is not None
        sizes = self._values.abs().clamp(min=float(self._values.abs().max()) * 1e-6 or 1.0)
        warm = self.eigenvectors @ (1 / sizes).to(self.operator.device, self.operator.dtype)[:, None]
        start: Tensor = warm / warm.norm() + FRESH * random / random.norm()
        return start

    def _error(self, values: Tensor, residuals: Tensor) -> float:
        """The largest relative error of the k first values by residual and gap; the gap is to the other Ritz values."""
        k = min(self.k, len(values))
        apart = (values[:k, None] - values).abs()
        apart[torch.arange(k, device="cpu"), torch.arange(k, device="cpu")] = math.inf
        gaps = (apart - residuals).min(dim=1).values.clamp(min=1e-300)
        floor = 1e-12 * float(values.abs().max()) or 1.0
        return float((torch.minimum(residuals[:k], residuals[:k].square() / gaps) / values[:k].abs().clamp(min=floor)).max())

    def _spaces(self, vectors: Tensor) -> Found:
        """The top space beside the gradient, the largest weights and the last check's space."""
        gradient, basis = self.operator.gradient(), InMemory(vectors)
        ranking = masks.by_magnitude(dict(self.operator.parameters.unflatten(self.operator.values())))
        found = {"loss": float(self.operator.objective.mean_loss), "gradient_norm": float(gradient.norm())}
        found["gradient_fraction"] = gradient_fraction(gradient, basis).at(self.k) if bool(gradient.any()) else 0.0
        found["overlap_mask"] = overlap(basis, ranking).at(self.k)
        if self.eigenvectors is not None:
            found["overlap_previous"] = overlap(basis, InMemory(self.eigenvectors)).at(self.k)
        return found

    def _whole(self) -> tuple[Found, int]:
        """Return what is asked for about the whole spectrum, and its products."""
        found, products = {}, 0
        if self.density_probes:
            whole = density(
                self.operator, num_probes=self.density_probes, num_steps=30, seed=self.seed, method="lanczos", progress=False
            )
            low, high = whole.range
            found = {f"q{100 * share:.0f}": whole.quantile(share) for share in (0.1, 0.5, 0.9)}
            found["outliers"] = float(whole.outliers())
            found["negative"] = whole.mass(high=-1e-3 * max(abs(low), abs(high))).value
            found["trace"], found["trace_stderr"] = whole.trace.value, whole.trace.stderr
            products += whole.products
        if self.trace_products:
            estimate = trace(self.operator, max_products=self.trace_products, seed=self.seed, progress=False)
            found["trace"], found["trace_stderr"] = estimate.value, estimate.stderr
            products += estimate.products
        return found, products


def _lowest(expansion: Expansion) -> float:
    """The lowest Ritz value of all that was multiplied, not of the k pairs alone."""
    seen = expansion.action[: expansion.multiplied, : expansion.multiplied]
    return float(torch.linalg.eigvalsh((seen + seen.T) / 2)[0])
