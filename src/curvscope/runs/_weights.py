"""Weights of a model in a file, read without executing anything that is in it."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from curvscope.errors import InvalidArgument
from curvscope.store import printable

NESTED = ("state_dict", "model_state_dict", "model")
"""Entries under which training programs keep a model's weights beside those of an optimizer."""
WRAPPERS = ("module.", "_orig_mod.", "model.")
"""Prefixes that DistributedDataParallel, torch.compile and Lightning put before every name."""
SHOWN = 3
"""Differences that a message names."""


def load_weights(model: Any, file: Path) -> None:
    """Copy the weights and buffers in a file into a model, in place.

    Args:
        model: a torch.nn.Module.
        file: ``.safetensors``, or what ``torch.save`` wrote of a state dict, alone or in an entry "state_dict",
            "model_state_dict" or "model". Read with ``weights_only=True``.

    Raises:
        InvalidArgument: there is no such file, it holds something else, or other names or shapes than the model has.
    """
    if not isinstance(model, nn.Module):
        raise InvalidArgument(
            f"checkpoint {file}: it is loaded into a torch.nn.Module, got a {type(model).__name__} for the model"
        )
    own, found = model.state_dict(), read_tensors(file, "a checkpoint")
    found = _without_wrapper(found, own)
    if differing := _differences(own, found):
        more = f" and {len(differing) - SHOWN} more" if len(differing) > SHOWN else ""
        raise InvalidArgument(f"checkpoint {file} is of another model: {'; '.join(differing[:SHOWN])}{more}")
    with torch.no_grad():
        model.load_state_dict(found)


def read_tensors(file: Path, what: str) -> dict[str, Tensor]:
    """Return the tensors by name in a ``.safetensors`` file or a state dict that ``torch.save`` wrote.

    Raises:
        InvalidArgument: there is no such file, or it holds something else; ``what`` says what it is to be.
    """
    found = read_torch(file, what)
    for entry in NESTED:
        if isinstance(found, Mapping) and isinstance(found.get(entry), Mapping):
            found = found[entry]
            break
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise InvalidArgument(f"{file} is no {what[2:]}: expected tensors by name (a state dict), got a {type(found).__name__}")
    return dict(found)


def read_torch(file: Path, what: str) -> Any:
    """Return what is in a ``.safetensors`` file, or in one that ``torch.save`` wrote of tensors and plain containers.

    Raises:
        InvalidArgument: there is no such file, it cannot be read, or reading it would execute code.
    """
    if not file.is_file():
        raise InvalidArgument(f"{file}: there is no such file; expected {what}")
    try:
        return load_file(file) if file.suffix == ".safetensors" else torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, SafetensorError, pickle.UnpicklingError, EOFError, AttributeError) as error:
        if "Weights only load failed" in str(error):  # PyTorch's own advice is to read it all the same
            raise InvalidArgument(
                f"{file} holds Python objects beside tensors, which reading would execute: "
                "save tensors alone, torch.save(model.state_dict(), path)"
            ) from error
        reason = printable(str(error).splitlines()[0]) if str(error) else type(error).__name__
        raise InvalidArgument(
            f"{file} cannot be read as {what} ({reason}): expected .safetensors, or tensors alone that torch.save wrote"
        ) from error


def _without_wrapper(found: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under the model's names, where every name has the prefix of a wrapper."""
    for prefix in WRAPPERS:
        if found and not set(found) & set(own) and all(name.startswith(prefix) for name in found):
            found = {name.removeprefix(prefix): value for name, value in found.items()}
    return found


def _differences(own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    missing = [f"{name} is missing" for name in own if name not in found]
    unknown = [f"{printable(str(name))} is not of this model" for name in found if name not in own]
    shapes = [
        f"{name} has shape {tuple(found[name].shape)} in the file and {tuple(value.shape)} in the model"
        for name, value in own.items()
        if name in found and found[name].shape != value.shape
    ]
    return shapes + missing + unknown
