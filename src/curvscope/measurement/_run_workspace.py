"""The workspace in a run: products are kept as they come, matrices lie on disk, every small result has a record."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from curvscope.errors import DamagedData, RunNotFound
from curvscope.measurement._results import CERTIFIED, FOUND, KEPT, PLACE, SOLUTION, Results, has_results
from curvscope.measurement._workspace import Known, Workspace
from curvscope.operators.base import Operator
from curvscope.store import Record, Run, checked_name, remove, synchronise_folder
from curvscope.system import Interruptible
from curvscope.tall import Mirrored, OnDisk, TallMatrix, copy, remove_scratch

log = logging.getLogger(__name__)

MEASURED, BASES = "measured", "basis"
STATE, DECISIONS = "state", "decisions"
__all__ = ["BASES", "CERTIFIED", "DECISIONS", "MEASURED", "SOLUTION", "STATE", "InRun"]
MARK = "matrix"
"""In records: the mark of the matrix that they are of."""


class InRun(Workspace):
    """In a run: products are kept as they come, matrices lie on disk, and every small result has a record.

    Args:
        run: locked by this process.
        scope: name of this very solve, a digest of its options: measurements are shared by all scopes, results are not.
        resident: whether the solve works on copies in memory.
        tile_columns: width of the tiles of a basis.
        widest: see :class:`Workspace`.
        on_host: see :class:`Workspace`.
        work: tells when to stop.
    """

    run: Run
    bases, state_name = BASES, STATE
    """Folder of the bases, and record of the state: those of a solve."""

    def __init__(
        self,
        run: Run,
        scope: str,
        *,
        resident: bool,
        tile_columns: int,
        widest: int,
        work: Interruptible,
        on_host: bool = False,
    ) -> None:
        super().__init__(widest, on_host=on_host)
        self.run, self.scope, self.resident, self.tile_columns, self.work = run, scope, resident, tile_columns, work
        self._before: dict[str, float] = {
            name: stage.get("seconds", 0.0) for name, stage in run.manifest.get("stages", {}).items()
        }
        remove_scratch(run.path / MEASURED)
        self.results = Results(run.path, run.records)
        self._durable: dict[str, int] = {}  # columns of each basis that are on the device

    def room(self, rows: int, columns: int, operator: Operator | TallMatrix) -> TallMatrix:
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
                found = self.run.records.read(record)
                assert found is not None, "its name was listed"
                facts = found.facts
                seconds = facts["seconds"]
                check_matrix(matrix, facts.get(MARK))
                matrix.verify(start, stop)
                sound.append(Known(start, min(stop, count), seconds))
            except DamagedData as error:
                log.warning("%s: products %d to %d are measured again", error, start + 1, stop)
                self.run.records.remove(record)
        return sound

    def commit(self, name: str, start: int, stop: int, seconds: float) -> None:
        """See :meth:`Workspace.commit`; on the device before the record says so."""
        # First the columns, then the record that they are there, each forced to the device. In the other order a power failure
        # could leave a record of columns that were never written; in this one it costs at most the block, which is done again.
        OnDisk(self.run.path / MEASURED / f"{name}.zarr").synchronise(start, stop)
        facts = {"seconds": seconds, MARK: OnDisk(self.run.path / MEASURED / f"{name}.zarr").mark}
        self.run.records.write(f"{MEASURED}/{name}/{start:08d}-{stop:08d}", facts, durable=True)
        self.check()

    def working(self, matrix: TallMatrix) -> TallMatrix:
        """See :meth:`Workspace.working`."""
        if not (self.resident and isinstance(matrix, OnDisk)):
            return matrix
        room = self.memory(*matrix.shape, matrix)
        copy(matrix, room)
        return room

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
        """See :meth:`Workspace.keep`; the solution that the run had stays until :meth:`publish`."""
        folder = self.results.begin()
        placed: dict[str, TallMatrix] = {}
        for name, matrix in vectors.items():
            if isinstance(matrix, OnDisk):
                placed[name] = matrix.move(folder / f"{name}.zarr")
                continue
            stored = OnDisk.scratch(self.run.path / MEASURED, *matrix.shape, matrix.dtype, device=matrix.device)
            copy(matrix, stored)
            stored.move(folder / f"{name}.zarr")
            placed[name] = matrix
        # As in commit(): the vectors are on the device before the record names them. They stay in a folder beside the solution
        # that the run had, which is replaced by one rename in publish(): at any moment one of the two is whole.
        synchronise_folder(folder)
        marks = {name: OnDisk(folder / f"{name}.zarr").mark for name in vectors}
        self.run.records.write(
            KEPT, {**facts, "scope": self.scope, "vectors": list(vectors), PLACE: FOUND, MARK: marks}, tensors, durable=True
        )
        self.check()
        return placed

    def kept(self) -> tuple[dict[str, TallMatrix], Record] | None:
        """See :meth:`Workspace.kept`; vectors with a damaged tile are named, and found again."""
        try:
            record = self.run.records.read(KEPT)
            if record is None or record.facts["scope"] != self.scope:
                return None
            place = FOUND if record.facts.get(PLACE) == FOUND else SOLUTION
            vectors: dict[str, TallMatrix] = {}
            for name in record.facts["vectors"]:
                matrix = OnDisk(self.run.path / place / checked_name(f"{name}.zarr", self.run.path / KEPT))
                check_matrix(matrix, record.facts.get(MARK, {}).get(name))
                matrix.verify(0, matrix.shape[1])
                vectors[name] = self.working(matrix)
        except (DamagedData, RunNotFound) as error:
            log.warning("%s: the vectors are computed again", error)
            return None
        return vectors, record

    def finished(self) -> Path | None:
        """See :meth:`Workspace.finished`."""
        return self.run.path / SOLUTION if has_results(self.run.path) and not self.results.pending else None

    def publish(self, describe: Callable[[Path], None], vectors: dict[str, TallMatrix]) -> dict[str, TallMatrix]:
        """See :meth:`Workspace.publish`."""
        folder = self.results.publish(describe)
        return {
            name: OnDisk(folder / matrix.path.name, device=matrix.device) if isinstance(matrix, OnDisk) else matrix
            for name, matrix in vectors.items()
        }

    def basis(self, rows: int, columns: int, operator: Operator | TallMatrix) -> TallMatrix:
        """See :meth:`Workspace.basis`."""
        return self._placed(self._stored(rows, columns, operator))

    def _placed(self, stored: OnDisk, filled: int = 0) -> TallMatrix:
        """A basis on disk, and in memory as well if that is where the solve works."""
        return Mirrored(self.memory(*stored.shape, stored), stored, filled) if self.resident else stored

    def _stored(self, rows: int, columns: int, like: Operator | TallMatrix) -> OnDisk:
        """A new matrix among the bases."""
        taken = {place.name for place in (self.run.path / self.bases).glob("*")}
        name = next(name for number in itertools.count() if (name := f"{number}.zarr") not in taken)
        place = self.run.path / self.bases / name
        return OnDisk.create(place, rows, columns, like.dtype, tile_columns=self.tile_columns, device=like.device)

    def widened(self, basis: TallMatrix, columns: int, filled: int) -> TallMatrix:
        """See :meth:`Workspace.widened`; on disk nothing is copied."""
        if isinstance(basis, Mirrored):
            return self._placed(basis.disk.grow(columns), filled)
        return _disk(basis).grow(columns)

    def rotated(self, basis: TallMatrix, rotation: Tensor, start: int) -> TallMatrix:
        """See :meth:`Workspace.rotated`; the other columns are copied."""
        fresh = self._stored(*basis.shape, basis)
        small = rotation.to(basis.device, basis.dtype)
        if isinstance(basis, Mirrored):
            basis.memory.rotate(rotation, start)
            copy(basis.memory.leading(start + rotation.shape[1]), fresh)
            basis.disk = fresh
            return basis
        seen = basis.leading(start + rotation.shape[0])
        for panel in fresh.panels():
            rows = seen.rows(panel)
            fresh.write_rows(panel, torch.cat([rows[:, :start], rows[:, start:] @ small], dim=1))
        return fresh

    def save_state(self, basis: TallMatrix, facts: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """See :meth:`Workspace.save_state`; on the device, the basis before the record that names it. Then others are removed.

        A tile that holds columns of an earlier state as well is synchronised when it is replaced, see :class:`.OnDisk`.
        """
        stored = _disk(basis)
        place, filled = stored.path, facts["filled"]
        stored.synchronise(self._durable.get(place.name, 0), filled)
        self.run.records.write(self.state_name, {**facts, "basis": place.name, MARK: stored.mark}, tensors, durable=True)
        self._durable = {place.name: filled}
        for other in place.parent.iterdir():
            if other != place:
                remove(other)
        self.check()

    def state(self, operator: Operator) -> tuple[TallMatrix, Record] | None:
        """See :meth:`Workspace.state`; of a damaged basis nothing is used: it cannot be measured again in part."""
        record = self.run.records.read(self.state_name)
        if record is None:
            return None
        name, filled = checked_name(record.facts.get("basis"), self.run.path / self.state_name), record.facts["filled"]
        stored = OnDisk(self.run.path / self.bases / name, device=operator.device)
        if (stored.shape[0], stored.dtype) != (operator.shape[0], operator.dtype) or not 0 <= filled <= stored.shape[1]:
            raise DamagedData(
                f"{stored.path} is {stored.shape[0]} x {stored.shape[1]} of {stored.dtype}, expected are {operator.shape[0]} "
                f"rows of {operator.dtype} and at least {filled} columns: put the matrix back, or begin again elsewhere"
            )
        check_matrix(stored, record.facts.get(MARK))
        stored.verify(0, filled)
        stored.forget(filled)
        return self._placed(stored, filled), record

    def note(self, stage: str, **facts: Any) -> None:
        """See :meth:`Workspace.note`."""
        self.run.note(stage, **facts)

    def seconds_before(self, stage: str) -> float:
        """See :meth:`Workspace.seconds_before`."""
        return self._before.get(stage, 0.0)

    def freeze(self, operator: Operator) -> Operator:
        """See :meth:`Workspace.freeze`."""
        decisions = self.run.manifest[DECISIONS]
        if "products" in decisions or not (report := operator.strategy_report):
            return operator
        decisions["products"] = report
        self.run.save()
        return operator.view(strategy_report=report)

    def recorded_strategy(self) -> dict[str, Any] | None:
        """See :meth:`Workspace.recorded_strategy`."""
        fixed: dict[str, Any] | None = self.run.manifest[DECISIONS].get("products")
        return fixed

    def note_session(self, **facts: Any) -> None:
        """See :meth:`Workspace.note_session`."""
        self.run.manifest["sessions"][-1] |= facts
        self.run.save()

    def check(self) -> None:
        """See :meth:`Workspace.check`."""
        self.work.check()


def _disk(basis: TallMatrix) -> OnDisk:
    stored = basis.disk if isinstance(basis, Mirrored) else basis
    assert isinstance(stored, OnDisk), "of a run"
    return stored


def check_matrix(stored: OnDisk, mark: str | None) -> None:
    """Raise DamagedData where a record is of another matrix than the one at its place; earlier versions noted none."""
    if mark is not None and mark != stored.mark:
        raise DamagedData(f"{stored.path} is another matrix than the one that its record is of: put that one back")
