"""Temporary TLS credentials for the batch jobs of one run: who has no key gets no answer from its scheduler and workers."""

from __future__ import annotations

import atexit
import os
import platform
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Any

from curvscope.errors import DamagedData, InvalidArgument, MissingExtra, RunConflict
from curvscope.store import Lock

PREFIX = "curvscope-jobs-"
HOME = ".curvscope"
"""Folder in the home directory that holds the folders of running jobs; batch systems share homes with their nodes."""


class Credentials:
    """A key and its certificate in a folder of mode 0700 that exists until :meth:`remove`.

    The folder is locked while its owner lives, so the next start can remove what a killed process left behind. Jobs read the
    files by path; their content is in no job script, log or manifest.

    Args:
        shared: folder that the jobs reach at the same path; default: ``.curvscope`` in the home directory.

    Raises:
        InvalidArgument: the folder cannot be made, or belongs to somebody else. MissingExtra: ``cryptography`` is missing.
    """

    def __init__(self, shared: str | os.PathLike[str] | None = None) -> None:
        base = Path.home() / HOME if shared is None else Path(os.path.expandvars(shared)).expanduser().absolute()
        try:
            if shared is None:
                _make_private(base)
            remove_abandoned(base)
            draft = Path(tempfile.mkdtemp(prefix=f".{PREFIX}{platform.node()}-{os.getpid()}-", dir=base))
            self._lock = _locked(draft)
            self.folder = draft.rename(base / draft.name.removeprefix("."))  # found by others only now that it is locked
        except OSError as error:
            raise InvalidArgument(
                f"no folder for the credentials of the jobs in {base} ({error.strerror}): set shared_temp_directory to a "
                "folder of yours that the jobs reach at the same path"
            ) from error
        self._owner = os.getpid()
        atexit.register(self.remove)  # for callers that never close their workers
        try:
            self.certificate, self.key = self.folder / "certificate.pem", self.folder / "key.pem"
            certificate, key = _new_pair()
            _write_private(self.certificate, certificate)
            _write_private(self.key, key)
        except BaseException:
            self.remove()
            raise

    def security(self) -> Any:
        """Return Dask's description of them: one certificate for all roles, and no connection without it."""
        from distributed import Security

        pair = {"cert": str(self.certificate), "key": str(self.key)}
        roles = {f"tls_{role}_{part}": path for role in ("client", "scheduler", "worker") for part, path in pair.items()}
        return Security(require_encryption=True, tls_ca_file=str(self.certificate), **roles)

    def remove(self) -> None:
        """Remove the folder and everything in it; nothing happens at the second time, or in a forked child."""
        if os.getpid() != self._owner:
            return
        atexit.unregister(self.remove)
        if self._lock is not None:
            self._lock.release()
        shutil.rmtree(self.folder, ignore_errors=True)


def remove_abandoned(base: Path) -> list[Path]:
    """Remove folders of credentials in ``base`` whose owner, a process of this user on any host, has died; return them."""
    removed = []
    for folder in base.glob(f"{PREFIX}*"):
        if not _is_own_folder(folder):
            continue
        if (lock := _locked(folder)) is None:
            continue
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)
        removed.append(folder)
    return removed


def _locked(folder: Path) -> Lock | None:
    lock = Lock(folder)
    try:
        lock.take()
    except (RunConflict, DamagedData):  # a file system without locks: nobody can tell there that a folder is abandoned
        return None
    return lock


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_own_folder(folder):
        raise PermissionError(1, "it is a link, or belongs to another user")
    if folder.stat().st_mode & 0o077:
        folder.chmod(0o700)


def _is_own_folder(path: Path) -> bool:
    found = path.lstat()
    return stat.S_ISDIR(found.st_mode) and (not hasattr(os, "getuid") or found.st_uid == os.getuid())


def _write_private(path: Path, content: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(content)


def _new_pair() -> tuple[str, str]:
    from distributed import Security

    try:
        made = Security.temporary()
    except ImportError as error:
        raise MissingExtra("batch jobs are encrypted, which needs cryptography: pip install 'curvscope[dask]'") from error
    return made.tls_worker_cert, made.tls_worker_key
