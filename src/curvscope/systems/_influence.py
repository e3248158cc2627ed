"""Influence of training samples on test losses, by linear systems with a damped curvature matrix."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument, InvalidType
from curvscope.operators import CurvatureOperator, Objective, Preconditioned, Sum, as_operator
from curvscope.operators.base import Operator
from curvscope.operators.objective import split
from curvscope.solvers import Solution
from curvscope.system import Displayed, Hinted, Progress, checked, frame
from curvscope.systems._result import LinearSolution
from curvscope.systems._slopes import check_samples, placed, sample_slopes
from curvscope.systems._solve import solve


@dataclass(frozen=True, repr=False)
class Influence(Displayed, Hinted):
    """Influence of n training samples on test losses.

    Attributes:
        scores: float64 (n,), or (t, n) for t test losses: d(test loss) / d(weight of the sample's loss in the training loss),
            -g_test' (A + damping I)^-1 g_i. Positive: more of the sample makes the test loss larger.
        removed: float64, of the same shape: predicted change of the test loss when the sample is left out.
        solution: the linear systems of the test gradients, with residuals and error bounds.

    >>> import curvscope as cs
    >>> from torch import nn
    >>> model = nn.Linear(2, 2)
    >>> data, test = [(torch.randn(6, 2), torch.arange(6) % 2)], [(torch.randn(3, 2), torch.tensor([0, 1, 1]))]
    >>> found = cs.influence(cs.ggn(model, nn.CrossEntropyLoss(), data), test, damping=0.1)
    >>> found.scores.shape, found.converged
    (torch.Size([6]), True)
    """

    _instead: ClassVar[Mapping[str, str]] = {
        "values": "influence.scores",
        "influences": "influence.scores",
        "harmful": "influence.top(k)",
        "helpful": "influence.top(k, helpful=True)",
    }

    scores: Tensor
    removed: Tensor
    solution: LinearSolution

    @property
    def converged(self) -> bool:
        """True if the systems of all test losses reached their tolerance."""
        return self.solution.converged

    @checked
    def top(self, k: int = 10, *, helpful: bool = False) -> Tensor:
        """Return the places of the k samples whose removal lowers the test losses most; ``helpful``: raises them most.

        (k,) or (t, k), in the order of the training data.
        """
        if not 1 <= k <= self.scores.shape[-1]:
            raise InvalidArgument(f"k={k}: choose an integer from 1 to {self.scores.shape[-1]}, the number of samples")
        return self.removed.topk(k, largest=helpful).indices

    def to_pandas(self) -> Any:
        """A data frame with a row for each training sample; needs pandas."""
        if self.scores.ndim == 1:
            return frame({"score": self.scores.tolist(), "removed": self.removed.tolist()}, list(range(len(self.scores))))
        return frame({str(j): row.tolist() for j, row in enumerate(self.scores)}, list(range(self.scores.shape[1])))

    def __len__(self) -> int:
        return int(self.scores.shape[-1])

    def __str__(self) -> str:
        count = 1 if self.scores.ndim == 1 else len(self.scores)
        rows = [f"Influence of {len(self)} training samples on {count} test loss{'es' if count > 1 else ''}"]
        sizes = self.removed.abs().reshape(count, -1)
        rows.append(f"predicted changes of a test loss by leaving out one sample: at most {float(sizes.max()):.3g}")
        worst = float(self.solution.relative_residuals.max())
        rows.append(f"linear systems: {self.solution.status.code}, relative residuals at most {worst:.1e}")
        rows.append(f"{self.solution.products} products")
        return "\n".join(rows)


@checked
def influence(  # noqa: PLR0913 -- a public function: request and resources, by keyword
    operator: Any,
    test: Any,
    train: Any = None,
    *,
    damping: float = 0.0,
    each: bool = False,
    tol: float = 1e-5,
    method: Literal["auto", "cg", "minres"] = "auto",
    deflate: Solution | None = None,
    preconditioner: Any = None,
    executor: Any = None,
    progress: Progress = None,
) -> Influence:
    r"""Score every training sample by its influence on test losses.

    .. math:: s_i = -g_{test}^\top (A + \mu I)^{-1} g_i, \qquad
        \Delta_i = \frac{w_i}{T}\, g_{test}^\top (A + \mu I)^{-1} g_i

    s_i is the derivative of the test loss by the weight of the sample's loss, and Delta_i what leaving the sample out does to
    the test loss, to first order: w_i of the T terms of the training loss are its own. One linear system for each test loss;
    no gradient of a single training sample is formed for criteria of PyTorch.

    Args:
        operator: A, a curvature operator of the training loss (:func:`curvscope.ggn`, :func:`curvscope.hessian`), or one that
            is made of it, such as ``H + 0.1 * cs.identity(H)``.
        test: batches of test data; a :class:`.Objective` of them; or test gradients, (D,) or (D, t).
        train: batches of the samples that are scored; None: the data of A.
        damping: mu. With weight decay lambda / 2 ||theta||^2 in the training loss, lambda.
        each: one test loss for every test sample, instead of their mean.
        tol: of the residuals of the linear systems, relative.
        method: see :func:`curvscope.solve`, also for ``deflate`` and ``preconditioner``, which make the systems cheap.
        deflate: a solution of A.
        preconditioner: approximates (A + damping I)^-1.
        executor: who computes the products; see :func:`curvscope.solve`.
        progress: see :data:`.progress.Progress`.

    Returns:
        ``.scores`` (n,), with ``each`` or several gradients (t, n); ``.removed``; ``.top(k)``; ``.solution``.

    Cost: that of the systems, and about 2 t + 2 passes over the training data; for losses that are no criterion of PyTorch a
        gradient of each sample; memory: t vectors and what the systems take.

    Raises:
        InvalidType, InvalidArgument: an operator of no loss, data that it does not take, samples that depend on one another.
    Limits: first order, at parameters that are taken for a minimum of the training loss. Of a network that is not trained to
        the end, or of a large group of samples, predictions are rankings at best.
    Source: Cook and Weisberg (1982); Koh and Liang (ICML 2017, arXiv 1703.04730).

    >>> import curvscope as cs
    >>> from torch import nn
    >>> model, data = nn.Linear(2, 2), [(torch.randn(6, 2), torch.arange(6) % 2)]
    >>> found = cs.influence(cs.ggn(model, nn.CrossEntropyLoss(), data), data, damping=0.1, each=True)
    >>> found.scores.shape
    torch.Size([6, 6])
    """
    matrix = as_operator(operator)
    objective = objective_of(matrix)
    if objective is None:
        raise InvalidType(f"a {type(matrix).__name__} is of no loss: pass the operator that cs.ggn or cs.hessian gives")
    samples = objective if train is None else objective.like(_batches(train, "train"))
    check_samples(samples)
    gradients = _test_gradients(matrix, objective, test, each=each)
    block = gradients[:, None] if gradients.ndim == 1 else gradients
    found = solve(
        matrix,
        block,
        damping=damping,
        tol=tol,
        method=method,
        deflate=deflate,
        preconditioner=preconditioner,
        executor=executor,
        progress=progress,
    )
    slopes, terms = sample_slopes(samples, found.x)
    total = objective.total_terms if not objective.sums else 1.0
    weights = terms / total if not objective.sums else torch.ones_like(terms)
    scores, removed = -slopes.T, (slopes * weights[:, None]).T
    if gradients.ndim == 1:
        scores, removed = scores[0], removed[0]
    return Influence(scores.contiguous(), removed.contiguous(), found)


def objective_of(operator: Operator) -> Objective | None:
    """Return the loss that an operator, or the first summand that has one, is of."""
    if isinstance(operator, CurvatureOperator):
        return operator.objective
    if isinstance(operator, Sum):
        return next((found for _, term in operator.terms if (found := objective_of(term)) is not None), None)
    inner = getattr(operator, "inner", None) if not isinstance(operator, Preconditioned) else None
    return objective_of(inner) if isinstance(inner, Operator) and inner.shape == operator.shape else None


def _batches(data: Any, name: str) -> Iterable[Any]:
    if isinstance(data, Objective):
        return data.data
    if not isinstance(data, Iterable) or isinstance(data, str | Mapping | Tensor):
        raise InvalidType(f"{name} is a {type(data).__name__}: pass a list of batches or a DataLoader")
    return data


def _test_gradients(matrix: Operator, objective: Objective, test: Any, *, each: bool) -> Tensor:
    """(D,) for the mean test loss, (D, t) for several."""
    if isinstance(test, Tensor):
        if each or test.ndim not in (1, 2) or test.shape[0] != matrix.shape[0]:
            raise InvalidArgument(
                f"test is a tensor of shape {tuple(test.shape)}: pass test gradients ({matrix.shape[0]},) or "
                f"({matrix.shape[0]}, t), without each=, or batches"
            )
        return test.detach().to(matrix.device, matrix.dtype)
    other = test if isinstance(test, Objective) else objective.like(_batches(test, "test"))
    if other.parameters != objective.parameters:
        raise InvalidArgument("the test loss is of other parameters than the operator: build both with the same params=")
    if not each:
        return other.gradient().to(matrix.dtype)
    check_samples(other)
    columns = []
    with other.isolated():
        for number, batch in enumerate(placed(other)):
            other.seed(number)
            columns += [other.batch_gradient(piece) for piece in split(batch, 1) if other.terms(piece)]
    return torch.stack(columns, dim=1).to(matrix.dtype)
