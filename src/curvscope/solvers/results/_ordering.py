"""Which eigenvalues are wanted, and in which order they are given."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.tall import TallMatrix

ORDERS = {
    "LM": "largest magnitude first",
    "LA": "largest first",
    "SA": "smallest (most negative) first",
    "BE": "both ends: ceil(k/2) largest and floor(k/2) smallest, largest first",
}


def check_which(which: str) -> None:
    """Raise InvalidArgument unless ``which`` is one of LM, LA, SA, BE."""
    if which not in ORDERS:
        choices = "; ".join(f"{name!r} ({text})" for name, text in ORDERS.items())
        smallest = (
            " Smallest magnitudes are not computed, as that would take an inverse: 'SA' gives the lower end, and cs.density(H) "
            "tells how many lie near zero."
        )
        raise InvalidArgument(f"which={which!r}: choose {choices}{'.' + smallest if which in ('SM', 'smallest') else ''}")


def wanted(values: Tensor, k: int, which: str) -> Tensor:
    """Indices of the k wanted among ``values`` (fewer if there are fewer), in the documented order.

    >>> wanted(torch.tensor([1.0, -3.0, 2.0]), 2, "LM").tolist(), wanted(torch.tensor([1.0, -3.0, 2.0]), 2, "BE").tolist()
    ([1, 2], [2, 1])
    """
    if which == "LM" and values.device.type == "cpu" and not values.requires_grad:
        # Iterations ask at each look: NumPy sorts a few numbers in half of PyTorch's time.
        return torch.from_numpy(np.argsort(-np.abs(values.numpy()), kind="stable")[:k])
    match which:
        case "LM":
            return values.abs().argsort(descending=True, stable=True)[:k]
        case "LA":
            return values.argsort(descending=True, stable=True)[:k]
        case "SA":
            return values.argsort(stable=True)[:k]
    descending = values.argsort(descending=True, stable=True)
    k = min(k, len(values))
    return torch.cat([descending[: k - k // 2], descending[len(values) - k // 2 :]])


def canonical_signs(vectors: TallMatrix) -> None:
    """Flip (turn, if complex) columns, in place, so that the entry of largest magnitude in each is real and positive.

    Of entries of the same magnitude the first counts. Cost: one read, and one write where a column is flipped.
    """
    turn = phases(vectors)
    if bool((turn != 1).any()):
        turn_columns(vectors, turn)


def phases(vectors: TallMatrix) -> Tensor:
    """For every column the factor that makes its entry of largest magnitude real and positive; 1 for a column of zeros."""
    peaks = torch.zeros(vectors.shape[1], dtype=vectors.dtype, device=vectors.device)
    for panel in vectors.panels():
        block = vectors.rows(panel)
        largest = block.gather(0, block.abs().argmax(dim=0, keepdim=True))[0]
        peaks = torch.where(largest.abs() > peaks.abs(), largest, peaks)
    return torch.where(peaks == 0, torch.ones_like(peaks), torch.sgn(peaks).conj())


def turn_columns(vectors: TallMatrix, factors: Tensor) -> None:
    """Multiply every column by its factor, in place."""
    for panel in vectors.panels():
        vectors.write_rows(panel, vectors.rows(panel) * factors)
