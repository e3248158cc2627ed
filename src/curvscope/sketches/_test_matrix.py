"""Random test matrices that are never stored: any column, any panel of rows, the same bits every time."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.sketches._kinds import Gaussian, Kind, Phase, Rademacher
from curvscope.sketches._sparse_sign import SparseSign
from curvscope.sketches._ssrft import Ssrft
from curvscope.sketches._streams import Streams
from curvscope.tall import TallMatrix

SketchKind = Literal["gaussian", "rademacher", "sparse_sign", "ssrft", "phase"]
"""A distribution of test matrices; :class:`TestMatrix` describes each."""
KINDS: dict[str, type[Kind]] = {kind.name: kind for kind in (Gaussian, Rademacher, SparseSign, Ssrft, Phase)}


class TestMatrix:
    r"""A D x n random matrix with uncorrelated entries of mean 0 and variance 1; n need not be said.

    A column is a pure function of (kind, seed, role, index) and D: the same bits for any block size, tile, worker and n, and
    on any device (numbers are drawn on the CPU). Roles and neighbouring seeds share nothing: every part has a counter
    stream of its own, keyed by a 128-bit hash. Kinds:

    - ``"gaussian"``: standard normal; what the error bounds of :func:`curvscope.posterior_error` are stated for.
    - ``"rademacher"``: +-1. ``"phase"``: on the complex unit circle; complex operators only.
    - ``"sparse_sign"``: about 2 log2(n) - 2 entries a row; made and applied at a fraction of the cost of the others.
    - ``"ssrft"``: orthogonal columns by DCTs (FFTs for complex operators); O(D log D) a column, no cheap panels of rows.

    Args:
        kind: one of the above.
        rows: D.
        seed: any integer.
        role: what it is for ("right", "left", ...); another role gives an independent matrix.
        dtype: real or complex floating point; independent entries are drawn in double precision and rounded.
        device: where the tensors shall lie.

    Raises:
        InvalidArgument: an unknown kind, no rows, complex numbers asked of a real dtype.

    Cost: 1 (sparse_sign) to 10 ns (gaussian) an entry and thread; memory: what is asked for.
    Source: Tropp, Yurtsever, Udell, Cevher (SISC 2019), section 3.

    >>> omega = TestMatrix("gaussian", 5, seed=0, role="right")
    >>> torch.equal(omega.columns(0, 3)[:, 1:], omega.columns(1, 3))
    True
    >>> torch.equal(omega.panel(slice(2, 4), 0, 3), omega.columns(0, 3)[2:4])
    True
    """

    __test__ = False  # not a test case, whatever pytest thinks of the name

    def __init__(
        self,
        kind: str,
        rows: int,
        *,
        seed: int,
        role: str,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        if rows < 1:
            raise InvalidArgument(f"a test matrix needs at least 1 row, got {rows}")
        check_kind(kind, dtype)
        self.kind, self.rows, self.seed, self.role = kind, rows, seed, role
        self.dtype, self.device = dtype, torch.device(device)
        self._made = KINDS[kind](rows, Streams(kind, seed, role), dtype)

    def columns(self, start: int, stop: int) -> Tensor:
        """Columns start..stop, (D, stop - start), each contiguous."""
        return self.panel(slice(0, self.rows), start, stop)

    def panel(self, rows: slice, start: int, stop: int) -> Tensor:
        """The given rows of columns start..stop."""
        first, last, _ = rows.indices(self.rows)
        return self._made.panel(first, max(first, last), start, stop).to(self.device)

    def adjoint_multiply(self, matrix: TallMatrix, start: int, stop: int) -> Tensor:
        r"""(Columns start..stop)\* @ matrix, (stop - start, m), in double precision on the CPU.

        The test matrix is made panel by panel and never stored.

        Cost: 2 D m (stop - start) operations; sparse_sign about 4 D m log2(stop); ssrft O(D m log D).
        Memory: one panel of both.

        >>> from curvscope.tall import InMemory
        >>> psi = TestMatrix("sparse_sign", 6, seed=0, role="left", dtype=torch.float64)
        >>> torch.allclose(psi.adjoint_multiply(InMemory(torch.eye(6).double()), 0, 4), psi.columns(0, 4).T)
        True
        """
        if matrix.shape[0] != self.rows:
            raise InvalidArgument(f"the test matrix has {self.rows} rows, the matrix {matrix.shape[0]}")
        return self._made.adjoint_multiply(matrix, start, stop)

    def __repr__(self) -> str:
        return f"TestMatrix({self.kind!r}, {self.rows}, seed={self.seed}, role={self.role!r}, dtype={self.dtype})"


def check_kind(kind: str, dtype: torch.dtype) -> None:
    """Raise InvalidArgument unless there are test matrices of this kind and dtype."""
    if kind not in KINDS:
        raise InvalidArgument(f"sketch={kind!r}: choose one of {', '.join(sorted(KINDS))}")
    if not (dtype.is_complex or dtype.is_floating_point):
        raise InvalidArgument(f"test matrices are floating point, got {dtype}")
    if not dtype.is_complex and not KINDS[kind].real:
        raise InvalidArgument(f"{kind} test matrices are complex, the operator is {dtype}: choose sketch='rademacher'")
