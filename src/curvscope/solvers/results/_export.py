"""Solutions in formats of other programs: HDF5, safetensors, NumPy archives; panel by panel, never wholly in memory."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import numpy as np
from torch import Tensor

from curvscope.errors import InvalidArgument, MissingExtra, RunConflict
from curvscope.solvers.results._solution import Solution
from curvscope.store import Draft
from curvscope.tall import TallMatrix

SAFETENSORS = {"float32": "F32", "float64": "F64", "float16": "F16", "complex64": "C64"}


def export(solution: Solution, path: Path, kind: str) -> None:
    """Write eigenvalues, residual_norms (k,) and eigenvectors (D, k) of a solution to a file.

    What it is of (order, status, provenance, and the names and shapes of the parameters along D) goes beside them as JSON: in
    the attribute or metadata entry "curvscope", in NumPy archives as the array "curvscope" of bytes.

    Args:
        solution: any.
        path: a file that does not exist.
        kind: "hdf5" (needs h5py), "safetensors" or "npz".

    Cost: one read of the vectors; memory: two panels.

    Raises:
        InvalidArgument: another kind, or a dtype that safetensors does not have. MissingExtra: h5py is not installed.
        RunConflict: the file exists. OutOfDisk, DamagedData: as they say.

    >>> import tempfile, torch
    >>> from curvscope.solvers import eigsh
    >>> file = Path(tempfile.mkdtemp()) / "pairs.npz"
    >>> export(eigsh(torch.diag(torch.tensor([3.0, 1.0])), k=1), file, "npz")
    >>> np.load(file)["eigenvalues"].tolist()
    [3.0]
    """
    if kind not in WRITERS:
        raise InvalidArgument(f"format {kind!r}: choose one of {', '.join(WRITERS)}")
    if kind == "hdf5" and find_spec("h5py") is None:
        raise MissingExtra("HDF5 needs h5py: pip install 'curvscope[hdf5]', or export to safetensors or npz")
    if path.exists():
        raise RunConflict(f"{path} exists: choose another file, or remove it first")
    with Draft(path) as draft:
        WRITERS[kind](solution, draft)


def described(solution: Solution) -> str:
    """Return what a solution is of, as JSON."""
    named = solution.parameters
    facts: dict[str, Any] = {
        "order": solution.order,
        "status": str(solution.status),
        "provenance": solution.provenance,
        "parameters": named and {name: list(shape) for name, shape in zip(named.names, named.shapes, strict=True)},
    }
    return json.dumps(facts)


def _hdf5(solution: Solution, path: Path) -> None:
    import h5py

    vectors = solution.eigenvectors
    with h5py.File(path, "w") as file:
        file.attrs["curvscope"] = described(solution)
        file["eigenvalues"], file["residual_norms"] = solution.eigenvalues.numpy(), solution.residual_norms.numpy()
        target = file.create_dataset("eigenvectors", vectors.shape, dtype=_dtype(vectors))
        for panel in vectors.panels():
            target[panel] = vectors.rows(panel).cpu().numpy()


def _npz(solution: Solution, path: Path) -> None:
    vectors = solution.eigenvectors
    with zipfile.ZipFile(path, "w", allowZip64=True) as archive:
        for name, tensor in _small(solution).items():
            with archive.open(f"{name}.npy", "w") as stream:
                np.lib.format.write_array(stream, tensor.numpy())
        with archive.open("curvscope.npy", "w") as stream:
            np.lib.format.write_array(stream, np.frombuffer(described(solution).encode(), dtype=np.uint8))
        with archive.open("eigenvectors.npy", "w", force_zip64=True) as stream:
            heading = {"descr": _dtype(vectors).str, "fortran_order": False, "shape": vectors.shape}
            np.lib.format.write_array_header_1_0(stream, heading)
            _stream(vectors, stream)


def _safetensors(solution: Solution, path: Path) -> None:
    vectors = solution.eigenvectors
    heading: dict[str, Any] = {"__metadata__": {"format": "pt", "curvscope": described(solution)}}
    start = 0
    shapes = {**{name: tuple(tensor.shape) for name, tensor in _small(solution).items()}, "eigenvectors": vectors.shape}
    for name, shape in shapes.items():
        dtype = _dtype(vectors) if name == "eigenvectors" else np.dtype("float64")
        if dtype.name not in SAFETENSORS:
            raise InvalidArgument(f"safetensors has no {dtype.name}: choose hdf5 or npz")
        stop = start + dtype.itemsize * int(np.prod(shape))
        heading[name] = {"dtype": SAFETENSORS[dtype.name], "shape": list(shape), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(heading).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for tensor in _small(solution).values():
            stream.write(tensor.numpy().tobytes())
        _stream(vectors, stream)


WRITERS: dict[str, Callable[[Solution, Path], None]] = {"hdf5": _hdf5, "safetensors": _safetensors, "npz": _npz}


def _small(solution: Solution) -> dict[str, Tensor]:
    return {"eigenvalues": solution.eigenvalues, "residual_norms": solution.residual_norms}


def _dtype(matrix: TallMatrix) -> np.dtype:
    return matrix.rows(slice(0, 1)).cpu().numpy().dtype


def _stream(matrix: TallMatrix, stream: IO[bytes]) -> None:
    for content in _panels(matrix):
        stream.write(content)


def _panels(matrix: TallMatrix) -> Iterator[bytes]:
    for panel in matrix.panels():
        yield np.ascontiguousarray(matrix.rows(panel).cpu().numpy()).tobytes()
