"""Where a run keeps its results: the old ones stay, whole, until the new ones are complete."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from curvscope.errors import RunNotFound
from curvscope.measurement._storage import TABLE
from curvscope.store import Records, draft_beside, put_in_place, remove, synchronise

SOLUTION, CERTIFIED = "solution", "certified"
"""The pairs of a run; and these improved and certified in higher precision, where that was done."""
FOUND = "found"
"""Vectors of a solve whose residuals are still to be measured; once it has a table it takes the place of the solution."""
KEPT, PLACE = "kept", "place"


def results_of(run: Path) -> Path:
    """Return the folder that holds the results of a run: the newest that are complete.

    Between two renames, and after a process died there, the new results lie complete in ``found``.

    Raises:
        RunNotFound: the run has none yet.
    """
    for name in (SOLUTION, FOUND, SOLUTION):  # looked at twice, as a rename may fall between
        if (run / name / TABLE).is_file():
            return run / name
    raise RunNotFound(f"{run} has no results yet: run the command that made it again")


def has_results(run: Path) -> bool:
    """Return whether a run has results, of this or an earlier session."""
    return any((run / name / TABLE).is_file() for name in (SOLUTION, FOUND, SOLUTION))


class Results:
    """The results of a run in the hands of the process that holds its lock.

    New vectors lie in ``found``, with a record that says so; when their table is complete the folder takes the place of
    ``solution`` by a rename. Whatever a process that dies leaves, the next one finds either the old results or the new ones.

    Args:
        run: folder of the run.
        records: of the run; the record :data:`KEPT` tells of which solve the kept vectors are.
    """

    def __init__(self, run: Path, records: Records) -> None:
        self.run, self.records = run, records
        if (run / FOUND / TABLE).is_file():  # complete: a process died while it put them in place
            self._put_in_place()

    def begin(self) -> Path:
        """Return the folder for new vectors, empty; the old results stay."""
        self.records.remove(KEPT)
        if self.records.folder.is_dir():
            synchronise(self.records.folder)  # or the old record would come back after a power failure, and speak of these
        folder = self.run / FOUND
        remove(folder)
        folder.mkdir()
        return folder

    @property
    def pending(self) -> bool:
        """True if there are new vectors that are no result yet."""
        return (self.run / FOUND).is_dir()

    def publish(self, describe: Callable[[Path], None]) -> Path:
        """Write the table of the results, ``describe(folder)``, and let new ones take their place. Returns their folder."""
        describe(self.run / (FOUND if self.pending else SOLUTION))
        if self.pending:
            self._put_in_place()
        return self.run / SOLUTION

    def _put_in_place(self) -> None:
        record = self.records.read(KEPT)
        if record is not None:
            self.records.write(KEPT, {**record.facts, PLACE: SOLUTION}, record.tensors, durable=True)
        put_aside(self.run / CERTIFIED)  # it is of the old pairs
        put_in_place(self.run / FOUND, self.run / SOLUTION)


def put_aside(folder: Path) -> None:
    """Remove a folder so that nobody ever sees a part of it."""
    if folder.exists() or folder.is_symlink():
        aside = draft_beside(folder)
        folder.rename(aside)
        synchronise(folder.parent)
        remove(aside)
