"""Distances between subspaces, and similarities normalised to [0, 1]."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.subspaces._given import as_pair
from curvscope.subspaces._ranking import Mask
from curvscope.subspaces._spaces import Basis, columns
from curvscope.subspaces.grassmann._angles import angles
from curvscope.system import checked

Metric = Literal[
    "geodesic", "chordal_2", "chordal_f", "projection_2", "projection_f", "fubini_study", "overlap", "iou", "hamming"
]
"""A measure of how far two subspaces are apart; :func:`distance` defines each."""
Unequal = Literal["inclusion", "metric"]
"""How subspaces of different dimensions are compared; see :func:`distance`."""
METRICS: tuple[Metric, ...] = get_args(Metric)


@checked
def distance(
    first: Basis | Mask, second: Basis | Mask, metric: Metric = "geodesic", *, unequal: Unequal = "inclusion"
) -> float:
    r"""Distance between two subspaces; 0 for equal ones.

    With principal angles :math:`\theta_1 \le \dots \le \theta_k` (:func:`.angles.angles`):

    ============== ============================================ ===========================
    metric         distance                                     largest
    ============== ============================================ ===========================
    geodesic       ||theta||_2                                  (pi/2) sqrt k
    chordal_2      2 sin(theta_k / 2)                           sqrt 2
    chordal_f      ||2 sin(theta / 2)||_2                       sqrt(2 k)
    projection_2   sin theta_k = ||P1 - P2||_2                  1
    projection_f   ||sin theta||_2 = ||P1 - P2||_F / sqrt 2     sqrt k
    fubini_study   arccos(prod cos theta)                       pi/2
    overlap        1 - ||cos theta||_2^2 / k                    1
    iou            1 - t / (k1 + k2 - t), t = ||cos theta||^2   1
    hamming        k1 + k2 - 2 t = ||P1 - P2||_F^2              k1 + k2
    ============== ============================================ ===========================

    The first six are metrics on the Grassmann manifold. ``overlap`` and ``hamming`` are squares of one (they do not obey the
    triangle inequality for general subspaces); for masks ``hamming`` is the number of bits that differ and ``iou`` one minus
    intersection over union, both metrics. For spaces of different dimension:

    Args:
        first: orthonormal columns, a solution, or a mask; (D, k1).
        second: likewise, (D, k2).
        metric: one of :data:`METRICS`.
        unequal: when k1 != k2, "inclusion": from the min(k1, k2) angles there are, 0 when one space contains the other; or
            "metric": the missing angles count as pi/2, which makes a metric on subspaces of all dimensions.

    Cost: see :func:`.angles.angles`.

    Raises:
        InvalidArgument: an unknown metric, different D, columns that are not orthonormal.
    Source: Edelman, Arias, Smith (1998), section 4.3; Ye and Lim (2016) for different dimensions; Fernandez et al. (2025),
        appendix A.1, whose Hamming distance lacks the factor 2 (see :mod:`.bijections`).

    >>> Q = torch.eye(4, dtype=torch.float64)
    >>> distance(Q[:, :2], Q[:, 1:3], "geodesic"), distance(Q[:, :2], Q[:, 1:3], "hamming")
    (1.5707963267948966, 2.0)
    """
    _check(metric, unequal)
    first, second = as_pair(first, second)
    return distance_of_angles(angles(first, second), metric, _dimensions(first, second), unequal=unequal)


@checked
def similarity(
    first: Basis | Mask, second: Basis | Mask, metric: Metric = "overlap", *, unequal: Unequal = "inclusion"
) -> float:
    r"""1 - distance / largest distance, in [0, 1]; 1 for equal spaces.

    For "overlap" it is the overlap :math:`\|Q_1^\top Q_2\|_F^2 / k`, for "iou" the intersection over union. Computed so that
    tiny values are right too (1e-14 for "fubini_study" at k = 10 is common), not by subtraction.

    Args and errors: as for :func:`distance`.

    >>> Q = torch.eye(4, dtype=torch.float64)
    >>> similarity(Q[:, :2], Q[:, 1:3]), round(similarity(Q[:, :2], Q[:, 1:3], "iou"), 4)
    (0.5, 0.3333)
    """
    _check(metric, unequal)
    first, second = as_pair(first, second)
    return similarity_of_angles(angles(first, second), metric, _dimensions(first, second), unequal=unequal)


@checked
def distance_of_angles(
    theta: Tensor, metric: Metric, dimensions: tuple[int, int] | None = None, *, unequal: Unequal = "inclusion"
) -> float:
    """As :func:`distance`, from principal angles and the dimensions (k1, k2); default: as many as there are angles.

    >>> round(distance_of_angles(torch.tensor([0.3, 0.4]), "geodesic"), 6)
    0.5
    """
    theta, dimensions = _complete(theta, metric, dimensions, unequal)
    match metric:
        case "geodesic":
            value = theta.norm()
        case "chordal_2":
            value = 2 * (theta.max() / 2).sin()
        case "chordal_f":
            value = 2 * (theta / 2).sin().norm()
        case "projection_2":
            value = theta.max().sin()
        case "projection_f":
            value = theta.sin().norm()
        case "fubini_study":
            logarithm = log_cosine(theta)
            return math.atan2(math.sqrt(-math.expm1(2 * logarithm)), math.exp(logarithm))
        case "overlap":
            value = theta.sin().square().mean()
        case "hamming":
            value = abs(dimensions[0] - dimensions[1]) + 2 * theta.sin().square().sum()
        case "iou":
            differing = abs(dimensions[0] - dimensions[1]) + 2 * theta.sin().square().sum()
            value = 2 * differing / (sum(dimensions) + differing)
    return float(value)


@checked
def similarity_of_angles(
    theta: Tensor, metric: Metric, dimensions: tuple[int, int] | None = None, *, unequal: Unequal = "inclusion"
) -> float:
    """As :func:`similarity`, from principal angles and the dimensions (k1, k2); default: as many as there are angles.

    >>> similarity_of_angles(torch.tensor([0.0, torch.pi / 2], dtype=torch.float64), "overlap")
    0.5
    """
    theta, dimensions = _complete(theta, metric, dimensions, unequal)
    shared = theta.cos().square()
    match metric:
        case "projection_2":
            return float(shared.min() / (1 + theta.max().sin()))
        case "projection_f":
            return float(shared.mean() / (1 + theta.sin().square().mean().sqrt()))
        case "fubini_study":
            return 2 / math.pi * math.asin(math.exp(log_cosine(theta)))
        case "overlap":
            return float(shared.mean())
        case "hamming":
            return float(2 * shared.sum() / sum(dimensions))
        case "iou":
            return float(shared.sum() / (sum(dimensions) - shared.sum()))
    return 1 - distance_of_angles(theta, metric) / largest_distance(metric, (len(theta), len(theta)))


@checked
def largest_distance(metric: Metric, dimensions: tuple[int, int], *, unequal: Unequal = "inclusion") -> float:
    """Return what :func:`distance` is at most for dimensions (k1, k2), reached by orthogonal spaces.

    >>> largest_distance("chordal_f", (8, 8))
    4.0
    """
    _check(metric, unequal)
    k = min(dimensions) if unequal == "inclusion" else max(dimensions)
    match metric:
        case "geodesic":
            return math.pi / 2 * math.sqrt(k)
        case "chordal_2":
            return math.sqrt(2)
        case "chordal_f":
            return math.sqrt(2 * k)
        case "projection_f":
            return math.sqrt(k)
        case "fubini_study":
            return math.pi / 2
        case "hamming":
            return float(sum(dimensions))
    return 1.0


@checked
def log_cosine(theta: Tensor) -> float:
    """The logarithm of the product of cosines, log |det Q1'Q2|: no underflow for many angles, no rounding for small ones.

    >>> round(log_cosine(torch.full((2000,), torch.pi / 3, dtype=torch.float64)) / math.log(2), 6)
    -2000.0
    """
    theta = theta.double()
    small = torch.log1p(-theta.sin().square()) / 2
    return float(torch.where(theta < math.pi / 4, small, theta.cos().log()).sum())


def _complete(
    theta: Tensor, metric: Metric, dimensions: tuple[int, int] | None, unequal: Unequal
) -> tuple[Tensor, tuple[int, int]]:
    """The angles that count, and the dimensions."""
    _check(metric, unequal)
    dimensions = (len(theta), len(theta)) if dimensions is None else dimensions
    if not len(theta) or len(theta) != min(dimensions):
        raise InvalidArgument(f"{len(theta)} angles for dimensions {dimensions}: there are as many as the smaller dimension")
    theta = theta.double()
    if unequal == "metric" and metric not in ("iou", "hamming"):
        theta = torch.cat([theta, theta.new_full((abs(dimensions[0] - dimensions[1]),), math.pi / 2)])
    return theta, dimensions


def _dimensions(first: Basis | Mask, second: Basis | Mask) -> tuple[int, int]:
    one, other = (space.count if isinstance(space, Mask) else columns(space).shape[1] for space in (first, second))
    return one, other


def _check(metric: Metric, unequal: Unequal) -> None:
    if metric not in METRICS:
        raise InvalidArgument(f"metric={metric!r}: choose one of {', '.join(METRICS)}")
    if unequal not in get_args(Unequal):
        raise InvalidArgument(f"unequal={unequal!r}: choose one of {', '.join(get_args(Unequal))}")
