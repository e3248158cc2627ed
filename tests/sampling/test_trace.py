"""The trace over the choice of the data: against dense traces of the folds, and coverage where it is known."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import curvscope as cs
from curvscope.errors import InvalidArgument, InvalidType
from curvscope.sampling._deal import dealt


def operator_of(seed=0, n=60, dtype=torch.float64):
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(seed)).to(dtype)
    x = x * torch.tensor([3.0, 1.0, 0.5, 0.1]).to(dtype)
    model = nn.Linear(4, 1, bias=False).to(dtype)
    return x, cs.ggn(model, nn.MSELoss(), [(x, torch.zeros(n, 1).to(dtype))], strategy="double_backward")


@pytest.mark.parametrize("folds", [4, 7])
def test_exact_traces_of_folds_give_students_interval(folds):
    x, operator = operator_of()
    found = cs.population_trace(operator, folds=folds)
    traces = 2 * x.square().sum(1).numpy()
    fold = dealt(operator, folds, 0, None, None).fold.numpy()
    assert math.isclose(found.value, traces.mean(), rel_tol=1e-10)
    assert max(abs(end - found.value) for end in found.numerical_interval) < 1e-9  # D products a fold: exact
    if folds == 4:  # equal folds: the textbook's interval
        means = np.array([traces[fold == number].mean() for number in range(folds)])
        half = 3.182446305284263 * means.std(ddof=1) / math.sqrt(folds)
        assert math.isclose(found.sampling_interval[1] - found.value, half, rel_tol=1e-8)
    assert found.samples == 60


def test_the_trace_of_the_population_is_held():
    held = 0
    for seed in range(20):
        found = cs.population_trace(operator_of(seed)[1], folds=10, progress=False)
        low, high = found.sampling_interval
        held += low <= 2 * 10.26 <= high
    assert held >= 16  # 19 expected; four standard deviations below


def test_what_cannot_be_is_said():
    _, operator = operator_of()
    for options, words in (
        ({"folds": 3}, "at least 4"),
        ({"folds": 40}, "60 samples for 40 folds"),
        ({"max_products": 2}, "max_products=2"),
        ({"level": 0.0}, "level=0"),
    ):
        with pytest.raises(InvalidArgument, match=words):
            cs.population_trace(operator, **options)
    with pytest.raises(InvalidType, match="does not know the samples"):
        cs.population_trace(operator.shift(1.0))
