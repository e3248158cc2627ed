"""Matrices whose eigenvalues and eigenvectors are known in closed form, given by their products, of any size."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.operators.base import Operator
from curvscope.operators.fingerprint import fingerprint
from curvscope.sketches import Streams, inverse_unitary, unitary
from curvscope.system import checked
from curvscope.tall import InMemory

Shape = Callable[[Tensor, int, float, float], Tensor]


def _power(i: Tensor, rank: int, decay: float, noise: float) -> Tensor:
    return (i - rank + 1).clamp(min=1) ** -decay


def _exponential(i: Tensor, rank: int, decay: float, noise: float) -> Tensor:
    return torch.exp(-decay * (i - rank).clamp(min=0))


def _low_rank_noise(i: Tensor, rank: int, decay: float, noise: float) -> Tensor:
    bulk = noise * (1 - (i - rank) / max(1, len(i) - rank))
    return torch.where(i <= rank, torch.ones_like(i), bulk)


def _clusters(i: Tensor, rank: int, decay: float, noise: float) -> Tensor:
    level = torch.div(i - 1, max(1, math.ceil(rank / 3)), rounding_mode="floor")
    return torch.where(i <= rank, 1 - 0.3 * level, noise * torch.exp(-decay * (i - rank)))


def _plus_minus(i: Tensor, rank: int, decay: float, noise: float) -> Tensor:
    pair = torch.div(i - 1, 2, rounding_mode="floor")
    sizes = torch.where(i <= rank, 1 - 0.5 * pair / max(1, rank // 2), noise * torch.exp(-decay * (i - rank)))
    return torch.where(i % 2 == 1, sizes, -sizes)


SHAPES: dict[str, Shape] = {
    "power": _power,
    "exponential": _exponential,
    "low_rank_noise": _low_rank_noise,
    "clusters": _clusters,
    "plus_minus": _plus_minus,
}
SpectrumKind = Literal["power", "exponential", "low_rank_noise", "clusters", "plus_minus", "low_rank_diagonal"]
"""A form of the eigenvalues; :func:`spectrum` defines each."""


class RandomTransform:
    """A random orthogonal (unitary, if complex) D x D matrix F S F S' of signs (phases) and cosine (Fourier) transforms.

    Cost: O(D log D) a vector; memory: 2 D entries.
    """

    def __init__(self, size: int, streams: Streams, dtype: torch.dtype, device: torch.device) -> None:
        self.size, self.dtype, self.device = size, dtype, device
        self.signs = [self._signs(streams.at(name)).to(device) for name in ("inner", "outer")]

    def _signs(self, stream: np.random.Generator) -> Tensor:
        if self.dtype.is_complex:
            return torch.from_numpy(np.exp(2j * np.pi * stream.random(self.size))).to(self.dtype)
        return torch.from_numpy(stream.integers(0, 2, self.size, dtype=np.int8) * 2.0 - 1.0).to(self.dtype)

    def apply(self, block: Tensor) -> Tensor:
        """Q @ block."""
        rows = block.T
        for signs in self.signs:
            rows = unitary(rows * signs)
        return rows.T

    def apply_adjoint(self, block: Tensor) -> Tensor:
        """Q* @ block."""
        rows = block.T
        for signs in reversed(self.signs):
            rows = inverse_unitary(rows) * signs.conj()
        return rows.T


class KnownSpectrum(Operator):
    """U diag(values) V*, U and V random fast transforms, the same for Hermitian operators.

    Attributes:
        values: float64, all eigenvalues (singular values, if rectangular), largest magnitude first.
    """

    def __init__(self, values: Tensor, left: RandomTransform, right: RandomTransform, name: str) -> None:
        self.values, self.left, self.right, self.name = values, left, right, name
        self.shape = (left.size, right.size)
        self.dtype, self.device, self.hermitian = left.dtype, left.device, left is right
        self._scale = values.to(self.device, self.dtype)[:, None]

    def exact_eigenvectors(self, k: int) -> InMemory:
        """The eigenvectors (left singular vectors) of the k values largest in magnitude, (D, k)."""
        return InMemory(self.left.apply(self._units(self.shape[0], k)))

    def exact_right_vectors(self, k: int) -> InMemory:
        """The right singular vectors of the k largest singular values, (columns, k)."""
        return InMemory(self.right.apply(self._units(self.shape[1], k)))

    def _units(self, size: int, k: int) -> Tensor:
        if not 1 <= k <= len(self.values):
            raise InvalidArgument(f"k={k}: choose 1 to {len(self.values)}")
        units = torch.zeros(k, size, dtype=self.dtype, device=self.device).T
        units[torch.arange(k, device="cpu"), torch.arange(k, device="cpu")] = 1
        return units

    def _apply(self, block: Tensor) -> Tensor:
        return self.left.apply(self._scaled(self.right.apply_adjoint(block), self.shape[0]))

    def _apply_adjoint(self, block: Tensor) -> Tensor:
        return self.right.apply(self._scaled(self.left.apply_adjoint(block), self.shape[1]))

    def _scaled(self, coordinates: Tensor, size: int) -> Tensor:
        few = len(self.values)
        result = torch.zeros(coordinates.shape[1], size, dtype=self.dtype, device=self.device).T
        result[:few] = coordinates[:few] * self._scale
        return result

    def _fingerprint(self) -> str:
        return fingerprint("known spectrum", self.name, self.shape, self.dtype, self.values)


class LowRankPlusDiagonal(Operator):
    """diag(d) + sum_i (values_i - d_i) u_i u_i*, the u_i on disjoint blocks of coordinates on which d is constant, d_i.

    Attributes:
        values: float64 (rank,), the eigenvalues that stand out; the others are d_i, each of multiplicity (block size - 1).
        diagonal: float64 (rank,), d_i.
    """

    hermitian = True

    def __init__(self, values: Tensor, diagonal: Tensor, directions: Tensor, name: str) -> None:
        self.outliers, self.diagonal, self.directions, self.name = values, diagonal, directions, name
        size = len(directions)
        self.shape, self.dtype, self.device = (size, size), directions.dtype, directions.device
        rank = len(values)
        self.block = torch.arange(size, device=self.device) * rank // size
        counts = torch.bincount(self.block.cpu(), minlength=rank)
        every = torch.cat([values, diagonal.repeat_interleave(counts - 1)])
        self.values = every[every.abs().argsort(descending=True, stable=True)]

    def exact_eigenvectors(self, k: int) -> InMemory:
        """The eigenvectors of the k outlying values, (D, k)."""
        if not 1 <= k <= len(self.outliers):
            raise InvalidArgument(f"k={k}: only the {len(self.outliers)} outlying vectors are defined, the others' spaces are")
        order = self.outliers.abs().argsort(descending=True, stable=True)[:k].to(self.device)
        member = self.block[:, None] == order
        return InMemory(torch.where(member, self.directions[:, None], torch.zeros((), dtype=self.dtype, device=self.device)))

    def _apply(self, block: Tensor) -> Tensor:
        diagonal, extra = (x.to(self.device, self.dtype) for x in (self.diagonal, self.outliers - self.diagonal))
        result = torch.empty(block.shape[1], block.shape[0], dtype=self.dtype, device=self.device)
        for column, target in zip(block.T, result, strict=True):  # one at a time: temporaries of D entries only
            seen = torch.zeros_like(extra).index_add_(0, self.block, self.directions.conj() * column)
            torch.mul((extra * seen)[self.block], self.directions, out=target)
            target.addcmul_(diagonal[self.block], column)
        return result.T

    def predicted_bytes(self, columns: int) -> int:
        """Memory that a product with ``columns`` vectors takes beside them: the result, and six columns."""
        return (columns + 6) * self.shape[0] * self.dtype.itemsize

    def _fingerprint(self) -> str:
        return fingerprint("low rank + diagonal", self.name, self.shape, self.dtype, self.values, self.directions)


@checked
def spectrum(  # noqa: PLR0913 -- what a spectrum can have, all by keyword
    kind: SpectrumKind,
    size: int,
    *,
    columns: int | None = None,
    rank: int = 10,
    decay: float | None = None,
    noise: float = 0.01,
    negative: float = 0.0,
    scale: float = 1.0,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> KnownSpectrum | LowRankPlusDiagonal:
    """An operator with a known spectrum, for tests, examples and benchmarks.

    - "power": ``rank`` ones, then 2^-decay, 3^-decay, ... "exponential": ``rank`` ones, then exp(-decay i).
    - "low_rank_noise": ``rank`` ones above a bulk that falls evenly from ``noise`` to 0.
    - "clusters": three eigenvalues 1, 0.7, 0.4, each about rank/3 times, then ``noise`` times exp(-decay i).
    - "plus_minus": rank/2 pairs x, -x from 1 down to 0.5, then such pairs of ``noise`` times exp(-decay i).
    - "low_rank_diagonal": ``rank`` eigenvalues from 1 down to 0.5 plus a diagonal between ``noise``/2 and ``noise``; its
      eigenvectors live on disjoint blocks of coordinates. Square and Hermitian only.

    The eigenvectors of all others are the columns of a random product of signs and cosine (Fourier, if complex) transforms,
    spread evenly over the coordinates.

    Args:
        kind: one of the above.
        size: D, the number of rows.
        columns: None for a Hermitian operator; else their number: the values are singular values.
        rank: how many values stand out.
        decay: default 1 for "power", 0.1 otherwise.
        noise: size of the rest, relative to the largest value.
        negative: share of the values that get a minus sign, spread evenly; Hermitian kinds but "plus_minus" only.
        scale: of all values.
        dtype: real or complex.
        device: where the operator works.
        seed: of the vectors.

    Returns:
        An operator with ``.values`` (all, largest magnitude first) and ``.exact_eigenvectors(k)``.

    Cost: a product is two transforms forth and two back, O(D log D) a vector; memory: 2 to 4 D entries and a block.

    Raises:
        InvalidArgument: an unknown kind, sizes that do not fit, negative singular values.

    >>> A = spectrum("power", 1000, rank=1, decay=2)
    >>> A.values[:3].tolist() == [1, 1 / 4, 1 / 9], A.shape
    (True, (1000, 1000))
    >>> v = A.exact_eigenvectors(2).to_tensor()
    >>> torch.allclose(A @ v, v * A.values[:2])
    True
    """
    few = size if columns is None else min(size, columns)
    _check(kind, size, columns, rank, noise, negative, dtype)
    device = torch.device(device)
    streams = Streams("spectrum", seed, kind)
    name = f"{kind} {size} {columns} {seed}"
    if kind == "low_rank_diagonal":
        outliers = _with_signs(scale * torch.linspace(1, 0.5, rank, dtype=torch.float64, device="cpu"), negative)
        diagonal = scale * noise * torch.linspace(0.5, 1, rank, dtype=torch.float64, device="cpu")
        return LowRankPlusDiagonal(outliers, diagonal, _directions(size, rank, streams, dtype).to(device), name)
    decay = (1.0 if kind == "power" else 0.1) if decay is None else decay
    values = scale * SHAPES[kind](torch.arange(1, few + 1, dtype=torch.float64, device="cpu"), rank, decay, noise)
    if columns is not None:
        values = values.abs()
    values = _with_signs(values, negative)
    left = RandomTransform(size, streams, dtype, device)
    right = left if columns is None else RandomTransform(columns, Streams("spectrum", seed, f"{kind} right"), dtype, device)
    return KnownSpectrum(values, left, right, name)


def _with_signs(values: Tensor, negative: float) -> Tensor:
    """Minus signs on an evenly spread share of the values, none on the first."""
    turn = torch.floor((torch.arange(len(values), dtype=torch.float64, device="cpu") + 0.5) * negative)
    return torch.where(torch.diff(turn, prepend=turn[:1]) > 0, -values, values)


def _directions(size: int, rank: int, streams: Streams, dtype: torch.dtype) -> Tensor:
    """Entries of orthonormal vectors, each of its own range of places."""
    stream = streams.at("directions")
    raw = torch.from_numpy(stream.standard_normal(size)).to(dtype)
    if dtype.is_complex:
        raw = raw + 1j * torch.from_numpy(stream.standard_normal(size))
    blocks = torch.arange(size, device="cpu") * rank // size
    norms = torch.zeros(rank, dtype=torch.float64, device="cpu").index_add_(0, blocks, raw.abs().double().square()).sqrt()
    directions: Tensor = (raw / norms[blocks]).to(dtype)
    return directions


def _check(kind: str, size: int, columns: int | None, rank: int, noise: float, negative: float, dtype: torch.dtype) -> None:
    if kind not in get_args(SpectrumKind):
        raise InvalidArgument(f"kind={kind!r}: choose one of {', '.join(get_args(SpectrumKind))}")
    if size < 1 or (columns is not None and columns < 1):
        raise InvalidArgument(f"size={size}, columns={columns}: choose at least 1")
    if not 1 <= rank <= (size if columns is None else min(size, columns)):
        raise InvalidArgument(f"rank={rank}: choose 1 to {size if columns is None else min(size, columns)}")
    if not (0 <= negative <= 1) or not 0 <= noise < 1:
        raise InvalidArgument(f"negative={negative}, noise={noise}: shares between 0 and 1")
    if columns is not None and (negative or kind == "low_rank_diagonal"):
        raise InvalidArgument(f"{kind} with negative={negative} and columns={columns}: only square operators have signs")
    if not (dtype.is_floating_point or dtype.is_complex):
        raise InvalidArgument(f"dtype={dtype}: choose a floating-point or complex one")
