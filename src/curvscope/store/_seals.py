"""Seals: checksums in small files, and marks that say which run and which matrix a file belongs to."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from curvscope.errors import DamagedData
from curvscope.store._files import RESTORE, Draft, checksum, read_tensors

CHECKSUM, RUN = "checksum", "run"


def new_mark() -> str:
    """Return a random name, 32 hexadecimal digits, that no other run or matrix has."""
    return secrets.token_hex(16)


def digest_of(content: Any) -> str:
    """Return the CRC-32C of plain values, whatever the order of their keys.

    >>> digest_of({"a": 1, "b": [2.5]}) == digest_of({"b": [2.5], "a": 1})
    True
    """
    return checksum(json.dumps(content, sort_keys=True).encode()).hex()


def sealed(content: Mapping[str, Any], run: str | None = None) -> dict[str, Any]:
    """Return plain values with the mark of their run and a checksum over everything.

    >>> unsealed(sealed({"k": 3}, run="r"), Path("numbers.json"), run="r")
    {'k': 3}
    """
    marked = {**content, **({} if run is None else {RUN: run})}
    return {**marked, CHECKSUM: digest_of(marked)}


def unsealed(content: Any, file: Path, run: str | None = None) -> Any:
    """Return what was :func:`sealed`; what older versions wrote without a checksum is returned as it is.

    Raises:
        DamagedData: it was altered, or belongs to another run.
    """
    if not isinstance(content, dict) or CHECKSUM not in content:
        if run is not None and isinstance(content, dict) and RUN in content:
            raise DamagedData(f"{file} lost its checksum, it was altered: {RESTORE}")
        return content
    found = dict(content)
    if found.pop(CHECKSUM) != digest_of(found):
        raise DamagedData(f"{file} does not match its checksum, it was altered: {RESTORE}")
    check_mark(found.pop(RUN, None), run, file)
    return found


def check_mark(found: Any, run: str | None, file: Path) -> None:
    """Raise DamagedData where a file says that it belongs to another run than the one it lies in."""
    if run is not None and found is not None and found != run:
        raise DamagedData(f"{file} belongs to another run (mark {str(found)[:12]}, this one has {run[:12]}): {RESTORE}")


def write_tensors(file: Path, tensors: Mapping[str, Tensor], run: str | None = None) -> None:
    """Write a safetensors file with a checksum over names, shapes and bytes, whole or not at all; on the device on return."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with Draft(file, durable=True) as draft:
        save_file(plain, draft, metadata=sealed({"content": _digest_of_tensors(plain)}, run))


def read_sealed_tensors(file: Path, run: str | None = None) -> dict[str, Tensor]:
    """Return the tensors in a safetensors file, verified if it has a checksum.

    Raises:
        DamagedData: altered, truncated, or another run's.
    """
    tensors = read_tensors(file)
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    if not metadata:  # written by others, or by an earlier version
        return tensors
    if metadata.get("format") == "pt" and CHECKSUM not in metadata:
        return tensors
    found = unsealed({name: text for name, text in metadata.items() if name != "format"}, file, run)
    if found.get("content") != _digest_of_tensors(tensors):
        raise DamagedData(f"{file} does not match its checksum, it was altered: {RESTORE}")
    return tensors


def _digest_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    heads = [[name, str(tensor.dtype), list(tensor.shape)] for name, tensor in sorted(tensors.items())]
    sums = [checksum(t.reshape(-1).view(torch.uint8).numpy()).hex() for _, t in sorted(tensors.items())]
    return digest_of([heads, sums])
