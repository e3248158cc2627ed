"""Overlap for every k without a single eigenvector: masked Lanczos quadrature, in memory O(D)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument, InvalidType
from curvscope.measurement import Recurrence, lanczos
from curvscope.operators import as_operator
from curvscope.operators.base import Operator
from curvscope.sketches import TestMatrix
from curvscope.solvers import Solution
from curvscope.subspaces._curve import OverlapCurve
from curvscope.subspaces._ranking import Mask, Ranking
from curvscope.subspaces._ritz import Ritz, ritz
from curvscope.system import Displayed, Hinted, Progress, as_bytes, as_numbers, as_text, checked, float32_products, stage

VECTORS_A_PROBE = 3
"""Lanczos vectors that the recurrence holds at a time."""
MOST_PROBES_AT_ONCE = 8
BISECTIONS = 50

Chosen = Ranking | Mask | Tensor


@dataclass(frozen=True, repr=False)
class OverlapEstimate(OverlapCurve):
    """An overlap curve estimated without eigenvectors; single values may lie a little outside of [0, 1].

    Attributes:
        stderr: (K,) float64, standard error over the probes, given the thresholds.
        coarse: (K,) float64, the same estimate from half of the steps; where the two differ by more than their standard
            errors the steps do not resolve the spectrum at the threshold, and more are needed.
        thresholds: (K,) float64, the magnitudes taken to lie between the k-th and the next eigenvalue.
        count: (K,) float64, estimated number of eigenvalues above each threshold; None where eigenvalues were given.
        count_stderr: (K,) float64, its standard error; likewise.
        products: vectors multiplied.
    """

    stderr: Tensor | None = None
    coarse: Tensor | None = None
    thresholds: Tensor | None = None
    count: Tensor | None = None
    count_stderr: Tensor | None = None
    products: int = 0

    def to_dict(self) -> dict[str, object]:
        """Plain numbers, for JSON."""
        own = {name: getattr(self, name) for name in ("stderr", "coarse", "thresholds", "count", "count_stderr")}
        return super().to_dict() | {name: x.tolist() for name, x in own.items() if x is not None} | {"products": self.products}


@dataclass(frozen=True, repr=False)
class QuadraturePlan(Displayed, Hinted):
    """Cost of :func:`overlap_without_vectors`.

    Attributes:
        products: vectors multiplied.
        block_size: probes at a time.
        vector_bytes: one vector of D parameters.
        lanczos_bytes: what the recurrence holds.
        product_bytes: what a product takes beside its block; 0 where the operator cannot tell.
        seconds: of all products, from a measured one; None where the operator cannot tell.
    """

    products: int
    block_size: int
    vector_bytes: int
    lanczos_bytes: int
    product_bytes: int
    seconds: float | None

    @property
    def vectors(self) -> float:
        """Memory in vectors of D parameters, beside the model and the operator's copy of its parameters."""
        return (self.lanczos_bytes + self.product_bytes) / self.vector_bytes

    def __str__(self) -> str:
        time = "" if self.seconds is None else f", about {self.seconds:.0f} s"
        return (
            f"{self.products} products, {self.block_size} at a time{time}; "
            f"{as_text(self.lanczos_bytes + self.product_bytes)} beside the model ({self.vectors:.1f} parameter vectors)"
        )


@checked
def overlap_without_vectors(  # noqa: PLR0913 -- a public function: request and resources, by keyword
    operator: Any,
    chosen: Chosen,
    k: int,
    *,
    eigenvalues: Solution | Tensor | Sequence[float] | None = None,
    num_probes: int = 10,
    num_steps: int = 100,
    block_size: int | None = None,
    memory: int | str | None = None,
    reorthogonalize: bool = False,
    seed: int = 0,
    progress: Progress = None,
) -> OverlapEstimate:
    r"""Estimate the overlap of the top-k eigenspace with a mask, for k = 1, ..., K at once, from matrix products alone.

    With a random sign z_i for each of the K parameters that rank first, and 1[...] the projector onto the eigenvalues of
    magnitude at least :math:`\tau_k`, the k-th in magnitude being the last of them,

    .. math:: k\, o(k) = \operatorname{tr} \Phi_k\, 1[|H| \ge \tau_k]
        = \operatorname E \; z^\top \Phi_k\, 1[|H| \ge \tau_k]\, \Phi_K z .

    The vector on the right is what Lanczos gives from the start :math:`\Phi_K z`; only its entries on the K parameters are
    read, so one run serves every mask and every threshold. For a :class:`.Mask`, Phi is the same for every k.

    Args:
        operator: real symmetric; anything that ``as_operator`` takes.
        chosen: a :class:`.Ranking`; or the places of its K first parameters in that order, (K,) int64 (for networks where
            sorting all takes too much memory: :func:`.masks.largest`); or a :class:`.Mask`.
        k: K, the largest k.
        eigenvalues: known ones, at least the K + 1 of largest magnitude, as from a solution: thresholds are put between them.
            Default: from the spectral density, by the same number of probes and steps again.
        num_probes: n, at least 2.
        num_steps: m, of Lanczos.
        block_size: probes in one block of products; default up to 8, fewer where ``memory`` asks for it.
        memory: bound for Lanczos vectors and products, "8GiB" or bytes.
        reorthogonalize: keep all Lanczos vectors and orthogonalise against them, for small D.
        seed: of the signs; probe i is the same for any block size.
        progress: see :data:`.progress.Progress`.

    Returns:
        The estimate with its standard error, and that of half the steps.

    Cost: n m products, 2 n m without ``eigenvalues``; memory: 3 vectors a probe in the block, what a product takes, and K m
        numbers: O(D), whatever K is. See :func:`plan_without_vectors`.

    Raises:
        InvalidArgument: sizes that cannot work, too few eigenvalues, another D. InvalidType: something that ranks nothing.
    Limits: the relative standard error is at most :math:`\sqrt{2 / (k\, o\, n)}`: with few parameters and little overlap
        nothing can be told (k o n is then near or below 1). m steps resolve magnitudes to about ||H|| / m: inside the bulk
        the projector is blurred, compare ``coarse``. A k that cuts eigenvalues of equal magnitude has no eigenspace of its
        own, and gets any part of theirs. Thresholds from the density err by the standard error of the count.
    Source: design of this library after Ubaru, Chen, Saad (2017) and Golub, Meurant (2010); every k at once is ours.

    >>> H = torch.diag(torch.tensor([9.0, -8.0, 7.0, 0.1, 0.05, 0.01]))
    >>> estimate = overlap_without_vectors(H, torch.tensor([0, 3, 2]), 3, eigenvalues=H.diagonal(), num_steps=6)
    >>> [round(float(value), 4) for value in estimate.value]
    [1.0, 0.5, 0.6667]
    """
    operator = as_operator(operator).view()
    _check(operator, k, num_probes, num_steps)
    index, name = _places(chosen, operator, k)
    size = operator.shape[0]
    width = _width(operator, num_probes, block_size, memory)
    known = None if eigenvalues is None else _between(eigenvalues, k, size)
    total = num_probes * (1 if known is not None else 2)
    products = 0
    with stage("Lanczos quadrature", total * num_steps, progress) as advance, float32_products():

        def multiply(block: Tensor) -> Tensor:
            """A product, counted."""
            nonlocal products
            product: Tensor = operator @ block
            products += block.shape[1]
            advance(block.shape[1])
            return product

        def runs(role: str, places: Tensor | None, rows: Tensor | None) -> list[tuple[Tensor, Recurrence]]:
            """The signs and the recurrence of every probe."""
            found = []
            for start in range(0, num_probes, width):
                stop = min(start + width, num_probes)
                signs, block = _starts(operator, places, role, seed, start, stop)
                made = lanczos(multiply, block, num_steps, rows=rows, reorthogonalize=reorthogonalize)
                found += list(zip(signs, made, strict=True))
                del block
            return found

        masked = runs("masked probes", index, None if isinstance(chosen, Mask) else index.to(operator.device))
        counts = None if known is not None else [ritz(made) for _, made in runs("density probes", None, None)]
    thresholds = known if counts is None else _from_density(counts, k)
    assert thresholds is not None, "either is there"
    fine = torch.stack([_captured(signs, ritz(made), thresholds) for signs, made in masked])
    coarse = torch.stack([_captured(signs, ritz(made, max(1, num_steps // 2)), thresholds) for signs, made in masked])
    ks = torch.arange(1, k + 1, device="cpu")
    above = (
        None
        if counts is None
        else torch.stack([_captured(torch.empty(0, device="cpu"), found, thresholds) for found in counts])
    )
    return OverlapEstimate(
        ks,
        fine.mean(0) / ks,
        size,
        name,
        dimension=torch.full((k,), chosen.count, device="cpu") if isinstance(chosen, Mask) else None,
        stderr=_stderr(fine) / ks,
        coarse=coarse.mean(0) / ks,
        thresholds=thresholds,
        count=None if above is None else above.mean(0),
        count_stderr=None if above is None else _stderr(above),
        products=products,
    )


def plan_without_vectors(
    operator: Any,
    *,
    known_eigenvalues: bool = False,
    num_probes: int = 10,
    num_steps: int = 100,
    block_size: int | None = None,
    memory: int | str | None = None,
) -> QuadraturePlan:
    """Products, memory and time of :func:`overlap_without_vectors` with the same options, before it is begun.

    Cost: for curvature operators, a few products on one mini-batch.

    >>> plan_without_vectors(torch.eye(4), num_probes=3, num_steps=2).products
    12
    """
    operator = as_operator(operator).view()
    _check(operator, 1, num_probes, num_steps)
    width = _width(operator, num_probes, block_size, memory)
    products = num_probes * num_steps * (1 if known_eigenvalues else 2)
    vector = operator.shape[0] * operator.dtype.itemsize
    each = operator.cost_curve((width,)).get(width)
    seconds = None if each is None else each * products
    taken = operator.predicted_bytes(width)
    return QuadraturePlan(products, width, vector, VECTORS_A_PROBE * width * vector, taken, seconds)


def _check(operator: Operator, k: int, num_probes: int, num_steps: int) -> None:
    if not operator.hermitian or operator.dtype.is_complex:
        raise InvalidArgument("overlap_without_vectors needs a real symmetric operator")
    if not 1 <= k <= operator.shape[0]:
        raise InvalidArgument(f"k={k}: choose 1 to D = {operator.shape[0]}")
    if num_probes < 2:
        raise InvalidArgument(f"num_probes={num_probes}: choose at least 2, there is no standard error otherwise")
    if num_steps < 1:
        raise InvalidArgument(f"num_steps={num_steps}: choose at least 1")


def _places(chosen: Chosen, operator: Operator, k: int) -> tuple[Tensor, str]:
    """Return which parameters get a sign, in the order in which they enter the mask; and what ranks them."""
    size = operator.shape[0]
    match chosen:
        case Ranking():
            index, own, name = chosen.order[:k], chosen.size, chosen.name
        case Mask():
            index, own, name = chosen.index, chosen.size, chosen.name
        case Tensor() if chosen.ndim == 1 and not chosen.is_floating_point() and chosen.dtype != torch.bool:
            index, own, name = chosen[:k].long().cpu(), size, "given places"
            if len(index) and (int(index.min()) < 0 or int(index.max()) >= size or len(index.unique()) < len(index)):
                raise InvalidArgument(f"the places must be different ones from 0 to {size - 1}")
        case _:
            raise InvalidType(f"cannot rank parameters by a {type(chosen).__name__}: pass a Ranking, a Mask or integer places")
    if own != size:
        raise InvalidArgument(f"the ranking has {own} parameters, the operator {size}: use the same params filter")
    if not len(index) or (len(index) < k and not isinstance(chosen, Mask)):
        raise InvalidArgument(f"{len(index)} places are too few for k={k}: pass the k first parameters")
    return index, name


def _width(operator: Operator, num_probes: int, block_size: int | None, memory: int | str | None) -> int:
    """Probes at a time."""
    if block_size is not None:
        if block_size < 1:
            raise InvalidArgument(f"block_size={block_size}: choose at least 1, or None")
        return min(block_size, num_probes)
    width = min(MOST_PROBES_AT_ONCE, num_probes)
    if memory is None:
        return width
    bound, vector = as_bytes(memory), operator.shape[0] * operator.dtype.itemsize
    while width > 1 and VECTORS_A_PROBE * width * vector + _product_bytes(operator, width) > bound:
        width -= 1
    if (needed := VECTORS_A_PROBE * width * vector + _product_bytes(operator, width)) > bound:
        raise InvalidArgument(f"memory={as_text(bound)} is too little: one probe takes {as_text(needed)} beside the model")
    return width


def _product_bytes(operator: Operator, width: int) -> int:
    return operator.predicted_bytes(width)


def _starts(
    operator: Operator, places: Tensor | None, role: str, seed: int, start: int, stop: int
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Signs of each probe on the places, and the block of vectors; without places, on all parameters (and signs not kept)."""
    if places is None:
        drawn = TestMatrix("rademacher", operator.shape[0], seed=seed, role=role, dtype=operator.dtype, device=operator.device)
        return (torch.empty(0, device="cpu"),) * (stop - start), drawn.columns(start, stop)
    signs = TestMatrix("rademacher", len(places), seed=seed, role=role, dtype=torch.float64).columns(start, stop)
    block = torch.zeros(operator.shape[0], stop - start, dtype=operator.dtype, device=operator.device)
    block[places.to(operator.device)] = signs.to(block)
    return signs.unbind(1), block


def _captured(signs: Tensor, ritz: Ritz, thresholds: Tensor) -> Tensor:
    """(K,) float64: what one probe says of tr(Phi_k 1[|H| >= tau_k]); without rows, of the whole quadratic form."""
    share = ritz.share_above(thresholds)
    if len(ritz.rows):
        growing = (signs[:, None] * ritz.rows).cumsum(0)
        return (growing * share.T).sum(1)
    return ritz.weights @ share


def _between(eigenvalues: Solution | Tensor | Sequence[float], k: int, size: int) -> Tensor:
    """Thresholds half-way, in logarithms, between known eigenvalues."""
    given = eigenvalues.eigenvalues if isinstance(eigenvalues, Solution) else as_numbers("eigenvalues", eigenvalues)
    magnitudes = given.detach().double().cpu().abs().sort(descending=True).values
    if len(magnitudes) < min(k + 1, size):
        raise InvalidArgument(
            f"{len(magnitudes)} eigenvalues give thresholds up to k={len(magnitudes) - 1}, asked for is k={k}"
        )
    following = torch.cat([magnitudes[1 : k + 1], torch.zeros(1, dtype=torch.float64, device="cpu")])[:k]
    return _middle(magnitudes[:k], following)


def _from_density(counts: list[Ritz], k: int) -> Tensor:
    """Thresholds between the magnitudes at which the estimated number of eigenvalues above passes 1/2, 3/2, ..., k + 1/2."""
    wanted = torch.arange(1, k + 2, dtype=torch.float64, device="cpu") - 0.5
    low = torch.zeros(k + 1, dtype=torch.float64, device="cpu")
    high = torch.full_like(low, max(float((ritz.values.abs() + ritz.residuals).max()) for ritz in counts))
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        above = torch.stack([found.weights @ found.share_above(middle) for found in counts]).mean(0) >= wanted
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return _middle(low[:-1], low[1:])


def _middle(upper: Tensor, lower: Tensor) -> Tensor:
    """Half-way in logarithms; at least a tenth of the upper one, above the rounding of zeros."""
    return (upper * torch.maximum(lower, 0.01 * upper)).sqrt()


def _stderr(samples: Tensor) -> Tensor:
    root: float = len(samples) ** 0.5
    return samples.std(0) / root
