import pytest
import torch


def symmetric(eigenvalues, seed=0, dtype=torch.float64):
    """A dense symmetric matrix with the given spectrum, and its eigenvectors in that order."""
    values = torch.as_tensor(eigenvalues, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    U = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator, dtype=torch.float64)).Q
    A = (U * values) @ U.T
    return ((A + A.T) / 2).to(dtype), U


@pytest.fixture
def make_symmetric():
    return symmetric
