r"""The same comparison in other units, for two subspaces (or masks) of one dimension k.

With the overlap o = ||Q1'Q2||_F^2 / k: IoU = o / (2 - o); the number of differing bits of two k-masks, ||P1 - P2||_F^2 for
subspaces, is 2 k (1 - o); projection F, ||sin theta||_2, is sqrt(k (1 - o)).

The paper (Fernandez et al., TMLR 2025, A.1) writes overlap = 1 - dist_H / k with dist_H = ||m1 - m2||_2^2, which is the number
of differing bits: that lacks a factor 2 (disjoint masks differ in 2k bits and would have overlap -1). Its formula holds for
half the number of differing bits.
"""

from __future__ import annotations

from curvscope.errors import InvalidArgument
from curvscope.system import checked


@checked
def iou_from_overlap(overlap: float) -> float:
    """Intersection over union, o / (2 - o).

    >>> round(iou_from_overlap(0.5), 4)
    0.3333
    """
    return _share(overlap, "overlap") / (2 - overlap)


@checked
def overlap_from_iou(iou: float) -> float:
    """Overlap, 2 IoU / (1 + IoU).

    >>> overlap_from_iou(1 / 3)
    0.5
    """
    return 2 * _share(iou, "iou") / (1 + iou)


@checked
def hamming_from_overlap(overlap: float, k: int) -> float:
    """Number of differing bits, 2 k (1 - o).

    >>> hamming_from_overlap(0.0, 5)
    10.0
    """
    return 2 * k * (1 - _share(overlap, "overlap"))


@checked
def overlap_from_hamming(hamming: float, k: int) -> float:
    """Overlap, 1 - bits / (2 k).

    >>> overlap_from_hamming(10, 5)
    0.0
    """
    if k < 1 or not 0 <= hamming <= 2 * k:
        raise InvalidArgument(f"hamming={hamming}: two masks of k={k} differ in 0 to 2k bits")
    return 1 - hamming / (2 * k)


@checked
def hamming_from_iou(iou: float, k: int) -> float:
    """Number of differing bits, 2 k (1 - IoU) / (1 + IoU).

    >>> hamming_from_iou(0.0, 5)
    10.0
    """
    return 2 * k * (1 - _share(iou, "iou")) / (1 + iou)


@checked
def iou_from_hamming(hamming: float, k: int) -> float:
    """Intersection over union, (2 k - bits) / (2 k + bits).

    >>> iou_from_hamming(10, 5)
    0.0
    """
    return iou_from_overlap(overlap_from_hamming(hamming, k))


@checked
def projection_f_from_overlap(overlap: float, k: int) -> float:
    """||sin theta||_2 = ||P1 - P2||_F / sqrt 2 = sqrt(k (1 - o)).

    >>> projection_f_from_overlap(0.0, 9)
    3.0
    """
    return float((k * (1 - _share(overlap, "overlap"))) ** 0.5)


@checked
def overlap_from_projection_f(distance: float, k: int) -> float:
    """Overlap, 1 - distance^2 / k.

    >>> overlap_from_projection_f(3.0, 9)
    0.0
    """
    if k < 1 or not 0 <= distance**2 <= k * (1 + 1e-12):
        raise InvalidArgument(f"distance={distance}: the projection F distance of k={k} dimensions lies in [0, sqrt k]")
    return max(0.0, 1 - distance**2 / k)


def _share(value: float, name: str) -> float:
    if not 0 <= value <= 1:
        raise InvalidArgument(f"{name}={value}: it lies in [0, 1]")
    return value
