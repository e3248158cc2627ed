"""Notice that a model was trained on after its parameters were copied; from versions and storage, without a product."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from torch import Tensor, nn

log = logging.getLogger(__name__)

Mark = list[tuple[int, int]]


class Watch:
    """The model's own parameters beside the copies that are measured.

    Args:
        model: whose parameters these are.
        names: of the parameters that were copied.
        silent: whether the copy is meant, so that nothing is said.

    Cost: of each look, a version and an address for each parameter tensor; where these differ, one comparison of the values.
    """

    def __init__(self, model: nn.Module, names: Sequence[str], *, silent: bool = False) -> None:
        self.model, self.names, self.silent = model, tuple(names), silent
        self.reset()

    def reset(self) -> None:
        """Take the present parameters for those that were copied."""
        present = dict(self.model.named_parameters())
        self._own: list[Tensor] = [present[name] for name in self.names if name in present]
        self._mark, self._told = self._look(), False

    def _look(self) -> Mark:
        return [(tensor._version if not tensor.is_inference() else 0, tensor.data_ptr()) for tensor in self._own]

    def changed(self) -> bool:
        """Return whether versions or storage differ from those of the last look, and nothing was said of that yet."""
        return not (self._told or self.silent) and self._look() != self._mark

    def settle(self) -> None:
        """Take the present versions for known: the values were found to be the same."""
        self._mark = self._look()

    def say_once(self) -> None:
        """Say which weights are measured, and how to have the others."""
        if self._told or self.silent:
            return
        self._told = True
        log.warning(
            "the model's parameters have changed since this operator was made; its products are still those of the earlier "
            "weights. Call H.move() to measure at the present ones (again after every change), or pass weights='copy' where "
            "the earlier ones are meant"
        )
