"""Posterior of the weights, low rank plus a multiple of the identity, and what it says about outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.operators import CurvatureOperator, jacobian
from curvscope.operators.objective import length
from curvscope.solvers import Solution
from curvscope.solvers.results import LowRank
from curvscope.system import Displayed, Hinted, checked

ROWS = 64
"""Rows of the Jacobian at a time: D x 64 numbers."""


class Evidence(NamedTuple):
    """Logarithm of the marginal likelihood, log p(data | prior), of the Laplace approximation.

    Attributes:
        value: with the computed pairs alone.
        lower: at least this, where a certificate bounds what was left out; else -inf.
        upper: at most this.
        log_likelihood: of the training data at the mode.
        log_det_ratio: ln det of the posterior's precision over the prior's.
        scatter: prior precision times the squared norm of the weights.
    """

    value: float
    lower: float
    upper: float
    log_likelihood: float
    log_det_ratio: float
    scatter: float


@dataclass(frozen=True, repr=False)
class Variance(Displayed, Hinted):
    """Covariance of a network's outputs under a posterior of its weights.

    Attributes:
        covariance: float64 (n, C, C), J Lambda^-1 J^T for each of n samples with C outputs.
        lower: float64 (n, C), variances are at least this with the whole matrix.
        upper: float64 (n, C), and at most this.
        is_proven: whether a certificate proves these limits, except with its probability of failure; else they are for the
            smallest eigenvalue that was found.
    """

    _instead: ClassVar[Mapping[str, str]] = {
        "std": "variance.value.sqrt()",
        "stddev": "variance.value.sqrt()",
        "variance": "variance.value",
    }

    covariance: Tensor
    lower: Tensor
    upper: Tensor
    is_proven: bool

    @property
    def value(self) -> Tensor:
        """Variances, float64 (n, C): the diagonals of the covariances."""
        return self.covariance.diagonal(dim1=1, dim2=2)

    def __str__(self) -> str:
        n, outputs = self.lower.shape
        spread = float(((self.upper - self.lower) / self.value.clamp(min=1e-300)).max()) if n else 0.0
        how = "proven" if self.is_proven else "estimated; cs.certify(G, solution) proves them"
        return (
            f"variances of {outputs} outputs for {n} samples, from {float(self.value.min()):.3g} to "
            f"{float(self.value.max()):.3g}\nthe truncation leaves limits up to {spread:.2g} of a variance apart ({how})"
        )


@dataclass(frozen=True, repr=False)
class Posterior(Displayed, Hinted):
    """Gaussian posterior of the weights: the precision is that of k eigenpairs, and the prior's elsewhere.

    Attributes:
        operator: of the training loss.
        solution: its eigenpairs.
        scale: s, factor from the operator to the negative log-likelihood.
        prior_precision: tau.
        evidence: log marginal likelihood, for choosing prior and noise.

    >>> import curvscope as cs
    >>> model, data = torch.nn.Linear(2, 1), [(torch.randn(6, 2), torch.randn(6, 1))]
    >>> posterior = cs.laplace(cs.ggn(model, torch.nn.MSELoss(), data), k=3)
    >>> posterior.samples(5).shape, posterior.precision.shape
    (torch.Size([3, 5]), (3, 3))
    """

    _instead: ClassVar[Mapping[str, str]] = {
        "log_marginal_likelihood": "posterior.evidence.value",
        "marglik": "posterior.evidence.value",
        "log_likelihood": "posterior.evidence.log_likelihood",
        "predict": "model(x) and posterior.variance(x)",
        "functional_variance": "posterior.variance(x).covariance",
        "sample": "posterior.samples(n)",
        "posterior_precision": "posterior.precision",
        "posterior_covariance": "posterior.precision.inverse()",
        "fit": "nothing here: cs.laplace(G, solution) is fitted",
    }

    operator: CurvatureOperator
    solution: Solution
    scale: float
    prior_precision: float
    evidence: Evidence

    @property
    def precision(self) -> LowRank:
        """Lambda, as an operator with inverse and roots."""
        found: LowRank = self._precision(0.0, 0.0)
        return found

    @checked
    def variance(self, inputs: Any) -> Variance:
        r"""Covariance of the outputs at inputs, J Lambda^-1 J^T, with limits for the truncation of Lambda.

        With E the residuals' share of the difference, ||E|| <= eps, and a rest with eigenvalues in [0, rho], the precision is
        between s V diag(lambda) V^T + (tau - s eps) I and s V diag(lambda) V^T + (tau + s eps) I + s rho (I - V V^T). For a
        matrix that may have negative eigenvalues, such as a Hessian, the rest is in [-rho, rho].

        Args:
            inputs: a batch of inputs, as the model takes it. The first axis of its first tensor counts the samples.

        Cost: a gradient of each output of each sample; memory: D x 64 numbers.

        Raises:
            InvalidArgument: the model's parameters are no longer those of the operator, no samples, or samples with different
                numbers of outputs.
        """
        count, objective = length(inputs), self.operator.objective
        if not count:
            raise InvalidArgument("inputs have no sample: pass at least one")
        rows = jacobian(objective.model, [inputs], params=list(objective.parameters.names), dtype=self.operator.dtype)
        if not torch.equal(objective.parameters.join(rows.function.values), self.operator.values()):
            raise InvalidArgument(
                "the model's parameters are not those of the operator any more: make the operator, the solution and the "
                "posterior again"
            )
        outputs = rows.shape[0] // count
        if count * outputs != rows.shape[0]:
            raise InvalidArgument(f"{rows.shape[0]} outputs for {count} samples: each needs the same number of outputs")
        spare, rest, is_proven = self._left_out()
        least = 0.0 if self.operator.semidefinite else -rest
        matrices = [self._precision(0.0, 0.0), self._precision(spare, rest), self._precision(-spare, least)]
        inverses = [None if one is None else one.inverted() for one in matrices]
        at_once = max(1, ROWS // max(1, outputs))
        found: list[list[Tensor]] = [[], [], []]
        for start in range(0, count, at_once):
            stop = min(count, start + at_once)
            gradients = self._gradients(rows, start * outputs, stop * outputs)
            for place, inverse in enumerate(inverses):
                if inverse is None:
                    found[place].append(
                        torch.full((stop - start, outputs, outputs), math.inf, dtype=torch.float64, device="cpu")
                    )
                    continue
                applied = (inverse @ gradients).double().T.reshape(stop - start, outputs, -1)
                found[place].append((applied @ gradients.double().T.reshape(stop - start, outputs, -1).mT).cpu())
        middle, low, high = (torch.cat(part) for part in found)
        limits = [part.diagonal(dim1=1, dim2=2) for part in (low, high)]
        return Variance((middle + middle.mT) / 2, limits[0], limits[1], is_proven)

    @checked
    def samples(self, count: int, *, seed: int = 0) -> Tensor:
        """Draw weights from the posterior, (D, count), in the operator's dtype. Cost: 4 D k operations each."""
        if count < 1:
            raise InvalidArgument(f"count={count}: draw at least 1")
        random = torch.Generator().manual_seed(seed)
        white = torch.randn(self.operator.shape[0], count, generator=random, dtype=torch.float64, device="cpu")
        white = white.to(self.operator.device, self.operator.dtype)
        moved: Tensor = self.operator.values()[:, None] + self.precision.inverse_square_root() @ white
        return moved

    def _precision(self, more: float, rest: float) -> Any:
        """Lambda with ``more`` in all directions and ``rest`` outside V, of the operator's scale; None: it is not positive."""
        outside = self.prior_precision + self.scale * more
        if outside <= 0 or outside + self.scale * rest <= 0:
            return None
        values = self.scale * self.solution.eigenvalues.clamp(min=0) + outside
        return LowRank(self.solution.eigenvectors, values, outside + self.scale * rest)

    def _left_out(self) -> tuple[float, float, bool]:
        """(norm of what residuals leave open, largest eigenvalue outside, whether these are proven)."""
        certificate, k = self.solution.certificate, self.solution.k
        is_whole = k == self.operator.shape[0]
        if certificate is not None:
            rest = 0.0 if is_whole else certificate.tail.bound + certificate.noise.floor
            return (float(certificate.rho[-1]) if k else 0.0), rest, True
        rest = 0.0 if is_whole else float(self.solution.eigenvalues.abs().min()) if k else math.inf
        return 2**0.5 * float(self.solution.residual_norms.norm()), rest, is_whole

    def _gradients(self, rows: Any, start: int, stop: int) -> Tensor:
        """Rows [start, stop) of the Jacobian, as columns."""
        units = torch.zeros(rows.shape[0], stop - start, dtype=rows.dtype, device=rows.device)
        units[start:stop].fill_diagonal_(1)
        found: Tensor = rows.H @ units
        return found

    def __str__(self) -> str:
        evidence = self.evidence
        rows = [
            f"Laplace approximation: {self.solution.k} pairs of D = {self.operator.shape[0]}, "
            f"prior precision {self.prior_precision:g}",
            f"log marginal likelihood: {evidence.value:.6g}"
            + (
                f", with the whole matrix in [{evidence.lower:.6g}, {evidence.upper:.6g}]" if evidence.lower > -math.inf else ""
            ),
        ]
        if evidence.lower == -math.inf:
            rows.append("what the truncation leaves out is not bounded: cs.certify(G, solution) bounds it")
        return "\n".join(rows)
