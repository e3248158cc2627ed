import pytest
import torch

from curvscope.tall import TallMatrix


class Stored(TallMatrix):
    """What any stored matrix offers: rows and columns, nothing else; counts the entries read at a time."""

    def __init__(self, tensor):
        self.tensor, self.shape, self.dtype, self.device = tensor, tuple(tensor.shape), tensor.dtype, tensor.device
        self.largest_read = 0

    def columns(self, start, stop):
        return self._read(self.tensor[:, start:stop])

    def rows(self, index):
        return self._read(self.tensor[index])

    def _read(self, piece):
        self.largest_read = max(self.largest_read, piece.numel())
        return piece.clone()


# The rest of the contract is for those who write; whoever only compares subspaces must do without.
Stored.__abstractmethods__ = frozenset()


@pytest.fixture
def stored():
    return Stored


@pytest.fixture
def basis():
    def make(rows, columns, seed=0, dtype=torch.float64):
        generator = torch.Generator().manual_seed(seed)
        return torch.linalg.qr(torch.randn(rows, columns, generator=generator, dtype=torch.float64)).Q.to(dtype)

    return make
