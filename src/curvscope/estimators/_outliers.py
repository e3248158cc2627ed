"""How many eigenvalues stand out of the bulk: three rules, each with its name."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.system import checked

Rule = Literal["gap", "ratio", "elbow"]
"""How outliers are told from the bulk; :func:`count_outliers` defines each."""
RULES: tuple[Rule, ...] = get_args(Rule)
EQUAL = 1e-6
"""Relative difference up to which values are equal, in single precision."""


@checked
def count_outliers(values: Tensor, rule: Rule = "ratio", *, most: int = 20) -> int:
    r"""Return how many of the largest values stand out of the others.

    With x_1 >= x_2 >= ... the positive values, of which the first ``most`` + 1 are looked at:

    - "gap": the i with the largest difference x_i - x_{i+1};
    - "ratio": the i with the largest ratio x_i / x_{i+1};
    - "elbow": the values above the elbow of the curve i -> x_i, its point farthest below the chord from the first to the last.

    The rules differ: report all three. Sagun et al. found the elbow nearest to the number of classes and the ratio often at
    one less; "gap" tends to see only the first few.

    Args:
        values: eigenvalues, any order; for the negative end pass them with the sign changed.
        rule: one of the three.
        most: where the look ends.

    Returns:
        A number from 0 (fewer than two positive values, or all of them equal up to rounding) to ``most``.

    Source: Sagun, Evci, Guney, Dauphin, Bottou (arXiv 1706.04454), table 1.

    >>> x = torch.tensor([10.0, 9.0, 8.0, 0.1, 0.09, 0.08, 0.07])
    >>> [count_outliers(x, rule) for rule in RULES]
    [3, 3, 3]
    """
    if rule not in RULES:
        raise InvalidArgument(f"rule={rule!r}: choose one of {', '.join(RULES)}")
    if most < 1:
        raise InvalidArgument(f"most={most}: choose at least 1")
    top = values[values > 0].double().sort(descending=True).values[: most + 1]
    if len(top) < 2 or float(top[0] - top[-1]) <= EQUAL * float(top[0]):
        return 0
    match rule:
        case "gap":
            return int((top[:-1] - top[1:]).argmax()) + 1
        case "ratio":
            return int((top[:-1] / top[1:]).argmax()) + 1
    chord = torch.linspace(float(top[0]), float(top[-1]), len(top), dtype=torch.float64, device="cpu")
    return int((chord - top).argmax())
