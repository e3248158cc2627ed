"""Atomic files and their checksums."""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import secrets
import shutil
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import google_crc32c
import psutil
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from curvscope.errors import DamagedData, OutOfDisk
from curvscope.store._untrusted import open_plain, read_plain, shown

CHECKSUM_BYTES = 4
RESTORE = "put it back, or remove it and run what wrote it again"
"""What to do about a damaged file."""
FULL = (errno.ENOSPC, errno.EDQUOT)
DRAFT = re.compile(r"\.(?P<host>.+)-(?P<process>\d+)-\d+\.partial")
"""Names of drafts tell who writes them, not what they become: a long name of a file leaves no room for more."""
SECONDS_OF_ANOTHER_HOST = 3600.0
"""A draft of another host that did not change for so long is taken for a dead process'; on this host one can look."""


def checksum(content: Any) -> bytes:
    """The CRC-32C of bytes or of a contiguous array of them, as the four bytes that Zarr puts behind a chunk.

    >>> checksum(b"123456789").hex()
    '839206e3'
    """
    return int(google_crc32c.value(content)).to_bytes(CHECKSUM_BYTES, "little")


class Draft:
    """A file that is written beside its place and put there when the block ends; after an error nothing is left of it.

    ``durable``: when the block has ended, the file and its place in the folder are on the device. Otherwise a power failure
    may tear it, or bring back what was there before: then it must be found by its checksum, and be of no harm.

    Several processes, and threads of one, may write the same file: the last one stands. What is put in the place of a link
    takes the place of the link, and leaves alone what that points to.

    Raises:
        OutOfDisk: there is no room; what was there stays.

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "folder" / "numbers.txt"
    >>> with Draft(target) as draft:
    ...     _ = draft.write_text("1 2 3")
    >>> target.read_text(), [file.name for file in target.parent.iterdir()]
    ('1 2 3', ['numbers.txt'])
    """

    def __init__(self, target: Path, *, durable: bool = False) -> None:
        self.target, self.durable = target, durable
        self.path = draft_beside(target)

    def __enter__(self) -> Path:
        try:
            make_folder(self.target.parent, durable=self.durable)
            remove(self.path)  # of a dead process that had our number, or a link that someone prepared
        except OSError as error:
            raise_if_full(error, self.target)
            raise
        return self.path

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            remove(self.path)
            raise_if_full(error, self.target)
            return
        try:
            if self.durable:
                synchronise(self.path)
            self.path.replace(self.target)
            if self.durable:
                synchronise(self.target.parent)
        except OSError as late:  # disks on a network, and quotas, tell only here
            remove(self.path)
            raise_if_full(late, self.target)
            raise


def make_folder(folder: Path, *, durable: bool = False) -> None:
    """Make a folder and those above it, where they are missing; ``durable``: their entries are on the device afterwards."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()] if durable else []
    folder.mkdir(parents=True, exist_ok=True)
    for place in missing:
        synchronise(place.parent)


def draft_beside(target: Path) -> Path:
    """Return a path in the folder of ``target`` that no other process, and no other call, uses.

    Nobody can guess it: in a folder that others may write to, such as /tmp, they could put a link there before us.
    """
    return target.with_name(f".{_host()}-{os.getpid()}-{secrets.randbits(63)}.partial")


def _host() -> str:
    return re.sub(r"[^\w.]", "_", platform.node())[:64] or "host"


def remove(path: Path) -> None:
    """Remove a file, a link, or a directory with all that is in it; nothing happens if there is none.

    Of a link the link alone is removed, never what it points to.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def put_in_place(made: Path, target: Path) -> None:
    """Put a folder that is complete in the place of the one at ``target``, if there is one.

    The old folder is moved aside before, and removed after, so that a process that dies at any moment leaves the old one, none,
    or the new one, and never a part of either. Both are on the device when this returns.
    """
    old = draft_beside(target)
    if target.exists() or target.is_symlink():
        target.rename(old)
    made.rename(target)
    synchronise(target.parent)
    remove(old)


def is_draft(path: Path) -> bool:
    """Return whether it is what a process is, or was, writing."""
    return path.name.startswith(".") and path.name.endswith(".partial")


def remove_drafts(folder: Path) -> None:
    """Remove what dead processes were writing in a folder; what others write there at this moment stays."""
    for draft in list(folder.rglob(".*.partial")):
        if not _is_being_written(draft):
            remove(draft)


def _is_being_written(draft: Path) -> bool:
    """Return whether the process that writes a draft may live: that of this host is looked at, that of another by the time."""
    found = DRAFT.fullmatch(draft.name)
    try:
        changed = draft.lstat().st_mtime
        if found is None:  # a name that earlier versions gave
            return False
        if found["host"] != _host():
            return time.time() - changed < SECONDS_OF_ANOTHER_HOST
        writer = psutil.Process(int(found["process"]))
        # A process that began after the last change has the number of the one that wrote.
        return bool(writer.status() != psutil.STATUS_ZOMBIE and writer.create_time() <= changed + 1)
    except (psutil.Error, OSError, OverflowError):
        return False


def write_text(target: Path, content: str, *, durable: bool = True) -> None:
    """Put a text in the place of a file, on the device before this returns."""
    with Draft(target, durable=durable) as draft:
        draft.write_text(content, encoding="utf-8")


def read_json(file: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        DamagedData: it is none, too deep, or no regular file.
    """
    try:
        return json.loads(read_plain(file).decode("utf-8"))
    except (ValueError, RecursionError) as error:  # also bytes that are no text
        raise DamagedData(f"{file} is damaged ({shown(str(error))}): {RESTORE}") from error


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Return the tensors in a safetensors file.

    Raises:
        DamagedData: it is none, truncated, or no regular file.
    """
    open_plain(file).close()
    try:
        return load_file(file)
    except (SafetensorError, ValueError, KeyError, OverflowError, MemoryError, RuntimeError) as error:
        raise DamagedData(f"{file} is damaged ({shown(str(error))}): {RESTORE}") from error


def raise_if_full(error: BaseException, target: Path) -> None:
    """Raise OutOfDisk if the error says that there is no room."""
    if isinstance(error, OSError) and error.errno in FULL:
        raise OutOfDisk(
            f"no room on the disk for {target} ({error.strerror}): everything written so far is kept; free some space and run "
            "the same command again"
        ) from error


def synchronise(path: Path) -> None:
    """Return when a file, or the entries of a folder, are on the device.

    A file that was renamed into its place survives a power failure only if it was synchronised before and its folder after.
    """
    if os.name == "nt" and path.is_dir():  # Windows cannot open folders, and writes their entries itself
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # file systems on a network that cannot synchronise a folder
            raise
    finally:
        os.close(descriptor)


def synchronise_folder(folder: Path) -> None:
    """Return when all files and folders in a folder, and its own entry, are on the device."""
    for place, _, names in os.walk(folder):
        for name in names:
            synchronise(Path(place) / name)
        synchronise(Path(place))
    synchronise(folder.parent)
