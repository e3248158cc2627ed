"""What makes an operator this operator: a hash of its numbers, for provenance and for resuming runs."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor

from curvscope.operators._layouts import is_plain, parts, shape_of

__all__ = ["fingerprint"]


def fingerprint(*parts: Any) -> str:
    """128-bit hexadecimal digest of tensors (dtype, shape, bytes), containers of them and anything with a stable ``repr``.

    Tensors on any device give the digest of their values; memory layout does not matter. Sparse and nested ones count as they
    are stored.

    >>> fingerprint("hessian", torch.eye(2)) == fingerprint("hessian", torch.eye(2).T.contiguous())
    True
    >>> fingerprint(torch.eye(2)) == fingerprint(torch.eye(2).double())
    False
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        _feed(digest, part)
    return digest.hexdigest()


def _feed(digest: Any, part: Any) -> None:
    match part:
        case Tensor() if not is_plain(part):
            digest.update(f"{part.layout} {shape_of(part)};".encode())
            for held in parts(part):
                _feed(digest, held)
        case Tensor():
            digest.update(f"tensor {part.dtype} {tuple(part.shape)};".encode())
            flat = part.detach().cpu().contiguous().flatten()
            if flat.stride(0) != 1:  # of a single number, which counts as contiguous with any stride
                flat = flat.clone(memory_format=torch.contiguous_format)
            digest.update(flat.view(torch.uint8).numpy())
        case dict():
            for key in part:
                _feed(digest, str(key))
                _feed(digest, part[key])
        case list() | tuple():
            digest.update(f"sequence {len(part)};".encode())
            for item in part:
                _feed(digest, item)
        case _:
            digest.update(f"{part!r};".encode())
