"""Tables of the ``datasets`` library, read as batches of tensors."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from curvscope.errors import InvalidArgument, InvalidType

log = logging.getLogger(__name__)

ROWS = 64
"""Rows of a batch; the matrix is the same for any number."""


def is_table(data: Any) -> bool:
    """Return whether data is of the ``datasets`` library: a table whose rows are samples, or splits of them."""
    return type(data).__module__.partition(".")[0] == "datasets" and hasattr(data, "with_format")


class Table:
    """The rows of a ``datasets.Dataset`` as batches: mappings of tensors, a column each.

    Columns without numbers (texts) are left out, which the log says.

    Raises:
        InvalidType: a dictionary of splits. InvalidArgument: (when iterated) rows of different lengths in a column.
    """

    def __init__(self, data: Any) -> None:
        if isinstance(data, dict):
            splits = ", ".join(map(repr, data))
            raise InvalidType(
                f"data is a {type(data).__name__} with the splits {splits}: pass one of them, data[{next(iter(data))!r}]"
            )
        self.table = data.with_format("torch")
        self.left_out: set[str] = set()

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for batch in self.table.iter(batch_size=ROWS):
            self._check(batch)
            yield {name: column for name, column in batch.items() if isinstance(column, Tensor)}

    def _check(self, batch: dict[str, Any]) -> None:
        others = {name: column for name, column in batch.items() if not isinstance(column, Tensor)}
        for name, column in others.items():
            if any(isinstance(item, Tensor) for item in column):
                raise InvalidArgument(
                    f"the rows of column {name!r} have different lengths: pad them, as in dataset.map(lambda row: "
                    "tokenizer(row['text'], padding='max_length', truncation=True)), or pass a DataLoader whose collate_fn does"
                )
        if fresh := set(others) - self.left_out:
            self.left_out |= fresh
            log.warning("columns that hold no numbers are left out of the batches: %s", ", ".join(sorted(fresh)))
