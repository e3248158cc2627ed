"""Memory that an operation of ours takes while it runs, beside its arguments and results: what a plan has to know."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

from curvscope.operators.rules.attention import tile_entries
from curvscope.operators.rules.token_losses import chunk_entries


class Argument(NamedTuple):
    """Shape of a tensor, bytes of an entry, and whether it is on a CPU."""

    shape: tuple[int, ...]
    itemsize: int
    on_cpu: bool

    @property
    def bytes(self) -> int:
        """All of it."""
        return prod(self.shape) * self.itemsize


# Arrays of the size of a tile (of a chunk of logits) that live together at most, counted in the code.
TILES = {"attention": 2, "attention_along": 4, "attention_backward": 3, "attention_backward_along": 7}
CHUNKS = {"token_losses": 2, "token_losses_along": 3, "token_losses_backward": 3, "token_losses_backward_along": 5}
CHUNKS |= {"token_softmax_curvature": 2, "token_score_curvature": 3}


def workspace_bytes(name: str, arguments: Sequence[Argument]) -> int:
    """Return the most memory that a call takes for itself; 0 for operations that are not ours.

    Args:
        name: of the operation, without its namespace.
        arguments: its tensors, in order.

    >>> q, k = Argument((1, 8, 1, 1024, 64), 4, True), Argument((1, 8, 1024, 64), 4, True)
    >>> workspace_bytes("attention", [q, k, k]) // 2**20
    10
    """
    if name in TILES:
        q, k, v = arguments[:3]
        entries = tile_entries(q.shape[2], q.shape[3], k.shape[2], on_cpu=q.on_cpu)
        thin = q.bytes + k.bytes + v.bytes
        # Keys and values beside their directions, and gradients that are summed the other way round.
        count = arguments[-1].shape[0] if name != "attention" else 0
        return thin + 3 * count * (k.bytes + v.bytes) + TILES[name] * entries * q.itemsize
    if name in CHUNKS:
        inputs, weight = arguments[:2]
        return (
            CHUNKS[name]
            * min(chunk_entries(weight.shape[0], on_cpu=inputs.on_cpu), inputs.shape[0] * weight.shape[0])
            * inputs.itemsize
        )
    return 0
