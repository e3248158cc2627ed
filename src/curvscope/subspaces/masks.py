"""Rankings and masks of parameters: by magnitude, at random, from gradients and curvature, the best there is, by name."""

from __future__ import annotations

from typing import Any

from curvscope.subspaces._masks import by_name, from_dict, from_indices, from_pruned, n_of_m
from curvscope.subspaces._ranking import Mask, Ranking
from curvscope.subspaces._rankings import (
    best,
    by_gradient,
    by_magnitude,
    by_score,
    fisher,
    from_order,
    largest,
    layerwise_magnitude,
    obd,
    random,
    random_like,
    snip,
)
from curvscope.system import missing_attribute

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

_INSTEAD = {
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
    raise AttributeError(missing_attribute("curvscope.masks", name, __all__, _INSTEAD))


def __dir__() -> list[str]:
    return sorted(__all__)
