"""Whether a problem's initial parameters are the pinned ones, and those of published logs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.problems._base import Problem, top_digest


def initial_magnitudes(problem: Problem) -> Tensor:
    """(D,) absolute values of the parameters as initialised."""
    return torch.nn.utils.parameters_to_vector(problem.model().parameters()).detach().abs()


def as_pinned(problem: Problem) -> bool:
    """Return whether the places of the ``defaults.num_outer`` largest initial parameters are the pinned ones.

    Where values are tied (the 4,800 ones of ResNet-18's BatchNorm layers), the set is that of ``torch.topk``, as published.

    >>> from curvscope.problems import get
    >>> as_pinned(get("mnist16"))
    True
    """
    top = initial_magnitudes(problem).topk(problem.defaults.num_outer, sorted=False).indices
    return top_digest(top) == problem.initial_top


def compare_with_reference(problem: Problem, reference: str | os.PathLike[str]) -> dict[str, Any]:
    """The initial parameters' largest places beside those in published logs.

    Args:
        problem: whose.
        reference: a JSON file, or a folder of them, with the places of the largest |parameters| at step 0 under a key
            ``top..._abs_params_index_set``, and D.

    Returns:
        ``file``, ``k``, how many places ``agree`` and whether all do (``same``); tied values may stand for each other.

    Raises:
        InvalidArgument: nothing there is about a network of this size.
    """
    place = Path(reference)
    if not place.exists():
        raise InvalidArgument(
            f"reference={str(reference)!r} does not exist: pass a JSON file of published logs, or their folder"
        )
    sizes = initial_magnitudes(problem)
    for file in sorted(place.glob("*.json")) if place.is_dir() else [place]:
        content = json.loads(file.read_text())
        if not isinstance(content, dict) or content.get("D") != len(sizes):
            continue
        step = content.get("steps", {}).get("0", {})
        for name, listed in step.items():
            if name.startswith("top") and name.endswith("abs_params_index_set"):
                theirs, ours = torch.tensor(listed, device="cpu"), sizes.topk(len(listed), sorted=False).indices
                agree = len(set(listed) & set(ours.tolist()))
                same = torch.equal(sizes[theirs].sort().values, sizes[ours].sort().values)
                return {"file": str(file), "k": len(listed), "agree": agree, "same": same}
    raise InvalidArgument(f"{place} holds no top-magnitude index set for D = {len(sizes)} at step 0")
