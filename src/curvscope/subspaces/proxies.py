"""Cheaper stand-ins for the overlap of a mask with the top eigenspace: sub-traces, and sharpness along single parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.operators import Operator, as_operator
from curvscope.operators.objective import loss_differences
from curvscope.sketches import TestMatrix
from curvscope.store import Saved
from curvscope.subspaces._ranking import Ranking
from curvscope.system import Displayed, Hinted, Numbers, Progress, checked, float32_products, frame, stage

__all__ = ["ProxyCurve", "diagonal", "diagonals", "sam", "sam_deltas", "share", "sub_trace"]

DeltaMethod = Literal["exact", "taylor", "first_order"]
"""How :func:`sam_deltas` computes the change of the loss."""


@dataclass(frozen=True, repr=False)
class ProxyCurve(Saved, Numbers, Displayed, Hinted):
    """Share of a non-negative total that falls on the k first parameters of a ranking, k = 1, ..., D.

    Attributes:
        k: (D,) int64.
        value: (D,) float64; 1 at k = D.
        name: which proxy.
        stderr: (D,) float64, standard error of an estimate; None when exact.

    >>> curve = ProxyCurve(torch.tensor([1, 2]), torch.tensor([0.8, 1.0]), "example")
    >>> round(curve.at(1), 6), curve.chance.tolist()
    (0.8, [0.5, 1.0])
    """

    k: Tensor
    value: Tensor
    name: str
    stderr: Tensor | None = None

    @property
    def chance(self) -> Tensor:
        """k/D: the mean for a uniformly random ranking."""
        return self.k.double() / len(self.k)

    @property
    def ratio(self) -> Tensor:
        """The value over chance level."""
        return self.value / self.chance

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        plain = {"name": self.name, "k": self.k.tolist(), "value": self.value.tolist(), "chance": self.chance.tolist()}
        return plain if self.stderr is None else plain | {"stderr": self.stderr.tolist()}

    def to_pandas(self) -> Any:
        """A data frame with a row for each k: value, chance and, where it is an estimate, stderr; needs pandas."""
        return frame({name: numbers for name, numbers in self.to_dict().items() if name != "name"})

    def __str__(self) -> str:
        last = len(self.k)
        shown = [*[k for k in (1, 10, 100, 1000, 10_000, 100_000, 1_000_000) if k < last], last]
        rows = [f"Share of {self.name} on the k first parameters, D = {last}", "", f"{'k':>9}  {'value':>9}  {'chance':>9}"]
        return "\n".join([*rows, *(f"{k:>9}  {self.at(k):>9.4g}  {k / last:>9.3g}" for k in shown)])

    @checked
    def at(self, k: int) -> float:
        """The share for one k."""
        if not 1 <= k <= len(self.k):
            raise InvalidArgument(f"k={k}: the curve goes from 1 to {len(self.k)}")
        return float(self.value[k - 1])


@checked
def sub_trace(
    operator: Any,
    ranking: Ranking,
    *,
    power: int = 1,
    num_probes: int | None = None,
    seed: int = 0,
    block_size: int = 64,
    progress: Progress = None,
) -> ProxyCurve:
    r"""Share of the trace of A, or of A^2, on the k first parameters of a ranking, for every k.

    .. math:: \xi_k = \sum_{i \in \mathrm{mask}_k} [A^p]_{ii} \Big/ \operatorname{tr} A^p

    With the GGN and p = 1, or the Hessian and p = 2 (:math:`[H^2]_{ii} = \|H e_i\|^2`), the paper's proxies. Without
    ``num_probes`` exactly, from all columns; with it from products with Rademacher vectors z: the means of z_i (Az)_i, or of
    (Az)_i^2, are unbiased for the diagonals.

    Args:
        operator: Hermitian; anything that :func:`curvscope.as_operator` takes. For p = 1 positive semidefinite, otherwise
            shares need not lie in [0, 1].
        ranking: of its D parameters.
        power: p, 1 or 2.
        num_probes: None, or q >= 2.
        seed: of the probes.
        block_size: columns multiplied at a time.
        progress: see :data:`.progress.Progress`.

    Cost: D products, or q of them; memory: a block and some vectors.

    Raises:
        InvalidArgument: another D than the ranking's, a trace that is not positive.
    Source: Fernandez et al., TMLR 2025, appendix A.2; estimators: Bekas, Kokiopoulou, Saad (2007).

    >>> A = torch.diag(torch.tensor([3.0, 1.0]))
    >>> sub_trace(A, Ranking(torch.tensor([1, 0]), "example")).value.tolist()
    [0.25, 1.0]
    >>> sub_trace(A, Ranking(torch.tensor([1, 0]), "example"), power=2, num_probes=4).value.tolist()
    [0.1, 1.0]
    """
    operator = as_operator(operator)
    size = operator.shape[0]
    if ranking.size != size:
        raise InvalidArgument(f"the ranking has {ranking.size} parameters, the operator {size}: use the same params filter")
    if power not in (1, 2):
        raise InvalidArgument(f"power={power}: choose 1 for A or 2 for A^2")
    name = "sub-trace" if power == 1 else "sub-trace of the square"
    if num_probes is None:
        return share(diagonals(operator, block_size=block_size, progress=progress)[power - 1], ranking, name)
    if num_probes < 2:
        raise InvalidArgument(f"num_probes={num_probes}: choose at least 2, for a standard error")
    probes = TestMatrix("rademacher", size, seed=seed, role="sub-trace", dtype=operator.dtype, device=operator.device)

    def samples() -> Iterator[Tensor]:
        """One sample of the diagonal a probe."""
        with stage("probes", num_probes, progress) as advance, float32_products():
            for start in range(0, num_probes, block_size):
                block = probes.columns(start, min(start + block_size, num_probes))
                product = operator @ block
                yield from (product * block if power == 1 else product.square()).double().cpu().unbind(1)
                advance(block.shape[1])

    return _ratio_curve(samples(), num_probes, ranking, name)


@checked
def share(values: Tensor, ranking: Ranking, name: str) -> ProxyCurve:
    """The curve of any non-negative quantity by parameter, (D,): its sum over the k first over its sum over all.

    >>> share(torch.tensor([1.0, 3.0]), Ranking(torch.tensor([1, 0]), "example"), "example").value.tolist()
    [0.75, 1.0]
    """
    if values.shape != (ranking.size,):
        raise InvalidArgument(f"the values have shape {tuple(values.shape)}, the ranking {ranking.size} parameters")
    growing = values.detach().double().cpu()[ranking.order].cumsum(0)
    _check_total(float(growing[-1]), name)
    return ProxyCurve(torch.arange(1, ranking.size + 1, device="cpu"), growing / growing[-1], name)


@checked
def diagonals(operator: Any, *, block_size: int = 64, progress: Progress = None) -> tuple[Tensor, Tensor]:
    """Both diagonals at once, exactly: A_ii and [A^2]_ii = ||A e_i||^2 of a Hermitian A, (D,) float64 each.

    Cost: D products; memory: a block.

    >>> [d.tolist() for d in diagonals(torch.tensor([[1.0, 2.0], [2.0, 0.0]]))]
    [[1.0, 0.0], [5.0, 4.0]]
    """
    operator = as_operator(operator)
    size = operator.shape[0]
    own, squared = torch.empty(size, dtype=torch.float64, device="cpu"), torch.empty(size, dtype=torch.float64, device="cpu")
    with stage("columns", size, progress) as advance, float32_products():
        for start in range(0, size, block_size):
            stop = min(start + block_size, size)
            units = torch.zeros(size, stop - start, dtype=operator.dtype, device=operator.device)
            column = torch.arange(stop - start, device=operator.device)
            units[start + column, column] = 1
            product = (operator @ units).double()
            own[start:stop] = product[start + column, column].cpu()
            squared[start:stop] = product.square().sum(dim=0).cpu()
            advance(stop - start)
    return own, squared


@checked
def diagonal(operator: Any, *, block_size: int = 64, progress: Progress = None) -> Tensor:
    """The diagonal of A exactly, (D,) float64; see :func:`diagonals`.

    >>> diagonal(torch.tensor([[1.0, 2.0], [2.0, 0.0]])).tolist()
    [1.0, 0.0]
    """
    return diagonals(operator, block_size=block_size, progress=progress)[0]


@checked
def sam_deltas(
    operator: Operator,
    scale: float,
    *,
    method: DeltaMethod = "exact",
    normalize: bool = True,
    diagonal: Tensor | None = None,
    progress: Progress = None,
) -> Tensor:
    r"""Return the change of the loss when each parameter alone takes its share of the sharpness-aware step; (D,) float64.

    .. math:: \Delta_i = |L(\theta + \lambda\, \epsilon_i e_i) - L(\theta)|, \qquad \epsilon = g / \|g\|_2

    Args:
        operator: a Hessian (or another curvature operator) of the loss.
        scale: lambda.
        method: "exact": the loss is evaluated in float64 for each parameter; "taylor": g_i s + H_ii s^2 / 2 with the step
            s = lambda eps_i; "first_order": lambda g_i^2 / ||g||, the limit for small lambda.
        normalize: False for eps = g, which is what the paper's code computed.
        diagonal: (D,) of the Hessian, exact or estimated, for "taylor" and for the smallest steps of "exact"; default: exact
            for "taylor", left out for "exact" (steps below 1e-5 are then right to first order).
        progress: see :data:`.progress.Progress`.

    Cost: "exact": D evaluations of the loss; "taylor": one gradient (and D products without ``diagonal``); "first_order": one
    gradient.

    Raises:
        InvalidArgument: an unknown method, a scale that is not positive, a zero gradient.
    Limits: in float32 these deltas are mostly rounding (a loss of 1158 has a spacing of 1.2e-4; the paper's step-0 curves are
        such noise): they are computed in float64 here, see :func:`.differences.loss_differences`.
    Source: Fernandez et al., TMLR 2025, appendix A.2; Foret et al. (ICLR 2021).

    >>> import curvscope as cs
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> H = cs.hessian(model, torch.nn.MSELoss(), [(torch.eye(2), torch.ones(2, 1))])
    >>> bool((sam_deltas(H, 1e-3) - sam_deltas(H, 1e-3, method="first_order")).abs().max() < 1e-5)
    True
    """
    if method not in get_args(DeltaMethod):
        raise InvalidArgument(f"method={method!r}: choose one of {', '.join(get_args(DeltaMethod))}")
    slopes, steps = _sam_steps(operator, scale, normalize)
    if method == "first_order":
        return (slopes * steps).abs()
    if method == "taylor":
        curvature = diagonals(operator, progress=progress)[0] if diagonal is None else diagonal.double().cpu()
        return (slopes * steps + 0.5 * curvature * steps.square()).abs()
    assert operator.objective is not None, "_sam_steps() refuses others"
    return loss_differences(operator.objective, steps, diagonal=diagonal, progress=progress).abs()


@checked
def sam(  # noqa: PLR0913 -- a public function: request and resources, by keyword
    operator: Operator,
    ranking: Ranking,
    scale: float,
    *,
    method: DeltaMethod | Literal["sampled"] = "exact",
    normalize: bool = True,
    diagonal: Tensor | None = None,
    num_samples: int = 1000,
    seed: int = 0,
    progress: Progress = None,
) -> ProxyCurve:
    r"""Share of the sharpness-aware deltas on the k first parameters of a ranking, for every k.

    .. math:: \zeta_k = \sum_{i \in \mathrm{mask}_k} \Delta_i \Big/ \sum_i \Delta_i

    Args:
        operator: as for :func:`sam_deltas`.
        ranking: of its parameters.
        scale: lambda.
        method: as for :func:`sam_deltas`, or "sampled": ``num_samples`` parameters are drawn with probability proportional to
            g_i^2 and only their deltas are evaluated; with standard errors.
        normalize: as for :func:`sam_deltas`.
        diagonal: as for :func:`sam_deltas`.
        num_samples: for "sampled".
        seed: for "sampled".
        progress: see :data:`.progress.Progress`.

    Cost: that of :func:`sam_deltas`; "sampled": at most ``num_samples`` evaluations of the loss.

    >>> import curvscope as cs
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> H = cs.hessian(model, torch.nn.MSELoss(), [(torch.eye(2), torch.ones(2, 1))])
    >>> sam(H, cs.masks.by_magnitude(model), 1e-2).at(2)    # both parameters hold all of it
    1.0
    """
    name = f"SAM, lambda = {scale:g}"
    if ranking.size != operator.shape[0]:
        raise InvalidArgument(
            f"the ranking has {ranking.size} parameters, the operator {operator.shape[0]}: use the same params filter"
        )
    if method != "sampled":
        deltas = sam_deltas(operator, scale, method=method, normalize=normalize, diagonal=diagonal, progress=progress)
        return share(deltas, ranking, name)
    if num_samples < 2:
        raise InvalidArgument(f"num_samples={num_samples}: choose at least 2, for a standard error")
    slopes, steps = _sam_steps(operator, scale, normalize)
    weights = slopes.square()
    drawn = torch.multinomial(weights, num_samples, replacement=True, generator=torch.Generator().manual_seed(seed))
    places, which = drawn.unique(return_inverse=True)
    assert operator.objective is not None, "_sam_steps() refuses others"
    found = loss_differences(operator.objective, steps[places], places=places, progress=progress).abs()
    heights = (found / weights[places])[which]
    return _sampled_curve(drawn, heights, ranking, name)


def _sam_steps(operator: Operator, scale: float, normalize: bool) -> tuple[Tensor, Tensor]:
    """The gradient, and the step that each parameter takes; float64."""
    if (objective := getattr(operator, "objective", None)) is None:
        raise InvalidArgument("the loss is needed: pass a curvature operator, such as curvscope.hessian(model, loss, data)")
    if not (scale > 0 and math.isfinite(scale)):
        raise InvalidArgument(f"scale={scale}: choose a positive lambda")
    objective = objective.like(objective.data, dtype=torch.float64)
    slopes = objective.gradient().cpu()
    norm = float(slopes.norm())
    if norm == 0:
        raise InvalidArgument("the gradient is zero: there is no sharpness-aware step")
    return slopes, scale * slopes / (norm if normalize else 1.0)


def _ratio_curve(samples: Iterator[Tensor], count: int, ranking: Ranking, name: str) -> ProxyCurve:
    """Ratio of means over probes, with its standard error to first order (delta method); three vectors are kept."""
    size = ranking.size
    first, second, mixed = (torch.zeros(size, dtype=torch.float64, device="cpu") for _ in range(3))
    total = total_square = 0.0
    for seen in samples:
        growing = seen[ranking.order].cumsum(0)
        last = float(growing[-1])
        first += growing
        second += growing.square()
        mixed += last * growing
        total, total_square = total + last, total_square + last**2
    _check_total(total, name)
    share = first / total
    scatter = (second - 2 * share * mixed + share.square() * total_square).clamp(min=0)
    stderr = (scatter / (count * (count - 1))).sqrt() / (total / count)
    return ProxyCurve(torch.arange(1, size + 1, device="cpu"), share, name, stderr)


def _sampled_curve(drawn: Tensor, heights: Tensor, ranking: Ranking, name: str) -> ProxyCurve:
    """As :func:`_ratio_curve` for samples of one parameter each."""
    count, size = len(drawn), ranking.size
    places = ranking.places[drawn]
    first = torch.zeros(size, dtype=torch.float64, device="cpu").index_add_(0, places, heights).cumsum(0)
    second = torch.zeros(size, dtype=torch.float64, device="cpu").index_add_(0, places, heights.square()).cumsum(0)
    _check_total(float(first[-1]), name)
    share = first / first[-1]
    scatter = second * (1 - 2 * share) + share.square() * second[-1]
    stderr = (scatter.clamp(min=0) / (count * (count - 1))).sqrt() / (first[-1] / count)
    return ProxyCurve(torch.arange(1, size + 1, device="cpu"), share, name, stderr)


def _check_total(total: float, name: str) -> None:
    if not total > 0:
        raise InvalidArgument(f"{name}: the total is {total:.3g}, shares need a positive one (a positive semidefinite matrix)")
