"""Rankings and masks of parameters: by magnitude, at random, from gradients and curvature, the best there is, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, overload

import torch
from torch import Tensor, nn

from curvscope.errors import InvalidArgument, InvalidType, NotFinite
from curvscope.operators import ParameterFilter, Parameters, matching, select
from curvscope.subspaces._given import BUFFER, as_mask
from curvscope.subspaces._leverage import leverage
from curvscope.subspaces._ranking import Mask, Ranking
from curvscope.subspaces._spaces import Basis
from curvscope.system import as_numbers, checked, missing_attribute

Weights = nn.Module | Mapping[str, Tensor] | Tensor
Layers = nn.Module | Mapping[str, Tensor] | Parameters

__all__ = [
    "Mask",
    "Ranking",
    "best",
    "by_gradient",
    "by_magnitude",
    "by_name",
    "by_score",
    "fisher",
    "from_dict",
    "from_indices",
    "from_order",
    "from_pruned",
    "largest",
    "layerwise_magnitude",
    "n_of_m",
    "obd",
    "random",
    "random_like",
    "snip",
]


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
    return _first(_named(_ranked(_flat(weights, params).abs(), "magnitude", "parameters"), weights, params), k, fraction)


@checked
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
    flat, layers = _flat(weights, params), layout(weights, params=params)
    shares = torch.empty(layers.size, dtype=torch.float64, device="cpu")
    for place in layers.slices.values():
        length = place.stop - place.start
        order = _ranked(flat[place].abs(), "magnitude", "parameters").order
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
    return _ranked(_flat(gradient).abs(), "gradient", "gradient")


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
    theta, slope = _alike(_flat(weights, params), _flat(gradient), "gradient")
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
    theta, curvature = _alike(_flat(weights, params), _flat(diagonal), "diagonal")
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
    return _ranked(_flat(scores), name, "scores")


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


@checked
def from_indices(index: Tensor | Sequence[int], size: int, *, name: str = "given indices") -> Mask:
    """The mask of the parameters at any places of the flat vector of length ``size``; a (D,) bool tensor will do too.

    Raises:
        InvalidArgument: none, an index out of range, or one that comes twice.

    >>> from_indices([3, 1], 5).count, from_indices(torch.tensor([True, False]), 2).index.tolist()
    (2, [0])
    """
    given = as_numbers("index", index)
    if given.dtype == torch.bool:
        if given.shape != (size,):
            raise InvalidArgument(f"the bool mask has shape {tuple(given.shape)}, expected ({size},)")
        given = given.nonzero().flatten()
    if given.ndim != 1 or not len(given) or given.is_floating_point():
        raise InvalidArgument(f"index of shape {tuple(given.shape)}, {given.dtype}: pass at least one integer place")
    ordered = given.long().sort().values
    if int(ordered[0]) < 0 or int(ordered[-1]) >= size or len(ordered.unique()) < len(ordered):
        raise InvalidArgument(f"index must hold different places from 0 to {size - 1}: got {_some(ordered)}")
    return Mask(ordered, size, name)


@checked
def by_name(layers: Layers, chosen: ParameterFilter) -> Mask:
    """The mask of all parameters whose names pass the filter: a layer, all biases.

    Args:
        layers: a model (its trainable parameters), tensors by name, or an operator's ``parameters``.
        chosen: a glob such as ``"layer4.*"``, a list of globs, a compiled pattern, or a predicate (name, None) -> bool.

    Raises:
        InvalidArgument: nothing passes.

    >>> by_name(nn.Linear(2, 1), "bias").index.tolist()
    [2]
    """
    parameters = layout(layers)
    places = [
        torch.arange(parameters.size, device="cpu")[parameters.slices[name]] for name in matching(parameters.names, chosen)
    ]
    return Mask(torch.cat(places), parameters.size, str(chosen))


@checked
def from_pruned(model: nn.Module, *, params: ParameterFilter = None) -> Mask:
    """The mask of the parameters that ``torch.nn.utils.prune`` has kept, in the order of the model's curvature operators.

    Pruning moves a parameter behind the others of its module and keeps its mask in a buffer; parameters without one count
    as kept.

    Args:
        model: pruned, with its ``..._mask`` buffers (before ``prune.remove``).
        params: the same filter as the operator's.

    Raises:
        InvalidArgument: nothing is pruned, or nothing is left.

    >>> from torch.nn.utils import prune
    >>> layer = nn.Linear(2, 1)
    >>> _ = prune.custom_from_mask(layer, "weight", torch.tensor([[1, 0]]))
    >>> from_pruned(layer).index.tolist(), list(dict(layer.named_parameters()))
    ([0, 1], ['bias', 'weight_orig'])
    """
    buffers = {name: tensor for name, tensor in model.named_buffers() if name.endswith(BUFFER)}
    if not buffers:
        raise InvalidArgument(
            "the model has no mask of torch.nn.utils.prune: after prune.remove the zeros are the mask, "
            "masks.from_dict({name: p != 0 for name, p in model.named_parameters()})"
        )
    return from_dict(buffers, layers=layout(model, params=params))


@checked
def from_dict(tensors: Mapping[str, Tensor], *, layers: Layers | None = None) -> Mask:
    """The mask of booleans, or zeros and ones, by parameter name.

    Args:
        tensors: by name; in the order of the operator's parameters, unless ``layers`` tells it.
        layers: whose order it is brought into: a model, tensors by name, or an operator's ``parameters``.

    Raises:
        InvalidArgument: a name is missing, a shape differs, numbers that are no mask, or nothing is chosen.

    >>> layers = {"a": torch.zeros(2), "b": torch.zeros(1)}
    >>> from_dict({"b": torch.tensor([True]), "a": torch.tensor([0, 1])}, layers=layers).index
    tensor([1, 2])
    """
    named = layout(tensors if layers is None else layers)
    if not named.names:
        raise InvalidArgument("there is no tensor: pass one for each parameter, by name")
    found = as_mask(tensors, named.size, named)
    if not isinstance(found, Mask):
        raise InvalidArgument("the tensors hold other numbers than 0 and 1: pass masks, or masks.by_score(tensors) for scores")
    return Mask(found.index, found.size, "given by name", named)


@checked
def n_of_m(weights: Weights, n: int = 2, m: int = 4, *, params: ParameterFilter = None) -> Mask:
    """The mask of an N:M pattern: the n largest magnitudes of every m neighbours in the flat order of each tensor.

    Args:
        weights: a model, tensors by name, or the flat vector.
        n: how many are kept of each m.
        m: neighbours along a row; a tensor whose size is no multiple of m keeps its last, shorter group whole.
        params: for a model, the same filter as the operator's.

    >>> n_of_m(torch.tensor([1.0, 4.0, 3.0, 2.0]), 2, 4).index.tolist()
    [1, 2]
    """
    if not 1 <= n <= m:
        raise InvalidArgument(f"n={n}, m={m}: choose 1 <= n <= m")
    flat = _flat(weights, params).abs().cpu()
    lengths = [len(flat)] if isinstance(weights, Tensor) else layout(weights, params=params).lengths
    kept = torch.ones(len(flat), dtype=torch.bool, device="cpu")
    start = 0
    for length in lengths:
        whole = start + length - length % m
        groups = flat[start:whole].reshape(-1, m)
        chosen = torch.zeros_like(groups, dtype=torch.bool)
        chosen.scatter_(1, groups.argsort(dim=1, descending=True, stable=True)[:, :n], True)
        kept[start:whole] = chosen.flatten()
        start += length
    named = None if isinstance(weights, Tensor) else layout(weights, params=params)
    return Mask(kept.nonzero().flatten(), len(flat), f"{n}:{m}", named)


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


def layout(layers: Layers, *, params: ParameterFilter = None) -> Parameters:
    """Names, shapes and places of tensors that are given as a model, by name, or as ``Parameters`` already.

    >>> layout(nn.Linear(2, 1)).lengths
    (2, 1)
    """
    check_params(layers, params)
    match layers:
        case Parameters():
            return layers
        case nn.Module():
            tensors: Mapping[str, Tensor] = select(layers, params)
        case Mapping():
            tensors = layers
        case _:
            raise InvalidType(f"a {type(layers).__name__} has no layers: pass a model, tensors by name, or H.parameters")
    return Parameters(tuple(tensors), tuple(tensor.shape for tensor in tensors.values()))


def check_params(weights: object, params: ParameterFilter) -> None:
    """Raise InvalidArgument for a filter beside anything but a model: it would be ignored."""
    if params is not None and not isinstance(weights, nn.Module):
        given = f"a {type(weights).__name__}" if weights is not None else "no model"
        raise InvalidArgument(f"params={params!r} selects from a model, got {given}: pass the model, or leave params out")


INSTEAD = {
    "top_k": "masks.by_magnitude(model, k=10), or masks.by_score(scores).first(10)",
    "topk": "masks.by_magnitude(model, k=10), or masks.by_score(scores).first(10)",
    "magnitude": "masks.by_magnitude(model)",
    "global_magnitude": "masks.by_magnitude(model)",
    "by_layer": "masks.by_name(model, 'layer.*')",
    "layer": "masks.by_name(model, 'layer.*')",
    "layerwise": "masks.layerwise_magnitude(model)",
    "by_gradients": "masks.by_gradient(H.gradient())",
    "gradient": "masks.by_gradient(H.gradient())",
    "from_tensor": "masks.from_indices(mask, D), or the tensor itself as overlap(solution, mask)",
    "from_bool": "masks.from_indices(mask, D), or the tensor itself as overlap(solution, mask)",
    "from_mask": "masks.from_indices(mask, D), or the tensor itself as overlap(solution, mask)",
    "from_list": "overlap(solution, [mask, ...]), with a tensor for each parameter",
    "from_prune": "masks.from_pruned(model)",
    "from_model": "masks.from_pruned(model), or masks.by_magnitude(model)",
    "from_scores": "masks.by_score(scores)",
    "by_hessian": "masks.obd(model, cs.diagonal(H))",
    "diagonal": "masks.obd(model, cs.diagonal(H))",
    "by_fisher": "masks.fisher(model, cs.diagonal(F))",
    "nm": "masks.n_of_m(model, 2, 4)",
    "structured": "masks.n_of_m(model, 2, 4), or masks.by_name(model, 'layer.*')",
    "uniform": "masks.random(model)",
    "null": "cs.mask_null(solution, mask)",
    "union": "first | second",
    "intersection": "first & second",
    "difference": "first - second",
    "complement": "~mask",
    "invert": "~mask",
    "all": "masks.by_name(model, '*')",
    "apply": "torch.nn.utils.prune.custom_from_mask(layer, 'weight', mask.unflatten()['layer.weight'])",
    "taylor": "masks.snip(model, H.gradient())",
    "hessian": "masks.obd(model, cs.diagonal(H))",
    "movement": "masks.by_score(...) of the scores of your own",
    "load": "the file's tensor itself: overlap(solution, torch.load(path))",
    "threshold": "the comparison itself: overlap(solution, weights.abs() > 0.1)",
}
"""Names that people try for masks, and ours."""


def __getattr__(name: str) -> Any:
    raise AttributeError(missing_attribute("curvscope.masks", name, __all__, INSTEAD))


def __dir__() -> list[str]:
    return sorted(__all__)


def layer_index(layers: Parameters, size: int) -> Tensor:
    """(D,) int64: which tensor each parameter belongs to.

    Raises:
        InvalidArgument: the tensors do not hold ``size`` parameters.
    """
    if layers.size != size:
        raise InvalidArgument(
            f"the layers hold {layers.size} parameters, expected D = {size}: use the operator's params filter"
        )
    return torch.repeat_interleave(torch.arange(len(layers.lengths), device="cpu"), torch.tensor(layers.lengths, device="cpu"))


def _flat(weights: Weights, params: ParameterFilter = None) -> Tensor:
    if isinstance(value := getattr(weights, "value", None), Tensor):  # of cs.diagonal(H)
        weights = value
    match weights:
        case nn.Module():
            tensors: list[Tensor] = list(select(weights, params).values())
        case Mapping():
            tensors = list(weights.values())
        case Tensor():
            tensors = [weights]
        case _:
            raise InvalidType(f"cannot rank a {type(weights).__name__}: pass a model, tensors by name, or a flat vector")
    check_params(weights, params)
    if not sum(tensor.numel() for tensor in tensors):
        raise InvalidArgument("there are no tensors to rank")
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def _alike(weights: Tensor, other: Tensor, what: str) -> tuple[Tensor, Tensor]:
    if len(weights) != len(other):
        raise InvalidArgument(f"the {what} has {len(other)} entries for {len(weights)} parameters: use the same params filter")
    return weights.double().cpu(), other.double().cpu()


def _ranked(scores: Tensor, name: str, what: str) -> Ranking:
    if not bool(torch.isfinite(scores).all()):
        raise NotFinite(f"the {what} hold NaN or infinity: load a checkpoint from before training diverged")
    return Ranking(scores.argsort(descending=True, stable=True).cpu(), name)


def _some(values: Tensor) -> str:
    listed = values.tolist()
    return str(listed) if len(listed) <= 6 else f"[{', '.join(map(str, listed[:3]))}, ..., {listed[-1]}]"
