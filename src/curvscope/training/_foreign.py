"""Recordings of other codes: parameters in HDF5 files, logs as JSON lines."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from curvscope.errors import DamagedData, InvalidArgument, MissingExtra, RunNotFound
from curvscope.system import checked


@checked
def read_parameters(file: str | os.PathLike[str], model: nn.Module, *, dataset: str | None = None) -> dict[str, Tensor]:
    """Return the parameters of a model by name, from an HDF5 file.

    Two layouts are read: one data set with all parameters as a flat vector in the order of ``model.parameters()``, as the
    authors of "Connecting Parameter Magnitudes and Hessian Eigenspaces at Scale" (TMLR 2025) keep them, in any shape with D
    entries; or a data set for each parameter, by its name (groups count as dots).

    Args:
        file: with the ending .h5 or .hdf5, usually.
        model: whose parameters they are; it is not changed.
        dataset: name of the flat vector; None: the only one with D entries.

    Returns:
        Tensors by parameter name, for ``model.load_state_dict(..., strict=False)``, in the model's dtype.

    Cost: all floating-point data sets of the file are read into memory.

    Raises:
        RunNotFound: there is no such file. DamagedData: it is no HDF5 file, or has numbers that are not finite.
        InvalidArgument: no data set fits, or several do; the message names those that there are.
        MissingExtra: h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingExtra("HDF5 files need h5py: pip install 'curvscope[hdf5]'") from error
    place = Path(file)
    if not place.exists():
        raise RunNotFound(f"{place} does not exist: pass the HDF5 file with the parameters")
    found: dict[str, Tensor] = {}
    try:
        with h5py.File(place, "r") as content:
            content.visititems(lambda name, item: _collect(found, name, item))
    except OSError as error:
        raise DamagedData(f"{place} is no HDF5 file: {error}") from error
    parameters = dict(model.named_parameters())
    named = {name.replace("/", "."): values for name, values in found.items()}
    if dataset is None and all(name in named and named[name].shape == p.shape for name, p in parameters.items()):
        made: Mapping[str, Tensor] = {name: named[name] for name in parameters}
    else:
        made = _split(_flat(found, sum(p.numel() for p in parameters.values()), dataset, place), parameters)
    for name, values in made.items():
        if not bool(torch.isfinite(values).all()):
            raise DamagedData(f"{place}: {name} has entries that are not finite")
    return {name: values.to(parameters[name].dtype) for name, values in made.items()}


def _collect(found: dict[str, Tensor], name: str, item: Any) -> None:
    if hasattr(item, "shape") and item.dtype.kind == "f":
        values = np.asarray(item[()])
        found[name] = torch.from_numpy(values.astype(values.dtype.newbyteorder("=")))  # PyTorch has the machine's order alone


def _flat(found: Mapping[str, Tensor], size: int, dataset: str | None, place: Path) -> Tensor:
    there = ", ".join(f"{name} {tuple(values.shape)}" for name, values in found.items()) or "none of floating-point numbers"
    if dataset is not None:
        if dataset not in found:
            raise InvalidArgument(f"dataset={dataset!r}: {place} has {there}")
        fitting = [dataset]
    else:
        fitting = [name for name, values in found.items() if values.numel() == size]
    if len(fitting) != 1 or found[fitting[0]].numel() != size:
        raise InvalidArgument(
            f"{place}: expected one data set with D = {size:,} entries, or one for each parameter; it has {there}. "
            "Name one with dataset=..."
        )
    return found[fitting[0]].flatten()


def _split(flat: Tensor, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    parts = flat.split([p.numel() for p in parameters.values()])
    return {name: part.reshape(p.shape) for (name, p), part in zip(parameters.items(), parts, strict=True)}


@checked
def read_log(file: str | os.PathLike[str]) -> list[dict[str, Any]]:
    r"""Return the entries of a log of JSON lines, in their order.

    An entry may be an object, or an array whose last element is one, such as ``[time, "event", {...}]``: then the
    others stand under "head". A last line that was cut off while it was written is left out.

    Raises:
        RunNotFound: there is no such file. DamagedData: a line before the last is no JSON, or neither object nor array.

    >>> import tempfile
    >>> log = Path(tempfile.mkdtemp()) / "log.jsonl"
    >>> _ = log.write_text('{"step": 0, "loss": 2.3}\n["2024", "EVENT", {"loss": 0.5}]\n')
    >>> [entry["loss"] for entry in read_log(log)]
    [2.3, 0.5]
    """
    place = Path(file)
    if not place.is_file():
        raise RunNotFound(f"{place} is no file: pass the log")
    # As bytes: a line may be cut off inside a character, and a file of another kind has bytes that are no text.
    lines = [(number, line) for number, line in enumerate(place.read_bytes().split(b"\n"), 1) if line.strip()]
    entries = []
    for number, line in lines:
        try:
            entry = json.loads(line)
        except ValueError as error:
            if number == lines[-1][0]:
                break
            raise DamagedData(f"{place}, line {number} is no JSON: {error}") from error
        if isinstance(entry, dict):
            entries.append(entry)
        elif isinstance(entry, list) and entry and isinstance(entry[-1], dict):
            entries.append({"head": entry[:-1], **entry[-1]})
        elif isinstance(entry, list):
            entries.append({"head": entry})
        else:
            raise DamagedData(
                f"{place}, line {number}: expected an object or an array, got {line.decode(errors='replace')[:60]}"
            )
    return entries


def numbers_of(entries: list[dict[str, Any]], key: str) -> list[float]:
    """Return the finite numbers under a key, of the entries that have one.

    >>> numbers_of([{"loss": 1.0}, {"other": 2}, {"loss": float("nan")}], "loss")
    [1.0]
    """
    found = [entry[key] for entry in entries if isinstance(entry.get(key), int | float) and not isinstance(entry[key], bool)]
    return [float(value) for value in found if math.isfinite(value)]
