"""Parts of data that processes of a group take: together the whole, whatever form the data have."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from curvscope.errors import InvalidArgument
from curvscope.operators.collective import own_part
from curvscope.operators.collective._parts import _own, _Place

LOSS = nn.CrossEntropyLoss()
X, Y = torch.arange(46.0).reshape(23, 2), torch.arange(23) % 3


def of_all(make, size, loss=LOSS):
    """The parts of all processes, and the digests of what they were taken of; each has its own state of randomness."""
    parts, places = [], [_Place(rank, size) for rank in range(size)]
    for place in places:
        torch.manual_seed(100 + place.rank)
        token = _own.set(place)
        try:
            parts.append(list(own_part(make(), loss)))
        finally:
            _own.reset(token)
    return parts, [place.whole for place in places]


def samples(parts):
    return sorted(int(x[0]) // 2 for part in parts for batch in part for x in batch[0])


FORMS = {
    "batches": lambda: [(X[:14], Y[:14]), (X[14:], Y[14:])],
    "one batch": lambda: (X, Y),
    "a shuffling loader": lambda: DataLoader(TensorDataset(X, Y), batch_size=4, shuffle=True),
}


@pytest.mark.parametrize("size", [1, 2, 5, 16])
@pytest.mark.parametrize("form", FORMS)
def test_parts_are_the_whole_once(form, size):
    parts, wholes = of_all(FORMS[form], size)
    assert samples(parts) == list(range(23))
    assert len(set(wholes)) == 1


def test_two_tensors_are_two_batches_for_a_loss_of_model_and_batch():
    parts, _ = of_all(lambda: (X, X + 1), 2, lambda model, batch: model(batch).sum())
    assert sum(len(batch) for part in parts for batch in part) == 46


def test_data_that_differ_between_processes_are_seen():
    _, wholes = of_all(lambda: [(torch.randn(8, 2), Y[:8])], 2)
    assert len(set(wholes)) == 2


def test_more_processes_than_samples_are_refused():
    with pytest.raises(InvalidArgument, match="23 pieces for 24 processes"):
        of_all(lambda: (X, Y), 24)
