"""What several tests of operators need."""

import pytest
import torch


@pytest.fixture
def double():
    """New tensors and networks are in float64, drawn from seed 0."""
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)
