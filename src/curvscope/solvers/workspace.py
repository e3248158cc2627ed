"""Where the matrices of a solve lie and what of it is kept: in memory and nothing, or in a run and everything."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from curvscope.errors import DamagedData
from curvscope.execution.interrupt import Interruptible
from curvscope.execution.run import MANIFEST, Run
from curvscope.operators import CurvatureOperator, Operator
from curvscope.solvers import storage
from curvscope.store import Record, remove
from curvscope.tall import InMemory, Mirrored, OnDisk, TallMatrix
from curvscope.tall.disk import remove_scratch

log = logging.getLogger(__name__)

MEASURED, BASES = "measured", "basis"
KEPT, STATE, DECISIONS = "kept", "state", "decisions"
SOLUTION = "solution"
WIDEST_BLOCK = 32
"""Most vectors a product call unless one asks for more."""


class Known(NamedTuple):
    """A block of products that a run has: columns start..stop and the seconds that they took."""

    start: int
    stop: int
    seconds: float


@dataclass(frozen=True)
class Fit:
    """How a solve fits into memory.

    Attributes:
        block_size: columns a product call.
        resident: whether its matrices lie in memory.
        products: bytes that are left for products; None: nobody asked for a bound.
        widest: most columns a product call, when residuals are measured.
    """

    block_size: int
    resident: bool
    products: int | None
    widest: int = WIDEST_BLOCK


class Workspace:
    """In memory: matrices live as long as the solve, and everything is computed.

    This is the whole contract between the solvers and a run; :class:`InRun` keeps what passes through it.

    Attributes:
        run: the run, or None.
        scope: name of this very solve in it.
        widest: most columns a product call, when residuals are measured.
    """

    run: Run | None = None
    scope = ""

    def __init__(self, widest: int = WIDEST_BLOCK) -> None:
        self.widest = widest

    def room(self, rows: int, columns: int, operator: Operator) -> TallMatrix:
        """An empty matrix for the solve's own use."""
        return InMemory.empty(rows, columns, operator.dtype, operator.device)

    def measurements(self, name: str, rows: int, count: int, kept: int, block_size: int, operator: Operator) -> TallMatrix:
        """Where ``count`` columns of products go, of which the solve needs the first ``kept`` again."""
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
        """What :meth:`keep` got from an earlier session of this very solve."""
        return None

    def basis(self, rows: int, columns: int, operator: Operator) -> TallMatrix:
        """Room for a basis that grows by columns; a run keeps it once :meth:`save_state` was called."""
        return self.room(rows, columns, operator)

    def widened(self, basis: TallMatrix, columns: int, filled: int) -> TallMatrix:
        """The basis with room for more columns; its first ``filled`` ones are as they were."""
        wider = InMemory.empty(basis.shape[0], columns, basis.dtype, basis.device)
        wider.write(0, basis.columns(0, filled))
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
        """What :meth:`save_state` got last, in this session or an earlier one."""
        return None

    def note(self, stage: str, **facts: Any) -> None:
        """Progress of a stage, for those who look at the run."""

    def seconds_before(self, stage: str) -> float:
        """What earlier sessions spent on a stage."""
        return 0.0

    def freeze(self, operator: Operator) -> None:
        """Called after each product: from the first one on, a run computes them all in the same way."""

    def check(self) -> None:
        """Called where everything is saved: raises Interrupted if Ctrl-C was pressed."""


class InRun(Workspace):
    """In a run: products are kept as they come, matrices lie on disk, and every small result has a record.

    Args:
        run: locked by this process.
        scope: name of this very solve, a digest of its options: measurements are shared by all scopes, results are not.
        resident: whether the solve works on copies in memory.
        tile_columns: width of the tiles of a basis.
        widest: see :class:`Workspace`.
        work: tells when to stop.
    """

    def __init__(self, run: Run, scope: str, *, resident: bool, tile_columns: int, widest: int, work: Interruptible) -> None:
        super().__init__(widest)
        self.run, self.scope, self.resident, self.tile_columns, self.work = run, scope, resident, tile_columns, work
        self._before = {name: stage.get("seconds", 0.0) for name, stage in run.manifest.get("stages", {}).items()}
        remove_scratch(run.path / MEASURED)

    def room(self, rows: int, columns: int, operator: Operator) -> TallMatrix:
        """See :meth:`Workspace.room`."""
        if self.resident:
            return super().room(rows, columns, operator)
        return OnDisk.scratch(self.run.path / MEASURED, rows, columns, operator.dtype, device=operator.device)

    def measurements(self, name: str, rows: int, count: int, kept: int, block_size: int, operator: Operator) -> OnDisk:
        """See :meth:`Workspace.measurements`; all of them are kept, those of a smaller sketch are used again."""
        place = self.run.path / MEASURED / f"{name}.zarr"
        if not place.exists():
            return OnDisk.create(place, rows, count, operator.dtype, tile_columns=block_size, device=operator.device)
        matrix = OnDisk(place, device=operator.device)
        return matrix if matrix.shape[1] >= count else matrix.grow(count)

    def known(self, name: str, count: int) -> list[Known]:
        """See :meth:`Workspace.known`; a block with a damaged tile is named, forgotten, and so measured again."""
        matrix = OnDisk(self.run.path / MEASURED / f"{name}.zarr")
        sound = []
        for record in self.run.records.names(f"{MEASURED}/{name}"):
            start, stop = (int(number) for number in record.rsplit("/", 1)[1].split("-"))
            if start >= count:
                continue
            try:
                seconds = self.run.records.read(record).facts["seconds"]
                matrix.verify(start, stop)
                sound.append(Known(start, min(stop, count), seconds))
            except DamagedData as error:
                log.warning("%s: products %d to %d are measured again", error, start + 1, stop)
                self.run.records.remove(record)
        return sound

    def commit(self, name: str, start: int, stop: int, seconds: float) -> None:
        """See :meth:`Workspace.commit`."""
        self.run.records.write(f"{MEASURED}/{name}/{start:08d}-{stop:08d}", {"seconds": seconds})
        self.check()

    def working(self, matrix: TallMatrix) -> TallMatrix:
        """See :meth:`Workspace.working`."""
        return InMemory(matrix.to_tensor()) if self.resident and isinstance(matrix, OnDisk) else matrix

    def remember(self, name: str, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """See :meth:`Workspace.remember`; a damaged record is named and computed again."""
        place = f"{self.scope}/{name}"
        try:
            record = self.run.records.read(place)
        except DamagedData as error:
            log.warning("%s: computed again", error)
            record = None
        if record is not None:
            return record.tensors
        tensors = compute()
        self.run.records.write(place, {}, tensors)
        self.check()
        return tensors

    def keep(self, vectors: dict[str, TallMatrix], tensors: dict[str, Tensor], facts: dict[str, Any]) -> dict[str, TallMatrix]:
        """See :meth:`Workspace.keep`; the solution that the run had is removed."""
        folder = self.run.path / SOLUTION
        self.run.records.remove(KEPT)
        (folder / storage.TABLE).unlink(missing_ok=True)
        folder.mkdir(exist_ok=True)
        placed = {}
        for name, matrix in vectors.items():
            if isinstance(matrix, InMemory):
                stored = OnDisk.scratch(self.run.path / MEASURED, *matrix.shape, matrix.dtype, device=matrix.device)
                stored.write(0, matrix.to_tensor())
                stored.move(folder / f"{name}.zarr")
                placed[name] = matrix
            else:
                placed[name] = matrix.move(folder / f"{name}.zarr")
        self.run.records.write(KEPT, {**facts, "scope": self.scope, "vectors": list(vectors)}, tensors)
        self.check()
        return placed

    def kept(self) -> tuple[dict[str, TallMatrix], Record] | None:
        """See :meth:`Workspace.kept`; vectors with a damaged tile are named, and found again."""
        try:
            record = self.run.records.read(KEPT)
            if record is None or record.facts["scope"] != self.scope:
                return None
            vectors = {}
            for name in record.facts["vectors"]:
                matrix = OnDisk(self.run.path / SOLUTION / f"{name}.zarr")
                matrix.verify(0, matrix.shape[1])
                vectors[name] = self.working(matrix)
        except DamagedData as error:
            log.warning("%s: the vectors are computed again", error)
            return None
        return vectors, record

    def basis(self, rows: int, columns: int, operator: Operator) -> TallMatrix:
        """See :meth:`Workspace.basis`."""
        taken = {place.name for place in (self.run.path / BASES).glob("*")}
        number = next(number for number in itertools.count() if f"{number}.zarr" not in taken)
        place = self.run.path / BASES / f"{number}.zarr"
        stored = OnDisk.create(place, rows, columns, operator.dtype, tile_columns=self.tile_columns, device=operator.device)
        return Mirrored(stored) if self.resident else stored

    def widened(self, basis: TallMatrix, columns: int, filled: int) -> TallMatrix:
        """See :meth:`Workspace.widened`; on disk nothing is copied."""
        if isinstance(basis, Mirrored):
            return Mirrored(basis.disk.grow(columns), filled)
        return basis.grow(columns)

    def rotated(self, basis: TallMatrix, rotation: Tensor, start: int) -> TallMatrix:
        """See :meth:`Workspace.rotated`; the other columns are copied."""
        fresh = self.basis(*basis.shape, basis)
        small = rotation.to(basis.device, basis.dtype)
        if isinstance(basis, Mirrored):
            basis.rotate(rotation, start)
            fresh.write(0, basis.columns(0, start + rotation.shape[1]))
            return fresh
        seen = basis.leading(start + rotation.shape[0])
        for panel in fresh.panels():
            rows = seen.rows(panel)
            fresh.write_rows(panel, torch.cat([rows[:, :start], rows[:, start:] @ small], dim=1))
        return fresh

    def save_state(self, basis: TallMatrix, facts: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """See :meth:`Workspace.save_state`; other bases are removed."""
        place = _disk(basis).path
        self.run.records.write(STATE, {**facts, "basis": place.name}, tensors)
        for other in place.parent.iterdir():
            if other != place:
                remove(other)
        self.check()

    def state(self, operator: Operator) -> tuple[TallMatrix, Record] | None:
        """See :meth:`Workspace.state`; of a damaged basis nothing is used: it cannot be measured again in part."""
        record = self.run.records.read(STATE)
        if record is None:
            return None
        stored = OnDisk(self.run.path / BASES / record.facts["basis"], device=operator.device)
        stored.verify(0, record.facts["filled"])
        return (Mirrored(stored, record.facts["filled"]) if self.resident else stored), record

    def note(self, stage: str, **facts: Any) -> None:
        """See :meth:`Workspace.note`."""
        self.run.note(stage, **facts)

    def seconds_before(self, stage: str) -> float:
        """See :meth:`Workspace.seconds_before`."""
        return self._before.get(stage, 0.0)

    def freeze(self, operator: Operator) -> None:
        """See :meth:`Workspace.freeze`."""
        decisions = self.run.manifest[DECISIONS]
        if isinstance(operator, CurvatureOperator) and "products" not in decisions:
            decisions["products"] = operator.strategy_report
            self.run.save()
            operator.replay(decisions["products"])

    def check(self) -> None:
        """See :meth:`Workspace.check`."""
        self.work.check()


@contextmanager
def workspace(
    run: storage.Place | Run | None,
    operator: Operator,
    options: dict[str, Any],
    *,
    free: Iterable[str] = (),
    fitted: Fit | None = None,
) -> Iterator[Workspace]:
    """The workspace of a solve: that of the run at a path, made or gone on with, or one in memory.

    Args:
        run: where; None: in memory.
        operator: what is measured; its way to compute products is taken from the run, so that they have the same bits.
        options: of the solve.
        free: names of the options that may differ from those that the run was begun with.
        fitted: how the solve fits into memory; None: it does. A run that was begun on disk stays there.

    Raises:
        RunConflict: the run is another solve's (each difference is named), or another process works on it.
    """
    fitted = fitted or Fit(options.get("block_size", 1), True, None)
    with _bounded(operator, fitted.products):
        if run is None:
            yield Workspace(fitted.widest)
            return
        opened = run if isinstance(run, Run) else Run.resume(run, kind="eigs", options={})
        with opened.session() as work:
            opened.claim("operator", _described(operator))
            opened.claim("solve", options, free=free)
            decisions = opened.manifest.setdefault(DECISIONS, {})
            resident = decisions["resident"] = fitted.resident and decisions.get("resident", True)
            widest = decisions["widest"] = min(fitted.widest, decisions.get("widest", fitted.widest))
            width = fitted.block_size
            with _replayed(operator, decisions.get("products")):
                yield InRun(opened, scope_of(options), resident=resident, tile_columns=width, widest=widest, work=work)


@contextmanager
def _bounded(operator: Operator, memory: int | None) -> Iterator[None]:
    """Products keep within ``memory`` bytes while the block runs, where the operator can and was not told otherwise."""
    if memory is None or not isinstance(operator, CurvatureOperator) or operator.memory is not None:
        yield
        return
    operator.memory = memory
    try:
        yield
    finally:
        operator.memory = None


@contextmanager
def _replayed(operator: Operator, report: dict[str, Any] | None) -> Iterator[None]:
    """Products are computed as an earlier session did, while the block runs."""
    if isinstance(operator, CurvatureOperator):
        operator.replay(report)
    try:
        yield
    finally:
        if isinstance(operator, CurvatureOperator):
            operator.replay(None)


def _described(operator: Operator) -> dict[str, Any]:
    return {
        "kind": type(operator).__name__,
        "fingerprint": operator.fingerprint,
        "shape": list(operator.shape),
        "dtype": str(operator.dtype).removeprefix("torch."),
        "device": str(operator.device),
    }


def begun_with(run: storage.Place | Run | None, option: str) -> Any:
    """The value of an option of the solve that a run was begun with; None if it was not."""
    return _manifest(run).get("solve", {}).get(option)


def was_begun(run: storage.Place | Run | None, operator: Operator) -> bool:
    """Whether a run has measurements of this very operator."""
    return begun_with(run, "method") is not None and _manifest(run)["operator"]["fingerprint"] == operator.fingerprint


def _manifest(run: storage.Place | Run | None) -> dict[str, Any]:
    if run is None or (not isinstance(run, Run) and not (Path(run) / MANIFEST).exists()):
        return {}
    return (run if isinstance(run, Run) else Run.open(run)).manifest


def _disk(basis: TallMatrix) -> OnDisk:
    return basis.disk if isinstance(basis, Mirrored) else basis


def scope_of(options: dict[str, Any]) -> str:
    """A name for a solve: its method and a digest of all its options."""
    digest = hashlib.blake2b(json.dumps(options, sort_keys=True).encode(), digest_size=6).hexdigest()
    return f"{options.get('method', 'solve')}-{digest}"
