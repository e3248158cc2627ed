"""Where the matrices of a solve lie and what of it is kept: the contract between the solvers and a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from curvscope.operators.base import Operator
from curvscope.store import Record, Run
from curvscope.tall import InMemory, OnDisk, OnHost, TallMatrix, copy

if TYPE_CHECKING:
    from curvscope.measurement._panels import Panels

WIDEST_BLOCK = 32
"""Most vectors a product call unless one asks for more."""


class Known(NamedTuple):
    """A block of products that a run has: columns start..stop and the seconds that they took."""

    start: int
    stop: int
    seconds: float


@dataclass(frozen=True)
class Fit:
    """Placement of a solve in memory.

    Attributes:
        block_size: columns a product call.
        resident: whether its matrices lie in memory.
        on_host: in memory, but the host's: the operator is on a GPU, whose own they do not fit.
        products: bytes that are left for products; None: nobody asked for a bound.
        widest: most columns a product call, when residuals are measured.
        disk: bytes that a run will take.
    """

    block_size: int
    resident: bool
    products: int | None
    widest: int = WIDEST_BLOCK
    disk: int = 0
    on_host: bool = False


class Workspace:
    """In memory: matrices live as long as the solve, and everything is computed.

    This is the whole contract between the solvers and a run; :class:`InRun` keeps what passes through it.

    Attributes:
        run: the run, or None.
        scope: name of this very solve in it.
        widest: most columns a product call, when residuals are measured.
        on_host: whether matrices in memory are in the host's, whatever the operator is on.
        products: bytes that products may use; None: nobody asked for a bound.
        panels: who re-orthogonalises against a basis on disk; None: this process.
    """

    run: Run | None = None
    scope = ""
    panels: Panels | None = None
    products: int | None = None

    def __init__(self, widest: int = WIDEST_BLOCK, *, on_host: bool = False) -> None:
        self.widest, self.on_host = widest, on_host

    def room(self, rows: int, columns: int, operator: Operator | TallMatrix) -> TallMatrix:
        """An empty matrix for the solve's own use."""
        return self.memory(rows, columns, operator)

    def memory(self, rows: int, columns: int, like: Operator | TallMatrix) -> TallMatrix:
        """An empty matrix in memory, of the dtype of an operator or a matrix, to be worked on where that is."""
        return (OnHost if self.on_host else InMemory).empty(rows, columns, like.dtype, like.device)

    def measurements(self, name: str, rows: int, count: int, kept: int, block_size: int, operator: Operator) -> TallMatrix:
        """Return a matrix for ``count`` columns of products, of which the solve reads the first ``kept`` again."""
        return self.room(rows, kept, operator)

    def known(self, name: str, count: int) -> list[Known]:
        """The blocks of these measurements that were made already, in order."""
        return []

    def commit(self, name: str, start: int, stop: int, seconds: float) -> None:
        """Columns start..stop of these measurements are written: they need not be made again."""

    def working(self, matrix: TallMatrix) -> TallMatrix:
        """The matrix, in memory if that is where the solve works; never one that it may write to."""
        return matrix

    def remember(self, name: str, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Small results by name: what was kept under it, or what ``compute`` gives."""
        return compute()

    def keep(self, vectors: dict[str, TallMatrix], tensors: dict[str, Tensor], facts: dict[str, Any]) -> dict[str, TallMatrix]:
        """Keep what the solve found, before it is checked; returns the vectors, where they lie now."""
        return vectors

    def kept(self) -> tuple[dict[str, TallMatrix], Record] | None:
        """Return what :meth:`keep` stored in an earlier session of this solve."""
        return None

    def finished(self) -> Path | None:
        """Return the folder with the results of this very solve, where a session finished it; None otherwise."""
        return None

    def publish(self, describe: Callable[[Path], None], vectors: dict[str, TallMatrix]) -> dict[str, TallMatrix]:
        """Complete what :meth:`keep` kept: ``describe(folder)`` writes the table. Returns the vectors, where they lie now."""
        return vectors

    def basis(self, rows: int, columns: int, operator: Operator | TallMatrix) -> TallMatrix:
        """Room for a basis that grows by columns; a run keeps it once :meth:`save_state` was called."""
        return self.room(rows, columns, operator)

    def widened(self, basis: TallMatrix, columns: int, filled: int) -> TallMatrix:
        """The basis with room for more columns; its first ``filled`` ones are as they were."""
        wider = self.memory(basis.shape[0], columns, basis)
        copy(basis.leading(filled), wider)
        return wider

    def rotated(self, basis: TallMatrix, rotation: Tensor, start: int) -> TallMatrix:
        """The basis with its columns start..start+p replaced by (columns start..start+m) @ rotation, for an (m, p) rotation.

        In memory the basis itself is changed; in a run it stays until :meth:`save_state`.
        """
        basis.rotate(rotation, start)
        return basis

    def save_state(self, basis: TallMatrix, facts: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Keep an iteration's state: what it has in small numbers, and which basis goes with them."""

    def state(self, operator: Operator) -> tuple[TallMatrix, Record] | None:
        """Return what :meth:`save_state` stored last, in this session or an earlier one."""
        return None

    def note(self, stage: str, **facts: Any) -> None:
        """Progress of a stage, for those who look at the run."""

    def seconds_before(self, stage: str) -> float:
        """Return the seconds that earlier sessions spent on a stage."""
        return 0.0

    def freeze(self, operator: Operator) -> Operator:
        """Return the operator for further products: in a run, from the first one on, all are computed in the same way."""
        return operator

    def recorded_strategy(self) -> dict[str, Any] | None:
        """Return the strategy that :meth:`freeze` fixed, or None."""
        return None

    def note_session(self, **facts: Any) -> None:
        """Something about this session, for those who look at the run."""

    def check(self) -> None:
        """Called where everything is saved: raises Interrupted if Ctrl-C was pressed."""


def output_like(matrix: TallMatrix) -> TallMatrix:
    """Return a matrix of this shape to write to: the given one in memory, a new one on disk."""
    return matrix.empty_like(matrix.shape[1]) if isinstance(matrix, OnDisk) else matrix
