"""P^(-1/2) A P^(-1/2), the curvature as an optimizer sees it, and its eigenpairs in the parameters' own coordinates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from curvscope.errors import InvalidArgument, InvalidType
from curvscope.operators._algebra import Arithmetic, Composable, Sum, parameters_of
from curvscope.operators._identity import combined
from curvscope.operators._interop import as_operator
from curvscope.operators._parameters import Parameters
from curvscope.operators._rank import RankBound
from curvscope.operators.base import Operator
from curvscope.operators.fingerprint import fingerprint
from curvscope.operators.optimizers._inverse_root import inverse_root, is_matrix
from curvscope.operators.optimizers._scale import read_scale
from curvscope.operators.optimizers._threshold import StabilityThreshold
from curvscope.system import Displayed, Hinted, checked
from curvscope.tall import InMemory, TallMatrix


class Preconditioned(Composable):
    r"""R (A + diag(decay)) R with a symmetric positive definite R = P^(-1/2); build it with :func:`preconditioned`.

    Attributes:
        inner: A.
        threshold: at which eigenvalue the optimizer's steps become unstable; None where P was given as a matrix.

    >>> import torch
    >>> A = preconditioned(torch.diag(torch.tensor([8.0, 1.0])), torch.tensor([4.0, 1.0]))
    >>> A.to_dense().tolist()
    [[2.0, 0.0], [0.0, 1.0]]
    """

    _instead: ClassVar[Mapping[str, str]] = {
        **Composable._instead,
        **{name: f"A.inner.{name}" for name in ("gradient", "loss", "values", "move")},
        "generalised_pairs": "A.generalized_pairs(solution)",
    }

    def __init__(
        self,
        inner: Arithmetic,
        root: Tensor | Operator,
        decay: Tensor | None = None,
        threshold: StabilityThreshold | None = None,
    ) -> None:
        self.inner, self.threshold = inner, threshold
        self.shape, self.dtype, self.device = inner.shape, inner.dtype, inner.device
        self.assumed_hermitian = inner.assumed_hermitian
        self._root = root if isinstance(root, Operator) else root.to(inner.device, inner.dtype)[:, None]
        has_decay = decay is not None and bool(decay.any())
        self._decay = decay.to(inner.device, inner.dtype)[:, None] if decay is not None and has_decay else None

    @property
    def parameters(self) -> Parameters:
        """Parameters of A; an AttributeError where it has none."""
        return parameters_of(self.inner)

    @property
    def rounding(self) -> float:
        """Rounding of A."""
        return self.inner.rounding

    @property
    def semidefinite(self) -> bool:
        """True if A is, and no weight decay is negative."""
        return self.inner.semidefinite and (self._decay is None or not bool((self._decay < 0).any()))

    def view(self, *, memory: int | None = None, strategy_report: Mapping[str, Any] | None = None) -> Preconditioned:
        """See :meth:`.Capabilities.view`; of A."""
        return self._view_of(inner=self.inner.view(memory=memory))

    def rank_bound(self) -> RankBound | None:
        """See :meth:`.Operator.rank_bound`."""
        return None if self._decay is not None else self.inner.rank_bound()

    def root(self, block: Tensor) -> Tensor:
        """P^(-1/2) @ block, which maps vectors of this operator to the parameters' coordinates."""
        return self._root @ block if isinstance(self._root, Operator) else self._root * block

    @checked
    def generalized_pairs(self, solution: Any) -> GeneralizedPairs:
        r"""Return the pairs of a solution of this operator as pairs H v = lambda P v in the parameters' own coordinates.

        Args:
            solution: what :func:`curvscope.eigsh` gave for this operator.

        Cost: one read of the vectors; memory: D k numbers.

        Raises:
            InvalidType: no solution. InvalidArgument: one of another number of parameters.

        >>> import torch
        >>> import curvscope as cs
        >>> A = cs.preconditioned(torch.diag(torch.tensor([8.0, 1.0])), torch.tensor([4.0, 1.0]))
        >>> pairs = A.generalized_pairs(cs.eigsh(A, k=1))
        >>> pairs.eigenvalues.tolist(), pairs.eigenvectors.to_tensor().tolist()
        ([2.0], [[0.5], [0.0]])
        """
        vectors = getattr(solution, "eigenvectors", None)
        if not isinstance(vectors, TallMatrix):
            raise InvalidType(f"solution is a {type(solution).__name__}, expected what cs.eigsh gives for this operator")
        if vectors.shape[0] != self.shape[0]:
            raise InvalidArgument(
                f"the solution has vectors of length {vectors.shape[0]}, this operator has D = {self.shape[0]}"
            )
        mapped = self.root(vectors.to_tensor().to(self.device, self.dtype))
        named = getattr(self, "parameters", None)
        return GeneralizedPairs(solution.eigenvalues, InMemory(mapped), solution.residual_norms, named, self.threshold)

    def _apply(self, block: Tensor) -> Tensor:
        mapped = self.root(block)
        product = self.inner._apply(mapped)
        if self._decay is not None:
            product = product + self._decay * mapped
        return self.root(product)

    def without_assumption(self) -> Arithmetic:
        """See :meth:`.Operator.without_assumption`."""
        if not self.assumed_hermitian:
            return self
        raise InvalidArgument("a preconditioned matrix is symmetric: pass the operator with hermitian=True")

    def _parts(self) -> list[Any]:
        root = self._root.fingerprint if isinstance(self._root, Operator) else self._root
        return ["none" if self._decay is None else self._decay, root]

    def _fingerprint(self) -> str:
        return fingerprint("preconditioned", self.inner.fingerprint, *self._parts())

    def _identity(self) -> dict[str, Any]:
        return combined("Preconditioned", [self.inner], scale=fingerprint(*self._parts()))


@dataclass(frozen=True, repr=False)
class GeneralizedPairs(Displayed, Hinted):
    """Pairs H v = lambda P v in the parameters' own coordinates, V' P V = I.

    Attributes:
        eigenvalues: float64 (k,).
        eigenvectors: V, (D, k); not orthonormal.
        residual_norms: float64 (k,), of H v - lambda P v in the norm of P^(-1).
        parameters: names and shapes of the D parameters; None where the operator has none.
        threshold: at which the optimizer's steps become unstable; None where P was given as a matrix.

    >>> import torch
    >>> import curvscope as cs
    >>> A = cs.preconditioned(torch.diag(torch.tensor([8.0, 1.0])), torch.tensor([4.0, 1.0]))
    >>> print(A.generalized_pairs(cs.eigsh(A, k=1)))
    1 generalised pairs H v = lambda P v, D = 2
    eigenvalues: 2
    """

    eigenvalues: Tensor
    eigenvectors: TallMatrix
    residual_norms: Tensor
    parameters: Parameters | None = None
    threshold: StabilityThreshold | None = None

    @property
    def over_threshold(self) -> Tensor:
        """Eigenvalues divided by the threshold, (k,) float64: steps grow along the vectors of those above 1.

        Raises:
            InvalidArgument: there is no threshold, as P was given as a matrix.
        """
        if self.threshold is None:
            raise InvalidArgument("P was given as a matrix, which has no threshold: pass the optimizer to cs.preconditioned")
        return self.eigenvalues / float(self.threshold)

    @checked
    def vector(self, i: int) -> dict[str, Tensor]:
        """Vector i by parameter name.

        Raises:
            InvalidArgument: i is out of range, or the operator has no named parameters.
        """
        k = len(self.eigenvalues)
        if not -k <= i < k:
            raise InvalidArgument(f"there is no pair {i}: there are {k}, counted from 0")
        if self.parameters is None:
            raise InvalidArgument("this operator has no named parameters: use pairs.eigenvectors[:, i]")
        return self.parameters.unflatten(self.eigenvectors.columns(i % k, i % k + 1)[:, 0])

    def __len__(self) -> int:
        return len(self.eigenvalues)

    def __str__(self) -> str:
        shown = ", ".join(f"{value:.6g}" for value in self.eigenvalues[:8].tolist())
        rows = [f"{len(self)} generalised pairs H v = lambda P v, D = {self.eigenvectors.shape[0]}"]
        rows.append(f"eigenvalues: {shown}{', ...' if len(self) > 8 else ''}")
        if self.threshold is not None:
            above = int((self.eigenvalues > float(self.threshold)).sum())
            rows.append(f"{above} above the threshold {float(self.threshold):.6g} of {self.threshold.optimizer}")
        return "\n".join(rows)


@checked
def preconditioned(
    operator: Any, optimizer: Any, *, model: nn.Module | None = None, weight_decay: bool = True
) -> Preconditioned:
    r"""Return P^(-1/2) H P^(-1/2), the curvature that decides about the stability of an optimizer's steps.

    .. math:: \theta \leftarrow \theta - \eta P^{-1} m: \qquad
        \text{stable while}\quad \lambda_{\max}(P^{-1/2} H P^{-1/2}) < \text{threshold}

    P is the diagonal that the last step divided by, with the bias corrections of PyTorch: Adam and AdamW both, NAdam that of
    the second moment (the other one is in its threshold). Rows of parameter groups with other learning rates are scaled by
    sqrt(lr_group / lr) relative to the first group that moves, in general by the root of the quotient of their thresholds.
    So ``.threshold``, which is ``stability_threshold(optimizer)``, decides for all groups. Weight decay that is part of the
    gradient (that of AdamW, and of ``decoupled_weight_decay=True``, is not) adds its lambda to the diagonal of H.

    Args:
        operator: H, of the parameters that the optimizer moves, or of some of them; anything that
            :func:`curvscope.as_operator` takes, where P is a matrix.
        optimizer: of torch.optim: SGD, RMSprop, Adagrad, Adam, AdamW, NAdam, which has made a step unless it is SGD. Its
            state is copied: call again after further steps. Or P itself: its diagonal (D,), tensors by parameter name, a dense
            matrix, or an operator that has ``inverse_square_root()``, as ``solution.low_rank(damping)`` has.
        model: of whose parameters the operator is, where it does not know it (sums, submatrices and others do).
        weight_decay: whether decay that is part of the gradient is added to H.

    Returns:
        An operator for :func:`curvscope.eigsh` and all others. ``generalized_pairs(solution)`` gives pairs H v = lambda P v.

    Cost: a product with H and 2 D multiplications a vector; memory: D numbers. A dense P: 10 D^3 operations once.

    Raises:
        InvalidType, InvalidArgument: an operator without a model, an optimizer of another kind or model, one that has not
            stepped, a P that is not positive definite.
    Source: Cohen et al. (arXiv 2103.00065; 2207.14484).

    >>> import torch
    >>> import curvscope as cs
    >>> model, data = nn.Linear(2, 1), [(torch.eye(2), torch.zeros(2, 1))]
    >>> H = cs.hessian(model, nn.MSELoss(), data)
    >>> optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    >>> nn.MSELoss()(model(data[0][0]), data[0][1]).backward(); _ = optimizer.step()
    >>> A = cs.preconditioned(H, optimizer)
    >>> A.shape, round(A.threshold)
    ((3, 3), 380)
    """
    inner = as_operator(operator)
    if not isinstance(inner, Arithmetic) or inner.shape[0] != inner.shape[1] or not inner.hermitian:
        raise InvalidArgument(f"preconditioning needs a symmetric operator, got {inner!r}")
    if inner.dtype.is_complex:
        raise InvalidArgument(f"preconditioning needs a real operator, got {inner.dtype}")
    if is_matrix(optimizer):
        return Preconditioned(inner, inverse_root(optimizer, inner))
    owner = model if model is not None else model_of(inner)
    if owner is None:
        raise InvalidArgument(
            "this operator knows no model, whose parameters the optimizer could be asked for: pass model=, or P as a diagonal"
        )
    scale = read_scale(optimizer, parameters_of(inner), owner, inner.device)
    return Preconditioned(inner, scale.rows, scale.decay if weight_decay else None, scale.threshold)


def model_of(operator: Operator) -> nn.Module | None:
    """Return the model that an operator, or one that it is made of, has parameters of; None: of no model."""
    if operator.objective is not None:
        return operator.objective.model
    inner = [term for _, term in operator.terms] if isinstance(operator, Sum) else [getattr(operator, "inner", None)]
    found = (model_of(part) for part in inner if isinstance(part, Operator))
    return next((model for model in found if model is not None), None)
