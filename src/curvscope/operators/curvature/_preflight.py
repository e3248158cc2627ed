"""Is this operator one fixed, linear, symmetric matrix, and the one that was meant? A few products tell before long work."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from curvscope.errors import CurvscopeError, NotDeterministic, UnfitOperator
from curvscope.operators.base import Operator
from curvscope.operators.curvature._hessian import Hessian
from curvscope.operators.objective import BATCH_NORMS, Objective, length, tensors_of
from curvscope.operators.products import REMEDY, ROUNDING, UNDECIDED, against_differences
from curvscope.system import Displayed, Hinted, checked, float32_products, long_work


@dataclass(frozen=True)
class Check:
    """One property and how far it is off.

    Attributes:
        name: of the property.
        error: relative deviation; 0 is exact, NaN could not be measured.
        limit: largest deviation that rounding explains.
        cause: what is the matter; "" when the check passed, unless there is something to know all the same.
        remedy: what to do about it, "" when the check passed.
    """

    name: str
    error: float
    limit: float
    cause: str = ""
    remedy: str = ""

    @property
    def passed(self) -> bool:
        """True if the deviation is explained by rounding."""
        return self.error <= self.limit


@dataclass(frozen=True, repr=False)
class Preflight(Displayed, Hinted):
    """Result of :func:`preflight`.

    >>> print(Preflight((Check("determinism", 0.0, 1e-5),)))
    determinism              0.0e+00  passed
    """

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """True if every check passed."""
        return all(check.passed for check in self.checks)

    def __str__(self) -> str:
        lines = []
        for check in self.checks:
            noted = f" ({check.cause})" if check.cause else ""
            verdict = f"passed{noted}" if check.passed else f"FAILED: {check.cause}; {check.remedy}"
            lines.append(f"{check.name:<24} {check.error:.1e}  {verdict}")
        return "\n".join(lines)


@float32_products()
@checked
def preflight(operator: Operator, *, short: bool = False, seed: int = 0) -> Preflight:
    r"""Check that an operator is a fixed, linear, symmetric matrix, and that a Hessian is the derivative of the gradient.

    Determinism (the same product twice), linearity, symmetry; for curvature operators that two independent routes to the
    derivatives agree (what every product verifies by itself), also invariance to splitting a batch, and for Hessians central
    differences of the gradient of a few samples. Products in TF32, bfloat16 or float16 are compared with
    float64 ones, on one batch. A failed check names its likely cause and a remedy.

    Args:
        operator: any.
        short: determinism, of products and of one batch's loss, and symmetry alone.
        seed: of the test vectors.

    Cost: two passes over the data, two evaluations of one batch and 3 products (short), or 4 products, 2 more on one batch and
    some 30 gradients of a few samples; 2 on one batch more in coarse arithmetic. Nothing is raised: look at ``passed``. A
    product that raises is a failed check, with the error as its cause.

    >>> from curvscope.operators import as_operator
    >>> preflight(as_operator(torch.eye(3))).passed
    True
    """
    generator = torch.Generator().manual_seed(seed)
    x, y = (
        torch.randn(operator.shape[1], generator=generator, device="cpu").to(operator.device, operator.dtype) for _ in range(2)
    )
    try:
        return Preflight(tuple(_checks(operator, x, y, short=short)))
    except UnfitOperator as error:
        name = "determinism" if isinstance(error, NotDeterministic) else "derivatives"
        return Preflight((Check(name, float("nan"), 0.0, error.cause, error.remedy or "see the message"),))
    except RAISED as error:
        told = str(error) if isinstance(error, CurvscopeError) else f"{type(error).__name__}: {error}"
        return Preflight((Check("product", float("nan"), 0.0, told, "see the message"),))


def _checks(operator: Operator, x: Tensor, y: Tensor, *, short: bool) -> list[Check]:
    checks, limit = [], min(1e3 * operator.rounding, COARSEST)
    operator = operator.view()
    if (found := operator.derivatives()) is not None:
        limit = min(max(limit, ROUNDING * found.rounding), COARSEST)
        checks.append(Check("derivatives", found.error, float("inf"), found.summary))
    with long_work():  # every product of one kind, so that no other rounding looks like noise
        first = operator @ x
    if operator.objective is not None:
        checks += [*_same_data(operator, operator.objective), _same_loss(operator, operator.objective, limit)]
    checks.append(_determinism(operator, x, first, limit))
    if not short:
        combined = operator @ (x - 2 * y)
        second = operator @ y
        checks.append(_check("linearity", combined, first - 2 * second, limit, "products are not linear", LINEAR))
    if operator.hermitian:
        checks.append(_symmetry(x, y, first, operator @ y, limit))
    if operator.objective is not None and found is not None:
        checks += _of_one_batch(operator, operator.objective, x, short=short)
    return checks


RAISED = (CurvscopeError, RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError, ArithmeticError)
"""What products, models and losses raise: a failed check."""
SURE = 1e-4
"""Difference from float64 differences that is no wrong derivative."""

COARSEST = 0.1
"""Relative error of a product that is nothing but error."""
LINEAR = "a custom autograd function or in-place change of the model's state is the usual reason: compare in torch.float64"
FINER = "leave out precision= and dtype=, or choose dtype=torch.float32"
CHANGING_DATA = (
    "the data changes from one pass to the next (random augmentation, or a shuffling loader that leaves samples out)",
    "pass a list of batches, or a DataLoader with shuffle=False and fixed transforms",
)


def _determinism(operator: Operator, x: Tensor, first: Tensor, limit: float) -> Check:
    cause, remedy = _cause_of_noise(operator)
    try:
        return _check("determinism", operator @ x, first, limit, cause, remedy)
    except CurvscopeError as error:
        return Check("determinism", float("nan"), limit, str(error), remedy)


def _same_loss(operator: Operator, objective: Objective, limit: float) -> Check:
    """Return whether a batch has the same loss twice: products may be kept, and begin at the same random state."""
    found = []
    with objective.isolated(), torch.no_grad():
        batch, _ = next(objective.batches())
        for _ in range(2):
            objective.seed(0)
            found.append(objective.loss_value(objective.values, batch).double().reshape(()))
    return _check("same loss twice", found[1], found[0], limit, *_cause_of_noise(operator))


def _cause_of_noise(operator: Operator) -> tuple[str, str]:
    """The likeliest reason why the same product came out differently."""
    if operator.objective is None:
        return "the operator draws random numbers or accumulates in varying order", "fix its seed"
    return (
        "the model draws random numbers of its own in evaluation mode, keeps a state, or a kernel sums in varying order",
        "use functional dropout with training=self.training; on a GPU torch.use_deterministic_algorithms(True)",
    )


def _same_data(operator: Operator, objective: Objective) -> list[Check]:
    """Return whether two passes hold the same numbers (products may be kept and would not tell), and in the same order."""
    (first, in_order), (second, again) = (_moments(objective, seed=seed) for seed in (0, 1))
    same = _check("same data in every pass", second, first, 1e-9, *CHANGING_DATA)
    if torch.equal(in_order, again) or not same.passed:
        return [same]
    # A mean over samples does not know their order; rounding does.
    matters = operator.depends_on_order
    cause = (
        "the loader shuffles, and this matrix depends on which samples come where"
        if matters
        else "the loader shuffles: the same matrix, but products repeat up to rounding only"
    )
    return [same, Check("same order in every pass", 1.0, 0.0 if matters else 1.0, cause, CHANGING_DATA[1] if matters else "")]


def _moments(objective: Objective, *, seed: int) -> tuple[Tensor, Tensor]:
    """Sums and sums of squares of every tensor of the data: over all, which no shuffling changes, and one by one.

    The global generators are seeded anew (and restored): augmentation would repeat itself from the same state and hide.
    """
    found: list[Tensor] = []
    with objective.isolated():
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 -- what augmentations of other libraries draw from
        for batch, _ in objective.batches():
            for tensor in tensors_of(batch):
                values = tensor.double().reshape(-1)
                places = torch.arange(1, values.numel() + 1, dtype=values.dtype, device=values.device)
                found.append(torch.stack([values.sum(), values.square().sum(), values @ places]).cpu())
    in_order = torch.stack(found)
    return in_order[:, :2].sum(0), in_order


def _symmetry(x: Tensor, y: Tensor, of_x: Tensor, of_y: Tensor, limit: float) -> Check:
    scale = float(of_x.norm() * y.norm() + of_y.norm() * x.norm()) or 1.0
    error = abs(float(y @ of_x - x @ of_y)) / scale
    remedy = "for attention use the MATH kernel; for custom autograd functions make backward itself differentiable"
    return _verdict("symmetry", error, limit, "an operation's second derivative is wrong or missing", remedy)


def _of_one_batch(operator: Operator, objective: Objective, x: Tensor, *, short: bool) -> list[Check]:
    coarse = objective.chosen_rounding > torch.finfo(torch.float32).eps
    if short and not coarse:
        return []
    with objective.isolated():
        batch, _ = next(objective.batches())
    double = objective.like([batch], dtype=torch.float64)
    exact, rounded = operator.on(double), operator.on(objective.like([batch])) if coarse else None
    if exact is None:
        return []
    checks = [] if rounded is None else [_arithmetic(rounded, exact, objective.arithmetic, x)]
    if not short:
        weighted = objective.num_pieces == 1 or objective.weight is not None
        checks.append(_split_invariance(operator, exact, double, x.double(), weighted=weighted))
        fine = double.rounding <= torch.finfo(torch.float32).eps
        # Products by differences show nothing beside differences.
        if isinstance(operator, Hessian) and operator.batch_map.calibration is None and fine:
            checks.append(_finite_difference(operator))
    return checks


def _arithmetic(operator: Operator, double: Operator, name: str, x: Tensor) -> Check:
    """The product with one batch in the operator's arithmetic and in float64, at the parameters as they are there."""
    found = (operator @ x).double()
    check = _check("arithmetic", found, double @ x.double(), COARSEST, f"products in {name} are rounding", FINER)
    return check if not check.passed else replace(check, cause=f"{name}, against float64")


def _split_invariance(operator: Operator, whole: Operator, objective: Objective, x: Tensor, *, weighted: bool) -> Check:
    """The batch whole and in two halves, in float64."""
    batch, _ = next(objective.batches())
    norms = [module for module in objective.model.modules() if isinstance(module, BATCH_NORMS)]
    cause, remedy = (
        "the loss of a batch is not the mean over its samples",
        "pass weight=lambda batch: number of loss terms, or reduction='sum' for sums",
    )
    if any(norm.running_mean is None for norm in norms):
        cause, remedy = "batch normalisation without running statistics mixes the samples of a batch", "let it track them"
    elif norms and objective.batchnorm == "batch":
        cause, remedy = "batch normalisation mixes the samples of a batch", "choose batchnorm='eval'"
    limit = max(1e-8, min(1e3 * objective.rounding, COARSEST))
    try:
        halves = operator.on(objective.like([batch], microbatch=max(1, length(batch) // 2)))
        assert halves is not None, "the whole was made"
        return _check("batch-split invariance", halves @ x, whole @ x, limit, cause, remedy)
    except (RuntimeError, ValueError, TypeError, LookupError) as error:  # a normalisation that wants more samples, a graph
        reason = f"a part of a batch cannot be evaluated: {error}"
        if weighted:  # nothing hangs on it
            return Check("batch-split invariance", 0.0, limit, f"not measured, {reason}")
        return Check("batch-split invariance", float("nan"), limit, reason, remedy)


def _finite_difference(operator: Hessian) -> Check:
    """The product against central differences on a few samples, in float64 where the model allows that.

    A piecewise linear network has kinks: a step across one changes differences, not products. Steps of three sizes tell these
    apart: a wrong product is off for all of them.
    """
    error, limit, scatter = against_differences(operator.batch_map)
    if error <= max(limit, SURE):
        return Check("finite difference", error, max(limit, SURE))
    if scatter > UNDECIDED:
        kinks = f"differences of other steps scatter by {scatter:.0e}: kinks of a piecewise linear network, or rounding"
        return Check("finite difference", error, float("inf"), f"{kinks}; they say nothing about the product")
    return Check("finite difference", error, limit, "gradient and product disagree", REMEDY)


def _check(name: str, found: Tensor, expected: Tensor, limit: float, cause: str, remedy: str) -> Check:
    scale = float(expected.norm()) or 1.0
    return _verdict(name, float((found - expected).norm()) / scale, limit, cause, remedy)


def _verdict(name: str, error: float, limit: float, cause: str, remedy: str) -> Check:
    return Check(name, error, limit) if error <= limit else Check(name, error, limit, cause, remedy)
