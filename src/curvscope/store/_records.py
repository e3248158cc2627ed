"""Small results of a run, each in a checked file of its own that appears whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from curvscope.errors import DamagedData
from curvscope.store._files import CHECKSUM_BYTES, Draft, checksum
from curvscope.store._seals import RUN
from curvscope.store._untrusted import read_plain, shown

SUFFIX = ".record"


class Record(NamedTuple):
    """Plain values and tensors of a record."""

    facts: dict[str, Any]
    tensors: dict[str, Tensor]


class Records:
    """Records by name in a directory; names may have folders in them.

    >>> import tempfile
    >>> records = Records(Path(tempfile.mkdtemp()))
    >>> records.write("residuals/0-2", {"seconds": 0.5}, {"norms": torch.tensor([1.0, 2.0])})
    >>> records.read("residuals/0-2").tensors["norms"].tolist(), records.names("residuals"), records.read("other")
    ([1.0, 2.0], ['residuals/0-2'], None)
    """

    def __init__(self, folder: Path, owner: str | None = None) -> None:
        self.folder, self.owner = folder, owner

    def write(
        self, name: str, facts: dict[str, Any], tensors: dict[str, Tensor] | None = None, *, durable: bool = False
    ) -> None:
        """Keep plain values and (small) tensors; what had this name is replaced.

        ``durable``: on the device before this returns. Whatever the record speaks of must be there before it.

        Raises:
            OutOfDisk: there is no room; what was there stays.
        """
        arrays = {key: tensor.detach().cpu().contiguous().numpy() for key, tensor in (tensors or {}).items()}
        shapes = [[key, array.dtype.str, list(array.shape)] for key, array in arrays.items()]
        heading = {"name": name, RUN: self.owner, "facts": facts, "tensors": shapes}
        raw = b"".join([json.dumps(heading).encode() + b"\n", *(array.tobytes() for array in arrays.values())])
        with Draft(self._file(name), durable=durable) as draft:
            draft.write_bytes(raw + checksum(raw))

    def read(self, name: str) -> Record | None:
        """Return the record of this name, or None.

        Raises:
            DamagedData: its file was altered or truncated.
        """
        file = self._file(name)
        try:
            content = read_plain(file)
        except FileNotFoundError:
            return None
        raw = content[:-CHECKSUM_BYTES]
        if len(content) < CHECKSUM_BYTES or checksum(raw) != content[-CHECKSUM_BYTES:]:
            raise DamagedData(f"{file} does not match its checksum: it was altered or truncated")
        try:
            heading, record = _parsed(raw)
        except (ValueError, KeyError, TypeError, RecursionError, OverflowError, MemoryError) as error:
            # A checksum is right in a file that someone made on purpose, too.
            raise DamagedData(f"{file} is no record ({shown(str(error))}): do not use this run") from error
        if self.owner is not None and (heading.get("name"), heading.get(RUN)) != (name, self.owner):
            other = shown(heading.get("name")) if heading.get(RUN) == self.owner else "of another run"
            raise DamagedData(f"{file} is not the record {name!r} of this run (it is {other}): put the right one back")
        return record

    def names(self, folder: str) -> list[str]:
        """Names of all records in a folder, in order."""
        return sorted(self._names(folder))

    def remove(self, name: str) -> None:
        """Forget a record, if there is one."""
        self._file(name).unlink(missing_ok=True)

    def _names(self, folder: str) -> Iterator[str]:
        for file in (self.folder / folder).glob(f"*{SUFFIX}"):
            yield f"{folder}/{file.name.removesuffix(SUFFIX)}"

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}{SUFFIX}"


def _parsed(raw: bytes) -> tuple[dict[str, Any], Record]:
    """The record in the content of a file; what is wrong with it raises whatever it does."""
    line = raw.index(b"\n")
    heading = json.loads(raw[:line])
    tensors, start = {}, line + 1
    for key, dtype, shape in heading["tensors"]:
        kind = np.dtype(dtype)
        if kind.hasobject or min(shape, default=0) < 0:
            raise ValueError(f"a tensor of {kind}, shape {shape}")
        array = np.frombuffer(raw, dtype=kind, count=prod(shape), offset=start).reshape(shape)
        tensors[str(key)] = torch.from_numpy(array.copy())
        start += array.nbytes
    if not isinstance(heading["facts"], dict):
        raise TypeError("facts that are no mapping")
    return heading, Record(heading["facts"], tensors)
