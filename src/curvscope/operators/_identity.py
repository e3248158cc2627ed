"""Facts that tell one operator from another: numbers, code, and values on fixed vectors, compared within rounding.

A digest of parameters, data and code cannot see everything that a model computes (an imported constant, a list of options),
and differs where the same matrix is computed by another version. So an operator also has an identity, a plain dictionary:

- ``kind``: the class of the operator.
- ``exact``: digests and options that must be equal.
- ``modules``, ``code``, ``versions``: the make-up of the network and digests of the code; compared under the same versions.
- ``values``: the loss and a product with a fixed vector, projected on a few numbers; compared within ``rounding``.
- ``parts``: the identities of the operators that it is made of.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from curvscope.errors import CurvscopeError
from curvscope.operators._code import code_digest, loss_digest, modules_of, versions
from curvscope.operators.base import Operator
from curvscope.operators.objective import check_substitution
from curvscope.sketches import TestMatrix

Identity = dict[str, Any]

DIGEST = re.compile("[0-9a-f]{32}")
MOST_MODULES = 3
"""Modules that are named, of those that differ."""
PROJECTIONS = 8
"""Numbers that are kept of a product: its parts in so many segments, each along a fixed direction."""
UNITS, TIMES = 1e3, 10.0
"""Differences up to so many rounding units, and so many times the measured effect of rounding, are rounding."""
COARSEST = 0.1
"""Most that rounding units explain, where the effect of rounding was not measured to be larger."""


def fixed_vector(operator: Operator, role: str = "identity") -> Tensor:
    """Return the (n, 1) Gaussian vector that products are compared on."""
    rows = operator.shape[0] if role == "projections" else operator.shape[1]
    return TestMatrix("gaussian", rows, seed=0, role=role, dtype=operator.dtype, device=operator.device).columns(0, 1)


def projected(operator: Operator, product: Tensor) -> list[float]:
    """Return the parts of a product along fixed directions in :data:`PROJECTIONS` segments, and its norm."""
    along = (product.reshape(-1) * fixed_vector(operator, "projections").reshape(-1)).to(torch.complex128)
    parts = torch.view_as_real(torch.stack([piece.sum() for piece in along.tensor_split(PROJECTIONS)]))
    return [*parts.flatten().tolist(), float(product.to(torch.complex128).norm())]


def operator_differences(known: Mapping[str, Any], operator: Operator, *, there: str = "in the run") -> list[str]:
    """Return how an operator differs from one that was recorded, in words; empty if it is the same to rounding.

    Args:
        known: what :func:`recorded` returned for that one.
        operator: the one at hand.
        there: where that one is, in words.

    Cost: that of :attr:`.Operator.identity`, once.
    """
    return recorded_differences(known, recorded(operator), there=there)


def recorded(operator: Operator) -> dict[str, Any]:
    """Return what two operators are compared by: the fingerprint and, where the operator has one, the identity."""
    return {"fingerprint": operator.fingerprint, **({"identity": operator.identity} if operator.identity else {})}


def recorded_differences(
    known: Mapping[str, Any], found: Mapping[str, Any], *, there: str = "in the run", here: str = "here"
) -> list[str]:
    """Return how two operators that were recorded differ, in words; see :func:`operator_differences`."""
    if known.get("identity") and found.get("identity"):
        return differences(known["identity"], found["identity"], there=there, here=here)
    if known.get("fingerprint") in (None, found["fingerprint"]):
        return []
    text = f"fingerprint is {_short(known['fingerprint'])} {there} and {_short(found['fingerprint'])} {here}"
    if found.get("identity"):
        text += (
            " (that one was made by an earlier version of curvscope, which did not record what the code computes: its results "
            "can be opened, it cannot be continued)"
        )
    return [text]


def differences(known: Identity, found: Identity, *, there: str, here: str) -> list[str]:
    """Return how two identities differ, each difference in words."""
    if known.get("kind") != found.get("kind"):
        return [f"the operator is {known.get('kind')} {there} and {found.get('kind')} {here}"]
    texts = [
        f"{name}: {_shown(before)} {there} and {_shown(now)} {here}"
        for name, before, now in _pairs(known, found, "exact")
        if before != now
    ]
    if known.get("versions") == found.get("versions"):
        modules = [
            f"{f'module {name}' if name else 'the network'} is {before or 'absent'} {there} and {now or 'absent'} {here}"
            for name, before, now in _pairs(known, found, "modules")
            if before != now
        ]
        texts += modules[:MOST_MODULES]
        texts += [f"the code of {name} was changed" for name, before, now in _pairs(known, found, "code") if before != now]
    texts += [*_loss_difference(known, found, there, here), *_product_difference(known, found)]
    inner, own = known.get("parts", []), found.get("parts", [])
    if len(inner) != len(own):
        return [*texts, f"the operator has {len(inner)} parts {there} and {len(own)} {here}"]
    for number, (before, now) in enumerate(zip(inner, own, strict=True), start=1):
        place = f"part {number}: " if len(own) > 1 else ""
        texts += [place + text for text in differences(before, now, there=there, here=here)]
    return texts


def combined(kind: str, parts: list[Operator], **exact: Any) -> Identity:
    """Return the identity of an operator that is made of others; empty where none of these has one."""
    if not any(part.identity for part in parts):
        return {}
    made = [part.identity or {"kind": type(part).__name__, "exact": {"fingerprint": part.fingerprint}} for part in parts]
    return {"kind": kind, "exact": {name: str(value) for name, value in exact.items()}, "parts": made}


FEW = 16
"""Samples that the effect of rounding is measured on: it costs two products, and a mini-batch may be a thousand samples."""


def effect_of_rounding(operator: Any, first: Any, multiply: Callable[[Tensor, Any], Tensor]) -> float:
    """Return the relative change of a product with few samples when each parameter moves by one rounding unit.

    Args:
        operator: whose vectors these are.
        first: the objective of the first mini-batch.
        multiply: products with the matrix of an objective.
    """
    with first.isolated():
        piece = first.few_samples(next(first.batches())[0], FEW)
    few = first if piece is None else first.like([piece])
    vector = fixed_vector(operator)
    product = multiply(vector, few)
    moved = multiply(vector, with_rounded_values(few, operator.rounding))
    return float((moved - product).norm()) / (float(product.norm()) or 1.0)


def with_rounded_values(objective: Any, unit: float) -> Any:
    """Return an objective whose parameters are moved by one rounding unit each, up or down."""
    moved = copy.copy(objective)
    signs = TestMatrix("rademacher", objective.parameters.size, seed=0, role="rounding", dtype=torch.float32)
    pieces = objective.parameters.split(signs.columns(0, 1)[:, 0])
    moved.values = tuple(
        value * (1 + unit * piece.to(value.device, value.dtype)) for value, piece in zip(objective.values, pieces, strict=True)
    )
    return moved


def of_objective(operator: Any, multiply: Callable[[Tensor, Any], Tensor]) -> Identity:
    """Return the identity of a matrix of an objective.

    Args:
        operator: it has an ``objective``.
        multiply: products with the matrix of an objective.

    Cost: one product with the first mini-batch, two with few samples.
    """
    objective = operator.objective
    values, rounding = {"loss": objective.mean_loss}, {"unit": operator.rounding}
    with suppress(CurvscopeError):  # the solver that multiplies next says why
        check_substitution(objective)  # once, for the matrices below and for the products of this one
        first = objective.of_first_batch()
        values["product"] = projected(operator, multiply(fixed_vector(operator), first))
        rounding["product"] = max(operator.rounding, effect_of_rounding(operator, first, multiply))
    return {
        "kind": type(operator).__name__,
        "exact": {**objective.exact_parts(), "dtype": str(operator.dtype)},
        "modules": modules_of(objective.model),
        "code": {"the loss": loss_digest(objective.criterion), "the network": code_digest(objective.model)},
        "versions": versions(),
        "values": values,
        "rounding": rounding,
    }


def _loss_difference(known: Identity, found: Identity, there: str, here: str) -> list[str]:
    before, now = (identity.get("values", {}).get("loss") for identity in (known, found))
    if before is None or now is None:
        return []
    # a mean of logarithms near zero is a difference of numbers near one: rounding is that of one
    limit = min(COARSEST, UNITS * _rounding("unit", known, found)) * max(abs(before), abs(now), 1.0)
    return [] if abs(now - before) <= limit else [f"the loss is {before:.6g} {there} and {now:.6g} {here}"]


def _product_difference(known: Identity, found: Identity) -> list[str]:
    before, now = (identity.get("values", {}).get("product") for identity in (known, found))
    if before is None or now is None:
        return []  # it cannot be computed: whoever multiplies says why
    scale = max(before[-1], now[-1]) or 1.0
    apart = max(math.dist(before[:-1], now[:-1]), abs(before[-1] - now[-1])) / scale
    limit = min(COARSEST, UNITS * _rounding("unit", known, found)) + TIMES * _rounding("product", known, found)
    if apart <= limit:
        return []
    return [f"the product with a fixed vector differs by {apart:.1e} of its norm, where rounding explains {limit:.1e}"]


def _rounding(name: str, *identities: Identity) -> float:
    return max(float(identity.get("rounding", {}).get(name, 0.0)) for identity in identities)


def _pairs(known: Identity, found: Identity, section: str) -> list[tuple[str, Any, Any]]:
    before, now = known.get(section, {}), found.get(section, {})
    return [(name, before.get(name), now.get(name)) for name in {**before, **now}]


def _shown(value: Any) -> str:
    return "not set" if value is None else _short(value) if DIGEST.fullmatch(str(value)) else str(value)


def _short(fingerprint: Any) -> str:
    return str(fingerprint)[:12]
