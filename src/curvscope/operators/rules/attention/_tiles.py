"""Tiles of the N x M array of attention weights: which there are, and the weights of one of them.

A tile holds whole rows, so no running softmax is needed. Queries of a group of heads that share keys lie below one another in
it, and several heads stand side by side where a single one would be too small to keep the processor busy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

ROWS = 128
"""Queries of a tile. Measured for 8 heads of width 64 and 256 to 2,048 tokens on one core: 64 to 256 are within 20 %."""

CPU_ENTRIES, ACCELERATOR_ENTRIES = 1 << 19, 1 << 25
"""Weights of a tile: about what the processor's caches hold, and what keeps an accelerator busy."""

HIDDEN = 0.5
"""Additive masks below this share of the most negative number hide a key: Hugging Face writes that number, not -inf."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A rectangle of the weights: some pairs (batch, head of the keys), rows and keys; all ranges."""

    heads: slice
    rows: slice
    keys: slice


def tile_entries(group: int, num_rows: int, num_keys: int, *, on_cpu: bool) -> int:
    """Return how many weights a tile has at most: heads that share keys, queries and keys of one head."""
    least = group * max(1, min(ROWS // group, num_rows)) * num_keys
    return max(CPU_ENTRIES if on_cpu else ACCELERATOR_ENTRIES, least)


class Weights:
    """The attention weights of queries and keys, tile by tile.

    Args:
        query: (B, K, G, N, E): batch, heads of the keys, heads of the queries that share one, places, width.
        key: (B, K, M, E).
        mask: broadcastable to (B, K, G, N, M); True where a key takes part, or numbers that are added to the scores; or None.
        causal: whether the query at place i sees the keys up to place i alone.
        scale: factor of the scores.

    Attributes:
        query: (B K, G, N, E), times the scale.
        key: (B K, M, E).
    """

    def __init__(self, query: Tensor, key: Tensor, mask: Tensor | None, causal: bool, scale: float) -> None:
        self.query, self.key = query.flatten(0, 1) * scale, key.flatten(0, 1).contiguous()
        self.mask, self.causal, self.scale = mask, causal, scale
        self.num_heads = query.shape[1]
        self.group, self.num_rows, self.num_keys = query.shape[2], query.shape[3], key.shape[2]
        self.rows = max(1, min(ROWS // self.group, self.num_rows))
        if causal:
            self._later = torch.ones(self.rows, self.rows, dtype=torch.bool, device=key.device).triu_(1)

    def tiles(self) -> Iterator[Tile]:
        """All tiles, heads outside, each with the keys that some query in it sees."""
        entries = CPU_ENTRIES if self.query.device.type == "cpu" else ACCELERATOR_ENTRIES
        at_once = entries // max(1, self.group * self.rows * self.num_keys)
        starts = list(range(0, self.num_rows, self.rows))
        spans = _spans(self.mask, starts, self.rows, self.num_keys) if self.mask is not None else None
        for heads in self._heads(max(1, at_once)):
            for index, start in enumerate(starts):
                stop = min(start + self.rows, self.num_rows)
                first, last = 0, min(stop, self.num_keys) if self.causal else self.num_keys
                if spans is not None:
                    first, last = _joined(spans, self._batches(heads), index)
                yield Tile(heads, slice(start, stop), slice(first, last))

    def queries(self, tile: Tile) -> Tensor:
        """The scaled queries of a tile: (heads, rows, E), the group's heads below one another."""
        return self.rows_of(self.query, tile)

    def keys(self, tile: Tile) -> Tensor:
        """(heads, keys, E)."""
        return self.key[tile.heads, tile.keys]

    @staticmethod
    def rows_of(tensor: Tensor, tile: Tile) -> Tensor:
        """Return the part of the rows of a tile: (B K, G, N, ...) to (heads, rows, ...)."""
        return tensor[tile.heads, :, tile.rows].flatten(1, 2)

    def scores(self, tile: Tile) -> Tensor:
        """(heads, rows, keys), -inf where a query does not see a key."""
        scores = torch.bmm(self.queries(tile), self.keys(tile).mT)
        if self.causal:
            self._hide_later(scores, tile)
        if self.mask is not None:
            self._add_mask(scores, tile)
        return scores

    def exponentials(self, tile: Tile, statistics: Tensor) -> Tensor:
        """exp(scores - largest score): the weights but for the factor of their row, see :func:`factors`."""
        return self.scores(tile).sub_(self.rows_of(statistics, tile)[..., :1]).exp_()

    def _hide_later(self, scores: Tensor, tile: Tile) -> None:
        first, last = tile.rows.start, tile.keys.stop
        if last <= first:
            return
        rows = tile.rows.stop - first
        later = self._later[:rows, : last - first]
        scores.view(len(scores), self.group, rows, -1)[..., first:].masked_fill_(later, -float("inf"))

    def _add_mask(self, scores: Tensor, tile: Tile) -> None:
        assert self.mask is not None, "looked at by the caller"
        batches, heads = self._batches(tile.heads), self._heads_within(tile.heads)
        ranges = (batches, heads, slice(None), tile.rows, tile.keys)
        piece = self.mask[tuple(r if n > 1 else slice(None) for r, n in zip(ranges, self.mask.shape, strict=True))]
        rows = tile.rows.stop - tile.rows.start
        whole = scores.view(batches.stop - batches.start, -1, self.group, rows, scores.shape[-1])
        if piece.dtype is torch.bool:
            whole.masked_fill_(~piece, -float("inf"))
        else:
            whole.add_(piece)

    def _heads(self, at_once: int) -> Iterator[slice]:
        """Ranges of heads that belong to one entry of the batch, or to several with all of their heads."""
        total = len(self.key)
        step = at_once // self.num_heads * self.num_heads if at_once >= self.num_heads else at_once
        start = 0
        while start < total:
            within = self.num_heads - start % self.num_heads
            stop = min(total, start + (step if step >= self.num_heads else min(step, within)))
            yield slice(start, stop)
            start = stop

    def _batches(self, heads: slice) -> slice:
        return slice(heads.start // self.num_heads, -(-heads.stop // self.num_heads))

    def _heads_within(self, heads: slice) -> slice:
        start = heads.start % self.num_heads
        return slice(start, start + min(heads.stop - heads.start, self.num_heads))


def factors(statistics: Tensor) -> Tensor:
    """1 / the sum of a row's exponentials: (..., 2) to (..., 1)."""
    return statistics[..., 1:].neg().exp_()


def _spans(mask: Tensor, starts: list[int], rows: int, num_keys: int) -> list[list[tuple[int, int]]]:
    """First and last key that matters for each entry of the batch and range of rows; a single list for a shared mask.

    What lies outside is neither computed nor read: padding, other documents of a packed sequence, the future of a causal mask.
    """
    hidden = torch.finfo(mask.dtype).min * HIDDEN if mask.is_floating_point() else None
    seen = mask if hidden is None else mask > hidden
    seen = seen.flatten(1, 2).any(1).expand(-1, -1, num_keys)
    # A row that sees nothing is uniform where the mask is a large negative number: such rows need all their keys.
    blind = None if hidden is None else (~(mask > hidden).any(-1)).flatten(1, 2).any(1)
    found = []
    for start in starts:
        block = seen if seen.shape[1] == 1 else seen[:, start : start + rows]
        columns = block.any(1)
        first, last = columns.int().argmax(-1), num_keys - columns.int().flip(-1).argmax(-1)
        last = torch.where(columns.any(-1), last, first + 1)
        if blind is not None:
            whole = (blind if blind.shape[1] == 1 else blind[:, start : start + rows]).any(-1)
            first, last = first.masked_fill(whole, 0), last.masked_fill(whole, num_keys)
        found.append(torch.stack([first, last], -1))
    return [[(first, last) for first, last in entry] for entry in torch.stack(found, 1).tolist()]


def _joined(spans: list[list[tuple[int, int]]], batches: slice, index: int) -> tuple[int, int]:
    """The keys that matter to any of several entries of the batch."""
    own = spans if len(spans) == 1 else spans[batches]
    return min(entry[index][0] for entry in own), max(entry[index][1] for entry in own)
