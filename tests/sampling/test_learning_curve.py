"""Curvature against the number of samples: against dense matrices of the same parts, and against closed forms."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import curvscope as cs
from curvscope.errors import InvalidArgument, InvalidType, RunConflict
from curvscope.sampling._deal import dealt

sys.path.insert(0, str(Path(__file__).parent))

from population_targets import Immediate

SCALE = torch.tensor([20.0, 8.0, 4.0, *[0.1] * 5]).double().sqrt()


def linear(n=256, **options):
    x = torch.randn(n, 8, generator=torch.Generator().manual_seed(0)).double() * SCALE
    model = nn.Linear(8, 1, bias=False).double()
    data = [(x, torch.zeros(n, 1).double())]
    operator = cs.ggn(model, nn.MSELoss(), data, strategy="double_backward", **options)
    solution = cs.eigsh(operator, k=3)
    return x, operator, solution, cs.population(operator, solution, progress=False)


SETTING = linear()


def test_parts_have_the_eigenvalues_of_their_dense_matrices(tmp_path):
    x, operator, solution, population = SETTING
    curve = cs.learning_curve(operator, solution, population, halvings=3, repeats=3, run=tmp_path / "run", progress=False)
    assert curve.sizes.tolist() == [32, 64, 128, 256]
    assert curve.parts.tolist() == [3, 3, 2, 1]
    fold = dealt(operator, 8, 0, None, None).fold
    for place, width in enumerate((1, 2, 4)):
        found = []
        for part in range(int(curve.parts[place])):
            rows = x[(fold >= part * width) & (fold < (part + 1) * width)]
            found.append(torch.linalg.eigvalsh(2 * rows.mT @ rows / len(rows)).flip(0)[:3])
        dense = torch.stack(found)
        assert torch.allclose(curve.eigenvalues[place], dense.mean(0), rtol=1e-4)
        assert torch.allclose(curve.spread[place], dense.std(0), rtol=1e-3)
        assert torch.allclose(curve.sums[place], dense.cumsum(1).mean(0), rtol=1e-4)
        for rule in ("gap", "ratio", "elbow"):
            expected = np.mean([cs.count_outliers(values, rule, most=2) for values in dense])
            assert float(curve.outliers[rule][place]) == expected
    assert torch.equal(curve.eigenvalues[-1], solution.eigenvalues)
    assert curve.spread[-1].isnan().all()
    # the same call reads the run and multiplies nothing; another number of halvings is another dealing
    before = curve.products
    again = cs.learning_curve(operator, solution, population, halvings=3, repeats=3, run=tmp_path / "run", progress=False)
    assert torch.equal(again.eigenvalues, curve.eigenvalues)
    assert again.products == before
    with pytest.raises(RunConflict):
        cs.learning_curve(operator, solution, population, halvings=2, run=tmp_path / "run", progress=False)


def test_small_samples_have_larger_eigenvalues_and_scatter_as_theory_says():
    """For Gaussian inputs the standard deviation is lambda sqrt(2 / n)."""
    _, operator, solution, population = SETTING
    curve = cs.learning_curve(operator, solution, population, halvings=3, repeats=8, progress=False)
    expected = 2 * SCALE[0].square() * math.sqrt(2 / 32)
    assert math.isclose(float(curve.spread[0, 0]), float(expected), rel_tol=0.8)  # of 8 parts: 27 % standard error
    assert curve.eigenvalues[0].sum() > curve.eigenvalues[-1].sum()


def test_the_answer_is_told_in_words_numbers_and_a_figure():
    _, operator, solution, population = SETTING
    curve = cs.learning_curve(operator, solution, population, halvings=2, progress=False)
    known = curve.determined(1.5)
    assert known == sorted(known)
    assert known[-1] == population.determined(1.5)
    assert curve.summary(1.5).startswith(population.summary(1.5))
    assert "Fewer samples would determine about: 128 " in str(curve)
    assert curve.samples_needed(2, 1.1) == population.samples_needed(2, 1.1)
    from matplotlib.figure import Figure

    axes = curve.plot(Figure().subplots())
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["eigenvalue 1", "eigenvalue 2", "eigenvalue 3"]
    assert curve.to_dict()["spread"][-1] == [None] * 3
    lacking = curve.eigenvalues.clone()
    lacking[0, 2] = torch.nan  # no part has so many of this sign
    plain = replace(curve, eigenvalues=lacking, sums=lacking.cumsum(1)).to_dict()
    assert plain["eigenvalues"][0][2] is plain["sums"][0][2] is None
    json.dumps(plain, allow_nan=False)


def test_both_ends_are_followed_at_their_places():
    generator = torch.Generator().manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    data = [(torch.randn(96, 4, generator=generator).double(), torch.arange(96) % 3)]
    operator = cs.hessian(model, nn.CrossEntropyLoss(), data, strategy="double_backward")
    solution = cs.eigsh(operator, k=6, which="BE")
    population = cs.population(operator, solution, folds=4, progress=False)
    curve = cs.learning_curve(operator, solution, population, halvings=1, progress=False)
    fold = dealt(operator, 4, 0, None, None)
    for place in range(2):
        matrix = fold.of_folds([2 * place, 2 * place + 1]) @ torch.eye(operator.shape[0]).double()
        values = torch.linalg.eigvalsh((matrix + matrix.mT) / 2)
        if not place:
            total = torch.cat([values.flip(0)[:3], values[:3]])
        else:
            total = total + torch.cat([values.flip(0)[:3], values[:3]])
    assert torch.allclose(curve.eigenvalues[0][:3], (total / 2)[:3], rtol=1e-3)
    assert torch.allclose(curve.eigenvalues[0][3:].sort().values, (total / 2)[3:].sort().values, rtol=1e-2, atol=1e-4)


def test_groups_of_other_sizes_stay_together_on_workers():
    operator = cs.Recipe("population_targets:sample").build()
    groups = [0] * 40 + [number // 2 for number in range(80, 160)]  # one group of 40, and 40 of two
    solution = cs.eigsh(operator, k=3)
    population = cs.population(operator, solution, groups=groups, folds=4, progress=False)
    options = {"groups": groups, "halvings": 2, "progress": False}
    here = cs.learning_curve(operator, solution, population, **options)
    there = cs.learning_curve(operator, solution, population, executor=cs.Workers(Immediate(), count=2), **options)
    assert torch.allclose(here.eigenvalues, there.eigenvalues, rtol=1e-5)
    assert here.sizes.tolist() == there.sizes.tolist() == [30, 60, 120]
    fold = dealt(operator, 4, 0, None, groups).fold
    assert all(len(fold[torch.tensor(groups) == name].unique()) == 1 for name in set(groups))
    x = torch.cat([batch for batch, _ in operator.objective.data]).double()
    dense = [torch.linalg.eigvalsh(2 * x[fold == part].mT @ x[fold == part] / int((fold == part).sum())) for part in range(4)]
    assert torch.allclose(here.eigenvalues[0], torch.stack(dense).flip(1)[:, :3].mean(0), rtol=1e-4)
    few = cs.learning_curve(operator, solution, population, **options | {"repeats": 2})
    counts = fold.bincount()
    assert few.sizes.tolist() == [round(float(counts[:2].double().mean())), 60, 120]
    assert few.sizes[0] != 30  # the large group is in one part, and parts differ


def test_what_cannot_be_is_said_before_any_solve():
    _, operator, solution, population = SETTING
    for options, words in (
        ({"halvings": 0}, "halvings=0"),
        ({"repeats": 1}, "repeats=1"),
        ({"halvings": 8}, "256 samples for 256 folds"),
    ):
        with pytest.raises(InvalidArgument, match=words):
            cs.learning_curve(operator, solution, population, progress=False, **options)
    with pytest.raises(InvalidArgument, match="another solution"):
        cs.learning_curve(operator, solution[:2], population)
    with pytest.raises(InvalidType, match="does not know the samples"):
        cs.learning_curve(operator.shift(1.0), solution, population)
