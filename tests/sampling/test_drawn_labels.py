"""Monte-Carlo Fisher matrices of parts of the data: the labels that the whole matrix drew."""

import pytest
import torch
from torch import nn

import curvscope as cs
from curvscope.sampling._deal import dealt


class Tokens(nn.Module):
    """Logits (N, classes, places) of sequences."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 3)

    def forward(self, x):
        return self.linear(x).movedim(-1, 1)


def classes(n, generator):
    return torch.randint(3, (n,), generator=generator)


def numbers(n, generator):
    return torch.rand(n, 2, generator=generator).round().double()


CASES = {
    "classes": (nn.CrossEntropyLoss(), lambda: nn.Linear(4, 3), classes),
    "ignored labels": (nn.CrossEntropyLoss(ignore_index=1), lambda: nn.Linear(4, 3), classes),
    "normal": (nn.MSELoss(), lambda: nn.Linear(4, 2), numbers),
    "binary": (nn.BCEWithLogitsLoss(), lambda: nn.Linear(4, 2), numbers),
}


def matrix_of(operator):
    return operator @ torch.eye(operator.shape[0]).double()


def check_parts(operator, labels=None):
    """The parts' matrices, weighted by their terms, must be the whole matrix, which random labels of their own would not be."""
    shared = dealt(operator, 4, 0, None, labels)
    parts = [shared.of_folds([fold]) for fold in range(4)]
    terms = torch.tensor([part.objective.total_terms for part in parts]).double()
    mean = sum(share * matrix_of(part) for share, part in zip(terms / terms.sum(), parts, strict=True))
    assert torch.allclose(mean, matrix_of(operator), atol=1e-12)
    first = matrix_of(parts[0])
    shared.exchange(parts[1], [0])
    assert torch.equal(matrix_of(parts[1]), first)
    assert parts[1].fingerprint == parts[0].fingerprint


@pytest.mark.parametrize("name", CASES)
def test_parts_have_the_labels_of_the_whole(name):
    loss, build, draw = CASES[name]
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(37, 4, generator=generator).double(), draw(37, generator)
    data = list(zip(x.split(9), y.split(9), strict=True))
    operator = cs.monte_carlo_fisher(build().double(), loss, data, num_draws=2, strategy="double_backward")
    check_parts(operator)


def test_parts_of_sequences_with_ignored_labels_have_the_labels_of_the_whole():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(20, 5, 2, generator=generator).double(), torch.randint(3, (20, 5), generator=generator)
    y[::3, 2:] = -100
    data = list(zip(x.split(6), y.split(6), strict=True))
    operator = cs.monte_carlo_fisher(Tokens().double(), nn.CrossEntropyLoss(), data, strategy="double_backward")
    check_parts(operator)
    check_parts(operator, labels=[number // 2 for number in range(20)])


def test_the_matrix_of_drawn_labels_has_a_population():
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([4.0, 1.0, 0.3]).double()
    x = torch.randn(160, 3, generator=generator).double() * scale
    operator = cs.monte_carlo_fisher(nn.Linear(3, 1, bias=False).double(), nn.MSELoss(), [(x, torch.zeros(160, 1).double())])
    found = cs.population(operator, cs.eigsh(operator, k=2), progress=False)
    truth = 2 * scale[:2].square()  # the second moment of gradients of noise of variance 1/2: 2 E x x'
    assert ((found.sampling_bracket[:, 0] < truth) & (truth < found.sampling_bracket[:, 1])).all()
