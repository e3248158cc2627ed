"""A run is a directory: a readable manifest, the measurements as they come, the results, the report."""

from __future__ import annotations

import errno
import json
import logging
import os
import platform
import stat
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from curvscope.errors import DamagedData, RunConflict
from curvscope.store._files import is_draft, make_folder, read_json, remove_drafts, write_text
from curvscope.store._lock import LOCK, Lock, holder
from curvscope.store._manifest import FORMAT, MANIFEST, read_manifest, write_manifest
from curvscope.store._records import Records
from curvscope.store._seals import new_mark, sealed, unsealed
from curvscope.store._untrusted import check_folder, shown
from curvscope.system import Interruptible

RECORDS, ID = "records", "id"
SOLVING, CERTIFYING = "solve", "certify"
SECONDS_BETWEEN_NOTES = 2.0


ELSEWHERE = "Run the same again in a directory that stays"
log = logging.getLogger(__name__)


class Run:
    """The directory of one run. Files appear in it whole or not at all.

    ``manifest`` holds what the run is of (``kind``, ``options``, and whatever :meth:`claim` recorded), the ``stages`` that were
    begun with their progress, and the ``sessions``: each process that worked on it, with its command, versions and system.

    >>> import tempfile
    >>> run = Run.create(Path(tempfile.mkdtemp()) / "run", kind="example", options={"k": 3})
    >>> Run.open(run.path).manifest["options"]
    {'k': 3}
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path, self.manifest = path, manifest
        self.records = Records(path / RECORDS, manifest.get(ID))
        self._noted = 0.0
        self._lock: Lock | None = None
        self.work: Interruptible | None = None
        """The session that this process has, if it has one."""

    @classmethod
    def create(cls, path: str | os.PathLike[str], *, kind: str, options: dict[str, Any]) -> Run:
        """Make the directory and its manifest.

        Raises:
            RunConflict: the path is a file, or a directory with something in it.
        """
        run = cls.planned(path, kind=kind, options=options)
        run.path.mkdir(parents=True, exist_ok=True)
        run.save()
        return run

    @classmethod
    def planned(cls, path: str | os.PathLike[str], *, kind: str, options: dict[str, Any]) -> Run:
        """As :meth:`create`, but nothing is written before the first :meth:`session`."""
        check_free(path)
        begun = {"format": FORMAT, "kind": kind, "options": options, ID: new_mark(), **_session(), "stages": {}, "sessions": []}
        return cls(Path(path), begun)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Run:
        """An existing run, to look at or to resume. Nothing is locked, and nothing written.

        Raises:
            RunNotFound: there is none, or its manifest cannot be read. DamagedData: its manifest was altered, or the folder
                holds links, or files that are none.
        """
        folder = usable_path(path)
        return cls(folder, read_manifest(folder))

    @classmethod
    def resume(cls, path: str | os.PathLike[str], *, kind: str, options: dict[str, Any], free: Iterable[str] = ()) -> Run:
        """The run of this kind and these options at ``path``, or one to be made there when its first session begins.

        Args:
            path: a directory with such a run in it, an empty one, or one that does not exist.
            kind: what sort of work.
            options: what it is of; see :meth:`claim`.
            free: names of options that may differ.

        Raises:
            RunConflict: something else is there; every difference is named.
        """
        folder = usable_path(path)
        if not (folder / MANIFEST).exists():
            return cls.planned(folder, kind=kind, options=options)
        run = cls.open(folder)
        check_can_be_made(folder)
        if run.manifest["kind"] != kind:
            raise RunConflict(f"{folder} is a run of {run.manifest['kind']!r}, not of {kind!r}: choose another directory")
        run.claim("options", options, free=free)
        return run

    def claim(self, section: str, facts: dict[str, Any], *, free: Iterable[str] = ()) -> None:
        """Record facts that must stay the same as long as the run lasts, or compare them with what was recorded.

        Facts in ``free`` may change; the manifest then holds the new ones.

        Raises:
            RunConflict: some are different; each is named with both values.
        """
        facts, known = json.loads(json.dumps(facts)), self.manifest.get(section)
        if known:
            differing = differences(known, facts, free)
            if differing:
                raise RunConflict(
                    f"{self.path} is not this run: {'; '.join(differing)}. Use the run's own, or choose another directory"
                )
        if known != facts:
            self.manifest[section] = facts
            if self.path.exists():
                self.save()

    @contextmanager
    def session(self, work: str = SOLVING, *, at_once: bool = False) -> Iterator[Interruptible]:
        """Work on the run: it is locked, leftovers are cleared, Ctrl-C waits for the block in hand.

        Args:
            work: goes into the manifest: how far a solve is, the last session that solved tells.
            at_once: Ctrl-C ends the work where it is: for work whose parts are written whole, and may take hours.

        Raises:
            RunConflict: another process works on it, or the folder may not be written to. DamagedData: it holds links.
        """
        make_folder(self.path, durable=True)
        self._lock = lock = Lock(self.path)
        lock.take()
        try:
            check_folder(self.path)
            if (self.path / MANIFEST).exists():
                self.manifest = Run.open(self.path).manifest  # as the last holder of the lock left it
                self.records.owner = self.manifest.get(ID)
            remove_drafts(self.path)
            self.manifest.setdefault("sessions", []).append({**_session(), "work": work, "ended": None})
            self.save()
            self.work = Interruptible("Run the same command, or make the same call, to resume from there.")
            with nullcontext() if at_once else self.work:
                yield self.work
            if lock.state() == "held":
                self._end("finished")
            else:
                log.warning("%s was %s during the work: the results in memory are returned", self.path, lock.state())
        except BaseException as error:
            if lock.state() == "held":
                self._end(f"{type(error).__name__}: {error}"[:500])
            if isinstance(error, OSError | DamagedData):
                self._explain(error, lock.state())
            raise
        finally:
            self.work, self._lock = None, None
            lock.release()

    def note(self, stage: str, *, now: bool = False, **facts: Any) -> None:
        """Keep the progress of a stage in the manifest; written every two seconds at most, unless ``now``."""
        self.manifest.setdefault("stages", {}).setdefault(stage, {}).update(facts)
        if now or time.monotonic() - self._noted > SECONDS_BETWEEN_NOTES:
            self.save()

    def save(self) -> None:
        """Write the manifest; it is on the device when this returns.

        Raises:
            RunConflict: the folder was removed during a session, and another session works in one of the same name.
        """
        if self._lock is not None and self._lock.state() == "replaced":
            raise RunConflict(f"{self.path} was removed, and another process works there now: it is left alone. {ELSEWHERE}")
        write_manifest(self.path, self.manifest)
        self._noted = time.monotonic()

    @property
    def in_use(self) -> bool:
        """True if a process works on it now; see :func:`.lock.holder`. Nothing is locked by looking."""
        return holder(self.path) is not None

    @property
    def bytes(self) -> int:
        """Size of all its files."""
        return sum(_size(file) for file in self.path.rglob("*"))

    def write_json(self, name: str, content: Any) -> Path:
        """Write ``content`` as JSON; returns the file."""
        return self.write_text(name, json.dumps(content, indent=1))

    def write_sealed(self, name: str, content: dict[str, Any]) -> Path:
        """As :meth:`write_json`, with the mark of this run and a checksum, which :meth:`read_json` verifies."""
        return self.write_json(name, sealed(content, self.mark))

    @property
    def mark(self) -> str | None:
        """The name of this run in its files, which no other run has; None for runs of earlier versions."""
        return self.manifest.get(ID)

    def write_text(self, name: str, content: str) -> Path:
        """Write a text file; returns it."""
        target = self.path / name
        write_text(target, content)
        return target

    def read_json(self, name: str) -> Any:
        """Return what :meth:`write_json` wrote; None when the run has no such file.

        Raises:
            DamagedData: it was altered, or belongs to another run.
        """
        file = self.path / name
        return unsealed(read_json(file), file, self.mark) if file.exists() else None

    def _explain(self, error: OSError | DamagedData, lock: str) -> None:
        """Raise RunConflict where the work failed because its folder was removed, replaced or made read-only."""
        if lock != "held":
            raise RunConflict(f"{self.path} was {lock} during the work ({error}): what it held is lost. {ELSEWHERE}") from error
        if (
            isinstance(error, OSError)
            and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
            and not _can_be_written(self.path)
        ):
            raise RunConflict(
                f"{self.path} can no longer be written to ({error}): what was saved stays. Make it writable, and run the same "
                "again"
            ) from error

    def _end(self, how: str) -> None:
        self.manifest["sessions"][-1]["ended"] = {"at": _now(), "how": how}
        try:
            self.save()
        except OSError:  # a full disk: what counts is saved, and its own error is on the way
            if how == "finished":
                raise


def usable_path(path: str | os.PathLike[str]) -> Path:
    """A path that the operating system takes.

    Raises:
        RunConflict: it does not: too long, a circle of links, or with characters that cannot be.
    """
    folder = Path(path)
    try:
        folder.exists()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RunConflict(f"{shown(str(folder))} cannot be a directory ({reason}): choose another name") from error
    return folder


def _size(file: Path) -> int:
    """Bytes of a file; 0 for a folder, and for what another process has removed since it was listed."""
    try:
        found = file.lstat()
    except FileNotFoundError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def check_free(path: str | os.PathLike[str]) -> None:
    """Raise RunConflict unless ``path`` does not exist, and can be made, or is an empty directory."""
    folder = usable_path(path)
    check_can_be_made(folder)
    if folder.is_dir() and any(not is_draft(item) and item.name != LOCK for item in folder.iterdir()):
        what = "holds another run" if (folder / MANIFEST).exists() else "is not empty"
        raise RunConflict(f"{folder} {what}: choose another directory with --out, or remove it first")


def check_can_be_made(folder: Path) -> None:
    """Raise RunConflict where there can be no directory that may be written to; long work comes after."""
    above = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if not above.is_dir():
        raise RunConflict(f"{above} is a file: choose another directory with --out")
    try:
        with tempfile.TemporaryDirectory(dir=above):  # permissions alone do not tell: root has all of them, also in /proc
            pass
    except OSError as error:
        raise RunConflict(f"{above} may not be written to ({error.strerror}): choose another directory with --out") from error


def _can_be_written(folder: Path) -> bool:
    """Return whether all folders of a run take new files."""
    try:
        return all(os.access(place, os.W_OK | os.X_OK) for place, _, _ in os.walk(folder)) and not os.statvfs(folder).f_flag & 1
    except OSError:
        return False


def differences(known: dict[str, Any], facts: dict[str, Any], free: Iterable[str] = ()) -> list[str]:
    """Return where two sets of facts differ, each in words; facts may be sets of facts themselves.

    >>> differences({"seed": 0, "k": 3}, {"seed": 1, "k": 4}, free=["k"])
    ['seed is 0 in the run and 1 here']
    >>> differences({"config": {"seed": 0, "k": 3}}, {"config": {"seed": 1, "k": 3}})
    ['config.seed is 0 in the run and 1 here']
    """
    missing, found = object(), []
    for name in {**known, **facts}:
        ours, theirs = known.get(name, missing), facts.get(name, missing)
        if name in set(free) or ours == theirs:
            continue
        if isinstance(ours, dict) and isinstance(theirs, dict):
            found += [f"{name}.{each}" for each in differences(ours, theirs)]
        else:
            found.append(f"{name} is {_shown(known.get(name))} in the run and {_shown(facts.get(name))} here")
    return found


def _shown(value: Any) -> str:
    return "not set" if value is None else _cut(json.dumps(value))


def _cut(text: str, most: int = 200) -> str:
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def _session() -> dict[str, Any]:
    """Return when, by which command, with which versions, on what system."""
    return {
        "created": _now(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "versions": {
            "curvscope": version("curvscope"),
            "torch": version("torch"),
            "numpy": version("numpy"),
            "python": platform.python_version(),
        },
        "system": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "GPUs": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }
