"""Every checkpoint against every other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any, ClassVar

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.store import Saved
from curvscope.subspaces._overlap import overlap
from curvscope.subspaces._ranking import Mask, Ranking
from curvscope.subspaces._spaces import Basis
from curvscope.subspaces.grassmann import Metric, similarity
from curvscope.system import Displayed, Hinted, Numbers, Progress, checked, frame, stage


@dataclass(frozen=True, repr=False)
class OverlapMatrix(Saved, Numbers, Displayed, Hinted):
    """Overlaps of T subspaces with each other, for several k.

    Attributes:
        k: (n,) int64.
        value: (n, T, T) float64, symmetric, 1 on the diagonal.
        size: D.
        lower: (n, T, T) float64 with ``upper``: intervals for the true eigenspaces, where both solutions have certificates;
            None where one has not.
        upper: likewise.
    """

    k: Tensor
    value: Tensor
    size: int
    lower: Tensor | None = None
    upper: Tensor | None = None

    _instead: ClassVar[Mapping[str, str]] = {
        "matrix": "matrix.value[0], of the first k",
        "ks": "matrix.k",
        "overlap": "matrix.value",
        "shape": "matrix.value.shape",
    }

    @checked
    def at(self, k: int) -> Tensor:
        """The (T, T) matrix for one of the k."""
        place = (self.k == k).nonzero().flatten()
        if not len(place):
            raise InvalidArgument(f"k={k}: there are matrices for k in {self.k.tolist()}")
        return self.value[int(place[0])]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        plain = {"D": self.size, "k": self.k.tolist(), "overlap": self.value.tolist(), "chance": self.chance.tolist()}
        if self.lower is None or self.upper is None:
            return plain
        return plain | {"lower": self.lower.tolist(), "upper": self.upper.tolist()}

    def to_pandas(self) -> Any:
        """A data frame with a row for each k and pair of spaces: k, first, second, overlap; needs pandas."""
        rows = [(int(k), i, j) for k in self.k for i in range(self.value.shape[1]) for j in range(self.value.shape[2])]
        names = ("k", "first", "second")
        columns: dict[str, Any] = {name: [row[place] for row in rows] for place, name in enumerate(names)}
        return frame(columns | {"overlap": self.value.flatten().tolist()})

    @checked
    def plot(self, ax: Any = None, *, k: int | None = None) -> Any:
        """Draw the matrix for one k (default: the last) into matplotlib axes (default: pyplot's current ones)."""
        if ax is None:
            from matplotlib import pyplot

            ax = pyplot.gca()
        chosen = int(self.k[-1]) if k is None else k
        image = ax.imshow(self.at(chosen).numpy(), vmin=0, vmax=1)
        ax.set(title=f"overlap, k = {chosen}")
        ax.figure.colorbar(image, ax=ax)
        return ax

    def __str__(self) -> str:
        count, last = self.value.shape[1], int(self.k[-1])
        rows = [
            f"Overlaps of {count} spaces with each other, k = {', '.join(map(str, self.k.tolist()[:12]))}, D = {self.size}",
            "",
        ]
        shown = range(min(count, 10))
        rows += ["  ".join(f"{float(self.value[-1, i, j]):5.3f}" for j in shown) for i in shown]
        more = f", of the first {len(shown)} spaces" if count > len(shown) else ""
        return "\n".join([*rows, "", f"for k = {last}{more}; chance {float(self.chance[-1]):.3g}"])

    @property
    def chance(self) -> Tensor:
        """(n,) k/D."""
        return self.k.double() / self.size

    @property
    def iou(self) -> Tensor:
        """The same as intersection over union, o / (2 - o)."""
        return self.value / (2 - self.value)


@checked
def overlap_matrix(spaces: Sequence[Basis | Ranking], ks: Sequence[int], *, progress: Progress = None) -> OverlapMatrix:
    r"""Overlap :math:`\|U_s^{(k)\top} U_t^{(k)}\|_F^2 / k` of every two of T eigenspaces (or rankings), for each k.

    Args:
        spaces: solutions, bases, or rankings; all of the same D, with at least max(ks) columns.
        ks: which k.
        progress: see :data:`.progress.Progress`.

    Cost: T (T - 1) / 2 Gram matrices, 2 D K^2 operations each, whatever the number of ks; two bases in use at a time.

    Raises:
        InvalidArgument: no spaces, different D, a k beyond the columns.

    >>> matrix = overlap_matrix([torch.eye(3)[:, :2], torch.eye(3)[:, 1:]], [1, 2])
    >>> matrix.value[1].tolist()
    [[1.0, 0.5], [0.5, 1.0]]
    """
    if not spaces or not ks or min(ks) < 1:
        raise InvalidArgument(f"{len(spaces)} spaces and ks={list(ks)}: pass at least one of each, ks from 1")
    index, count = torch.tensor(list(ks), device="cpu") - 1, len(spaces)
    value = torch.ones(len(index), count, count, dtype=torch.float64, device="cpu")
    lower, upper = torch.ones_like(value), torch.ones_like(value)
    certified, size = True, 0
    pairs = [(i, j) for i, j in combinations_with_replacement(range(count), 2) if i != j or count == 1]
    with stage("overlaps", len(pairs), progress) as advance:
        for i, j in pairs:
            curve = overlap(spaces[i], spaces[j])
            size = curve.size
            if int(index.max()) >= len(curve.k):
                raise InvalidArgument(f"k={int(index.max()) + 1}: spaces {i} and {j} have {len(curve.k)} columns in common")
            value[:, i, j] = value[:, j, i] = curve.value[index]
            if curve.lower is None or curve.upper is None:
                certified = False
            elif certified:
                lower[:, i, j] = lower[:, j, i] = curve.lower[index]
                upper[:, i, j] = upper[:, j, i] = curve.upper[index]
            advance()
    return OverlapMatrix(index + 1, value, size, lower if certified else None, upper if certified else None)


def similarity_matrix(spaces: Sequence[Basis | Mask], metric: Metric = "overlap", *, progress: Progress = None) -> Tensor:
    """(T, T) float64: similarity of every two of T subspaces by any Grassmannian metric.

    Args:
        spaces: bases, solutions or masks of the same D.
        metric: see :func:`.grassmann.similarity`.
        progress: see :data:`.progress.Progress`.

    Cost: T (T - 1) / 2 times that of :func:`.grassmann.angles`.

    >>> similarity_matrix([torch.eye(3)[:, :2], torch.eye(3)[:, 1:]], "iou")[0].tolist() == [1.0, 1 / 3]
    True
    """
    result = torch.ones(len(spaces), len(spaces), dtype=torch.float64, device="cpu")
    pairs = list(combinations_with_replacement(range(len(spaces)), 2))
    with stage(metric, len(pairs), progress) as advance:
        for i, j in pairs:
            if i != j:
                result[i, j] = result[j, i] = similarity(spaces[i], spaces[j], metric)
            advance()
    return result
