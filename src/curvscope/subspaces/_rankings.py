"""Rankings of parameters: by magnitude, at random, from gradients and curvature, the best there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import overload

import torch
from torch import Tensor, nn

from curvscope.errors import InvalidArgument, InvalidType, NotFinite
from curvscope.operators import ParameterFilter, select
from curvscope.subspaces._leverage import leverage
from curvscope.subspaces._ranking import Mask, Ranking
from curvscope.subspaces._spaces import Basis
from curvscope.subspaces._weights import Layers, Weights, check_params, flat, layer_index, layout
from curvscope.system import as_numbers, checked


@overload
def by_magnitude(weights: Weights, *, params: ParameterFilter = None) -> Ranking: ...


@overload
def by_magnitude(weights: Weights, k: int, *, params: ParameterFilter = None) -> Mask: ...


@overload
def by_magnitude(weights: Weights, *, fraction: float, params: ParameterFilter = None) -> Mask: ...


@checked
def by_magnitude(
    weights: Weights, k: int | None = None, *, fraction: float | None = None, params: ParameterFilter = None
) -> Ranking | Mask:
    """Parameters by descending absolute value: a ranking, or with ``k`` or ``fraction`` the mask of the largest.

    Args:
        weights: a model (its trainable parameters, in the order of its curvature operators), tensors by name in that order,
            or the flat (D,) vector. Names are kept: :func:`.overlap.overlap` compares them with the solution's.
        k: size of the mask; None: the ranking, which holds a mask for every k.
        fraction: of the parameters in the mask, in (0, 1]; instead of k.
        params: for a model, the same filter as the operator's.

    Raises:
        NotFinite: a parameter is NaN or infinite. InvalidArgument: k and fraction, or out of range.

    Cost: one sort of D numbers; no products.

    >>> by_magnitude(torch.tensor([0.1, -3.0, 2.0])).order.tolist()
    [1, 2, 0]
    """
    return _first(_named(_ranked(flat(weights, params).abs(), "magnitude", "parameters"), weights, params), k, fraction)


@checked
def largest(weights: Weights, k: int, *, params: ParameterFilter = None) -> Tensor:
    """(k,) int64: places of the k largest |parameters|, in descending order, without sorting all of them.

    For :func:`.without_vectors.overlap_without_vectors` on networks where a permutation of all parameters takes too much
    memory: tensor by tensor, the k largest of each are candidates. Ties keep no particular order.

    Args:
        weights: a model (its trainable parameters), tensors by name, or the flat (D,) vector.
        k: how many.
        params: for a model, the same filter as the operator's.

    Cost: memory of the largest tensor, and k numbers a tensor.

    >>> largest({"a": torch.tensor([0.1, -3.0]), "b": torch.tensor([2.0])}, 2).tolist()
    [1, 2]
    """
    check_params(weights, params)
    tensors = (
        {"": weights} if isinstance(weights, Tensor) else select(weights, params) if isinstance(weights, nn.Module) else weights
    )
    total = sum(tensor.numel() for tensor in tensors.values())
    if not 1 <= k <= total:
        raise InvalidArgument(f"k={k}: choose 1 to D = {total}")
    sizes, places, start = [], [], 0
    for tensor in tensors.values():
        magnitudes = tensor.detach().reshape(-1).abs()
        found = magnitudes.topk(min(k, len(magnitudes)))
        if not bool(torch.isfinite(found.values).all()):
            raise NotFinite("the parameters hold NaN or infinity: load a checkpoint from before training diverged")
        sizes.append(found.values.cpu())
        places.append(found.indices.cpu() + start)
        start += len(magnitudes)
    return torch.cat(places)[torch.cat(sizes).topk(k).indices]


@checked
def layerwise_magnitude(weights: nn.Module | Mapping[str, Tensor], *, params: ParameterFilter = None) -> Ranking:
    """Parameters by descending absolute value within their own tensor, the tensors interleaved in proportion to their sizes.

    So the k first take (to rounding) the same share k/D of every tensor: magnitude without the layers' scales.

    Args:
        weights: a model, or tensors by name.
        params: for a model, the same filter as the operator's.

    Raises:
        NotFinite: a parameter is NaN or infinite. InvalidType: a flat vector, which has no layers.

    >>> layerwise_magnitude({"a": torch.tensor([9.0, 8.0]), "b": torch.tensor([0.1, 0.2])}).order.tolist()
    [0, 3, 1, 2]
    """
    if isinstance(weights, Tensor):
        raise InvalidType("a flat vector has no layers: pass the model, or its tensors by name")
    magnitudes, layers = flat(weights, params).abs(), layout(weights, params=params)
    shares = torch.empty(layers.size, dtype=torch.float64, device="cpu")
    for place in layers.slices.values():
        length = place.stop - place.start
        order = _ranked(magnitudes[place], "magnitude", "parameters").order
        shares[place][order] = (torch.arange(length, dtype=torch.float64, device="cpu") + 0.5) / length
    return Ranking(shares.argsort(stable=True), "layerwise magnitude", layers)


@overload
def random(size: int | Layers, *, seed: int = 0, params: ParameterFilter = None) -> Ranking: ...


@overload
def random(size: int | Layers, k: int, *, seed: int = 0, params: ParameterFilter = None) -> Mask: ...


@overload
def random(size: int | Layers, *, fraction: float, seed: int = 0, params: ParameterFilter = None) -> Mask: ...


@checked
def random(
    size: int | Layers, k: int | None = None, *, fraction: float | None = None, seed: int = 0, params: ParameterFilter = None
) -> Ranking | Mask:
    """A uniformly random permutation of the parameters, or with ``k`` or ``fraction`` a random mask; by the seed.

    Args:
        size: D, or whose parameters they are: a model, tensors by name, or an operator's ``parameters``.
        k: size of the mask; None: the ranking, which holds a mask for every k.
        fraction: of the parameters in the mask, in (0, 1]; instead of k.
        seed: of the permutation.
        params: for a model, the same filter as the operator's.

    >>> sorted(random(4, seed=1).order.tolist())
    [0, 1, 2, 3]
    """
    if not isinstance(size, int):
        size = layout(size, params=params).size
    else:
        check_params(size, params)
    if size < 1:
        raise InvalidArgument(f"size={size}: choose at least 1 parameter")
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed), device="cpu")
    return _first(Ranking(order, "random"), k, fraction)


@checked
def random_like(ranking: Ranking, layers: Layers, *, seed: int = 0, params: ParameterFilter = None) -> Ranking:
    """A random ranking whose k first take, for every k, as many parameters from each tensor as those of ``ranking``.

    What remains of an effect against this null model is not explained by which layers the mask prefers.

    Args:
        ranking: whose layer counts are copied.
        layers: the tensors' sizes: a model, tensors by name, or an operator's ``parameters``.
        seed: of the permutations within the tensors.
        params: for a model, the same filter as the operator's.

    >>> ranking = Ranking(torch.tensor([3, 0, 2, 1]), "example")
    >>> like = random_like(ranking, {"a": torch.zeros(2), "b": torch.zeros(2)})
    >>> (like.order // 2).tolist()
    [1, 0, 1, 0]
    """
    owner = layer_index(layout(layers, params=params), ranking.size)
    generator = torch.Generator().manual_seed(seed)
    sequence, order = owner[ranking.order], torch.empty_like(ranking.order)
    for layer in owner.unique():
        members = (owner == layer).nonzero().flatten()
        order[sequence == layer] = members[torch.randperm(len(members), generator=generator, device="cpu")]
    return Ranking(order, f"random, layers as in {ranking.name}")


@checked
def best(basis: Basis, k: int | None = None) -> Ranking:
    """Parameters by their leverage in the top-k eigenspace: the k' first are the mask of that size with the largest overlap.

    Args:
        basis: a solution, or orthonormal columns (D, K).
        k: how many of its columns; default all. The best mask differs from k to k: see :func:`.overlap.best_overlap`.

    Cost: one read of the columns; one sort.

    >>> best(torch.eye(3)[:, [2, 0]], 1).order.tolist()
    [2, 0, 1]
    """
    return _ranked(leverage(basis, k), "leverage", "leverage scores")


@checked
def by_gradient(gradient: Weights) -> Ranking:
    """Parameters by descending absolute value of the gradient.

    >>> by_gradient(torch.tensor([0.1, -3.0, 2.0])).order.tolist()
    [1, 2, 0]
    """
    return _ranked(flat(gradient).abs(), "gradient", "gradient")


@checked
def snip(weights: Weights, gradient: Weights, *, params: ParameterFilter = None) -> Ranking:
    """Parameters by descending connection sensitivity |g_i theta_i|, a first-order estimate of the loss without theta_i.

    Args:
        weights: a model, tensors by name, or flat.
        gradient: of the loss, by name or flat; ``operator.gradient()`` gives it.
        params: for a model, the same filter as the operator's.

    Source: Lee, Ajanthan, Torr (ICLR 2019).

    >>> snip(torch.tensor([1.0, 2.0]), torch.tensor([5.0, -3.0])).order.tolist()
    [1, 0]
    """
    theta, slope = _alike(flat(weights, params), flat(gradient), "gradient")
    return _ranked((theta * slope).abs(), "SNIP", "product of parameters and gradient")


@checked
def obd(weights: Weights, diagonal: Weights, *, params: ParameterFilter = None) -> Ranking:
    """Parameters by descending saliency H_ii theta_i^2 / 2, the second-order estimate of the loss without theta_i.

    Negative curvature ranks last, as in the source.

    Args:
        weights: a model, tensors by name, or flat.
        diagonal: of the Hessian, by name or flat; :func:`.proxies.diagonal` gives it.
        params: for a model, the same filter as the operator's.

    Source: LeCun, Denker, Solla, Optimal Brain Damage (1989).

    >>> obd(torch.tensor([1.0, 2.0]), torch.tensor([5.0, 1.0])).order.tolist()
    [0, 1]
    """
    theta, curvature = _alike(flat(weights, params), flat(diagonal), "diagonal")
    return _ranked(0.5 * curvature * theta.square(), "OBD saliency", "saliencies")


@checked
def fisher(weights: Weights, diagonal: Weights, *, params: ParameterFilter = None) -> Ranking:
    """Parameters by descending saliency F_ii theta_i^2 / 2, with the diagonal of a Fisher matrix; as :func:`obd` otherwise.

    Source: Theis et al., Faster gaze prediction with dense networks and Fisher pruning (2018).

    >>> fisher(torch.tensor([1.0, 2.0]), torch.tensor([5.0, 2.0])).name
    'Fisher saliency'
    """
    return Ranking(obd(weights, diagonal, params=params).order, "Fisher saliency")


@checked
def by_score(scores: Weights, *, name: str = "score") -> Ranking:
    """Parameters by descending score of your own, by name or flat.

    >>> by_score(torch.tensor([0.1, -3.0, 2.0])).order.tolist()
    [2, 0, 1]
    """
    return _ranked(flat(scores), name, "scores")


@checked
def from_order(order: Tensor | Sequence[int], *, name: str = "given order") -> Ranking:
    """A ranking from a permutation of 0..D-1, most important first.

    Raises:
        InvalidArgument: an index is missing or comes twice.

    >>> from_order([1, 0]).places.tolist()
    [1, 0]
    """
    given = as_numbers("order", order)
    if given.ndim != 1 or not torch.equal(given.sort().values, torch.arange(len(given), device="cpu")):
        raise InvalidArgument(
            f"order of shape {tuple(given.shape)} is no permutation of 0..D-1: pass each parameter's place once, "
            "or masks.from_indices for some of them"
        )
    return Ranking(given.long(), name)


def _first(ranking: Ranking, k: int | None, fraction: float | None) -> Ranking | Mask:
    """The ranking, or its first k, or this share of it."""
    if k is not None and fraction is not None:
        raise InvalidArgument(f"k={k}, fraction={fraction}: pass one of them")
    if fraction is not None:
        if not 0 < fraction <= 1:
            raise InvalidArgument(f"fraction={fraction}: choose a number above 0 and up to 1")
        k = max(1, round(fraction * ranking.size))
    if k is not None and k < 1:
        raise InvalidArgument(f"k={k}: choose 1 to D = {ranking.size}")
    return ranking if k is None else ranking.first(k)


def _named(ranking: Ranking, weights: Weights, params: ParameterFilter) -> Ranking:
    """The ranking with the names that its weights have."""
    return ranking if isinstance(weights, Tensor) else replace(ranking, layout=layout(weights, params=params))


def _alike(weights: Tensor, other: Tensor, what: str) -> tuple[Tensor, Tensor]:
    if len(weights) != len(other):
        raise InvalidArgument(f"the {what} has {len(other)} entries for {len(weights)} parameters: use the same params filter")
    return weights.double().cpu(), other.double().cpu()


def _ranked(scores: Tensor, name: str, what: str) -> Ranking:
    if not bool(torch.isfinite(scores).all()):
        raise NotFinite(f"the {what} hold NaN or infinity: load a checkpoint from before training diverged")
    return Ranking(scores.argsort(descending=True, stable=True).cpu(), name)
