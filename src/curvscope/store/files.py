"""Atomic files and their checksums."""

from __future__ import annotations

import errno
import json
import os
import platform
import shutil
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

import google_crc32c
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from curvscope.errors import DamagedData, OutOfDisk

CHECKSUM_BYTES = 4
RESTORE = "put it back, or remove it and run what wrote it again"
"""What to do about a damaged file."""
FULL = (errno.ENOSPC, errno.EDQUOT)


def checksum(content: Any) -> bytes:
    """The CRC-32C of bytes or of a contiguous array of them, as the four bytes that Zarr puts behind a chunk.

    >>> checksum(b"123456789").hex()
    '839206e3'
    """
    return google_crc32c.value(content).to_bytes(CHECKSUM_BYTES, "little")


class Draft:
    """A file that is written beside its place and put there when the block ends; after an error nothing is left of it.

    Not synchronised to the device unless ``durable``: a file that a power failure tears must be found by its checksum.

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
        # Processes of several hosts, and threads of one process, may write the same file: the last one stands.
        writer = f"{platform.node()}-{os.getpid()}-{threading.get_ident()}"
        self.path = target.with_name(f".{target.name}.{writer}.partial")

    def __enter__(self) -> Path:
        try:
            self.target.parent.mkdir(parents=True, exist_ok=True)
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
                _synchronise(self.path)
            self.path.replace(self.target)
        except OSError as late:  # disks on a network, and quotas, tell only here
            remove(self.path)
            raise_if_full(late, self.target)
            raise


def remove(path: Path) -> None:
    """Remove a file or a directory with all that is in it; nothing happens if there is none."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def is_draft(path: Path) -> bool:
    """Whether it is what a killed process was writing."""
    return path.name.startswith(".") and path.name.endswith(".partial")


def remove_drafts(folder: Path) -> None:
    """Remove what killed processes were writing in a folder. Nobody may be writing there now."""
    for draft in list(folder.rglob(".*.partial")):
        remove(draft)


def write_text(target: Path, content: str, *, durable: bool = True) -> None:
    """Put a text in the place of a file, on the device before this returns."""
    with Draft(target, durable=durable) as draft:
        draft.write_text(content, encoding="utf-8")


def read_json(file: Path) -> Any:
    """The content of a JSON file.

    Raises:
        DamagedData: it is none.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # also bytes that are no text
        raise DamagedData(f"{file} is damaged ({error}): {RESTORE}") from error


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors in a safetensors file.

    Raises:
        DamagedData: it is none, or truncated.
    """
    try:
        return load_file(file)
    except SafetensorError as error:
        raise DamagedData(f"{file} is damaged ({error}): {RESTORE}") from error


def raise_if_full(error: BaseException, target: Path) -> None:
    """Raise OutOfDisk if the error says that there is no room."""
    if isinstance(error, OSError) and error.errno in FULL:
        raise OutOfDisk(
            f"no room on the disk for {target} ({error.strerror}): everything written so far is kept; free some space and run "
            "the same command again"
        ) from error


def _synchronise(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
