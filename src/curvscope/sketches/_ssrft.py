"""Scrambled, subsampled randomised trigonometric transforms: orthogonal columns, applied by FFTs."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.sketches._kinds import Kind
from curvscope.sketches._transforms import inverse_unitary, unitary
from curvscope.tall import TallMatrix, small_dtype

COLUMNS_AT_A_TIME = 2
"""Columns of a matrix transformed at a time: as fast as more, which memory would hold several times."""


class Ssrft(Kind):
    r"""The columns of sqrt(D) (R F \Pi' F \Pi)*: orthogonal, of norm sqrt(D).

    \Pi, \Pi' permute and multiply by signs (phases, for complex dtypes), F is the orthonormal DCT (FFT), R picks coordinates
    without replacement (Tropp et al. 2019, section 3.2). Made by whole columns: a panel of rows costs as much as all rows.

    Cost: O(D log D) a column, made or applied; memory: two permutations and two sets of signs, 24 to 48 bytes a row.
    """

    name = "ssrft"

    @classmethod
    def row_bytes(cls, itemsize: int) -> int:
        """See :meth:`Kind.row_bytes`; permutations and signs of both, and the transforms of one, as measured."""
        return 60 + 10 * itemsize

    def panel(self, first: int, last: int, start: int, stop: int) -> Tensor:
        """See :meth:`Kind.panel`."""
        self._check(stop)
        block = torch.empty(stop - start, last - first, dtype=self.dtype, device="cpu")
        for column in range(start, stop):  # one at a time: the bits of a batched FFT depend on the batch
            x = torch.zeros(self.rows, dtype=self.dtype, device="cpu")
            x[self._picked[column]] = self.rows**0.5
            for permutation, signs in reversed(self._scrambles):
                scrambled = inverse_unitary(x) * signs.conj()
                x = torch.empty_like(scrambled)
                x[permutation] = scrambled
            block[column - start] = x[first:last]
        return block.T

    def adjoint_multiply(self, matrix: TallMatrix, start: int, stop: int) -> Tensor:
        """See :meth:`Kind.adjoint_multiply`; by FFTs of the matrix's columns."""
        self._check(stop)
        result = torch.empty(stop - start, matrix.shape[1], dtype=small_dtype(self.dtype), device="cpu")
        for low in range(0, matrix.shape[1], COLUMNS_AT_A_TIME):
            high = min(low + COLUMNS_AT_A_TIME, matrix.shape[1])
            x = matrix.columns(low, high).T
            for permutation, signs in self._scrambles:
                x = unitary(x[:, permutation.to(x.device)] * signs.to(x.device))
            result[:, low:high] = x[:, self._picked[start:stop].to(x.device)].T.cpu() * self.rows**0.5
        return result

    def _check(self, stop: int) -> None:
        if stop > self.rows:
            raise InvalidArgument(f"an ssrft of {self.rows} rows has {self.rows} columns, column {stop - 1} was asked for")

    @cached_property
    def _picked(self) -> Tensor:
        return torch.from_numpy(self.streams.at("pick").permutation(self.rows))

    @cached_property
    def _scrambles(self) -> list[tuple[Tensor, Tensor]]:
        """(permutation, signs) of both scrambles, in the order in which they are applied."""
        made = []
        for name in ("first", "second"):
            permutation = self.streams.at(f"{name} permutation").permutation(self.rows)
            stream = self.streams.at(f"{name} signs")
            if self.dtype.is_complex:
                signs = np.exp(2j * np.pi * stream.random(self.rows))
            else:
                signs = stream.integers(0, 2, self.rows, dtype=np.int8) * 2.0 - 1.0
            made.append((torch.from_numpy(permutation), torch.from_numpy(signs).to(self.dtype)))
        return made
