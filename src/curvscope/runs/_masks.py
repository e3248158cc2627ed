"""A mask in a file: by parameter name, in a row, or as places."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from curvscope.errors import InvalidArgument
from curvscope.runs._weights import read_torch

KINDS = (".pt", ".pth", ".safetensors", ".npy", ".npz")
A_MASK = "a mask"


def read_mask(file: Path) -> Any:
    """Return the mask in a file, in a form that :func:`curvscope.overlap` takes; nothing in the file is executed.

    Args:
        file: ``.npy``, ``.npz``, ``.safetensors``, or ``.pt`` as torch.save writes it: an array (D,) or arrays by parameter
            name. A single array under another name is the mask itself.

    Raises:
        InvalidArgument: there is no such file, or it holds something else.
    """
    if file.suffix not in KINDS:
        raise InvalidArgument(f"{file}: expected a mask in a file that ends with one of {', '.join(KINDS)}")
    found = _read_numpy(file) if file.suffix in (".npy", ".npz") else read_torch(file, A_MASK)
    if isinstance(found, dict) and len(found) == 1 and next(iter(found.values())).ndim == 1 and "." not in next(iter(found)):
        return next(iter(found.values()))
    return found


def _read_numpy(file: Path) -> Any:
    if not file.is_file():
        raise InvalidArgument(f"{file}: there is no such file; expected {A_MASK}")
    try:
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return torch.from_numpy(loaded)
        with loaded:
            return {name: torch.from_numpy(loaded[name]) for name in loaded.files}
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise InvalidArgument(
            f"{file} cannot be read as {A_MASK} ({error}): expected numbers alone, without pickles"
        ) from error
