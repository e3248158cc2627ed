"""``cs.population`` on real operators: against dense matrices of the folds, with bad input, runs, workers and files."""

import logging
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import curvscope as cs
from curvscope.errors import CurvscopeError, InvalidArgument, InvalidType, OutOfBudget, RunConflict
from curvscope.operators import units_of
from curvscope.sampling import Population
from curvscope.sampling._deal import deal, dealt
from curvscope.sampling._folded import jackknife_spread
from curvscope.sampling._mask_overlap import overlap_interval
from curvscope.sampling._measure import measure
from curvscope.sampling._student import student_quantile
from curvscope.solvers import Resources

sys.path.insert(0, str(Path(__file__).parent))

from population_targets import Immediate, sample


def network(n=160, classes=3, **options):
    generator = torch.Generator().manual_seed(1)
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, classes)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    x = torch.randn(n, 5, generator=generator).double()
    y = torch.randint(classes, (n,), generator=generator)
    return model, nn.CrossEntropyLoss(), list(zip(x.split(64), y.split(64), strict=True))


def measured(operator, k=4, folds=8, **options):
    solution = cs.eigsh(operator, k=k, tol=1e-8, **options)
    shared = dealt(operator, folds, 0, None, None)
    return solution, shared, measure(shared, solution, Resources(progress=False))


@pytest.mark.parametrize("kind", [cs.hessian, cs.ggn, cs.empirical_fisher])
def test_folds_are_what_dense_matrices_of_the_same_samples_give(kind):
    model, loss, data = network()
    operator = kind(model, loss, data)
    solution, shared, found = measured(operator)
    x, y = (torch.cat(part) for part in zip(*data, strict=True))
    dense = [
        kind(model, loss, [(x[shared.fold == fold], y[shared.fold == fold])]) @ torch.eye(operator.shape[0]).double()
        for fold in range(8)
    ]
    # Traces in the span of all pairs and eigenvalues of the halves do not depend on the basis.
    assert torch.allclose(found.shares, torch.full((8,), 1 / 8).double())
    mean = torch.tensordot(found.shares, found.cores, 1)
    inside = found.whole[1]
    assert torch.allclose((inside.mT @ mean @ inside).diagonal(), solution.eigenvalues, rtol=1e-6, atol=1e-8)
    vectors = solution.eigenvectors.to_tensor().double()
    for core, matrix in zip(found.cores, dense, strict=True):
        assert torch.allclose(inside.mT @ core @ inside, vectors.mT @ matrix @ vectors, atol=1e-7)
    for number, (values, _, _) in enumerate(found.halves):
        half = sum(dense[4 * number : 4 * number + 4]) / 4
        all_values = torch.linalg.eigvalsh(half)
        expected = all_values[all_values.abs().argsort(descending=True)][: len(values)]
        assert torch.allclose(values.abs(), expected.abs(), rtol=1e-4)


def test_the_cost_is_within_two_solves_and_four_products_a_pair():
    model, loss, data = network()
    operator = cs.hessian(model, loss, data)
    solution = cs.eigsh(operator, k=10, method="krylov")
    found = cs.population(operator, solution, folds=8, progress=False)
    spent = solution.cost.products + solution.cost.certificate_products
    assert found.products <= 2 * spent + 4 * 10


def test_both_ends_have_intervals_with_their_signs():
    model, loss, data = network(n=400)
    operator = cs.hessian(model, loss, data)
    solution = cs.eigsh(operator, k=8)
    assert (solution.eigenvalues < 0).any()
    found = cs.population(operator, solution, progress=False)
    assert (found.sampling_bracket[:, 0] < found.sampling_bracket[:, 1]).all()
    assert (found.sampling_interval[:, 0] < found.sampling_interval[:, 1]).all()
    # the negative end is the positive one of minus the matrix
    minus = cs.eigsh(operator, k=int((solution.eigenvalues < 0).sum()), which="SA")
    alone = cs.population(operator, minus, progress=False)
    negative = solution.eigenvalues < 0
    assert torch.allclose(alone.estimate, found.estimate[negative], rtol=0.05)
    assert torch.allclose(alone.sampling_bracket, found.sampling_bracket[negative], rtol=0.25)


@pytest.mark.parametrize("which", ["LA", pytest.param("BE", marks=pytest.mark.slow)])
def test_orders_agree_on_the_largest_eigenvalue(which):
    model, loss, data = network()
    operator = cs.hessian(model, loss, data)
    expected = cs.population(operator, cs.eigsh(operator, k=4), progress=False)
    found = cs.population(operator, cs.eigsh(operator, k=4, which=which), progress=False)
    assert math.isclose(float(found.estimate[0]), float(expected.estimate[0]), rel_tol=1e-2)
    assert torch.allclose(found.sampling_interval[0], expected.sampling_interval[0], rtol=3e-2)


@pytest.mark.slow
def test_the_population_is_held_where_it_is_known():
    """Linear regression: the matrix is 2 E x x'. Ten samples of 120, the three separated eigenvalues."""
    held, truth = np.zeros(2), torch.tensor([32.0, 8.0, 2.0]).double()
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        scale = torch.tensor([4.0, 2.0, 1.0, *[0.2] * 5])
        data = [(torch.randn(120, 8, generator=generator) * scale, torch.zeros(120, 1))]
        operator = cs.ggn(nn.Linear(8, 1, bias=False), nn.MSELoss(), data)
        found = cs.population(operator, cs.eigsh(operator, k=3), progress=False)
        for place, interval in enumerate((found.sampling_bracket, found.sampling_interval)):
            held[place] += ((interval[:, 0] <= truth) & (truth <= interval[:, 1])).double().mean()
    assert (held / 10 >= 0.95 - 4 * math.sqrt(0.95 * 0.05 / 30)).all()


def test_labels_stay_in_one_fold_and_widen_intervals_of_correlated_samples():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 4, generator=generator) * torch.tensor([3.0, 1.0, 0.2, 0.2])
    copied = x.repeat_interleave(5, dim=0)
    labels = torch.arange(40).repeat_interleave(5)
    operator = cs.ggn(nn.Linear(4, 1, bias=False), nn.MSELoss(), [(copied, torch.zeros(200, 1))])
    fold = deal(units_of(operator.objective.data), 10, labels=labels.tolist())
    assert all(len(set(fold[labels == label].tolist())) == 1 for label in range(40))
    solution = cs.eigsh(operator, k=2)
    alone = cs.population(operator, solution, progress=False)
    grouped = cs.population(operator, solution, groups=labels, progress=False)
    assert (grouped.spread > 1.5 * alone.spread).all()
    assert grouped.observations == 40
    assert "40 groups" in str(grouped)


def test_copies_of_samples_are_seen(caplog):
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    operator = cs.ggn(nn.Linear(3, 1, bias=False), nn.MSELoss(), [(torch.cat([x, x[:7]]), torch.zeros(57, 1))])
    with caplog.at_level(logging.WARNING):
        found = cs.population(operator, cs.eigsh(operator, k=1), progress=False)
    assert found.duplicates == 7
    assert "7 of 57 samples" in caplog.text
    assert "7 of the 57 samples are equal" in str(found)


def test_what_cannot_be_dealt_is_said_before_any_product():
    model, loss, data = network()
    mean = cs.hessian(model, loss, data)
    solution = cs.eigsh(mean, k=2)
    summed = cs.hessian(model, nn.CrossEntropyLoss(reduction="sum"), data)
    with pytest.raises(InvalidArgument, match="sums over the samples"):
        cs.population(summed, cs.eigsh(summed, k=2))
    few = cs.hessian(model, loss, [(data[0][0][:9], data[0][1][:9])])
    with pytest.raises(InvalidArgument, match=r"9 samples for 20 folds.*folds=4"):
        cs.population(few, cs.eigsh(few, k=2))
    with pytest.raises(InvalidArgument, match="not the operator of the solution"):
        cs.population(few, solution)
    with pytest.raises(InvalidType, match="does not know the samples"):
        cs.population(mean.shift(1.0), solution)
    with pytest.raises(InvalidType, match="does not know the samples"):
        cs.population(torch.eye(3), cs.eigsh(torch.eye(3), k=1))
    dropped = cs.hessian(nn.Sequential(nn.Dropout(0.5), model), loss, data, dropout=1)
    with pytest.raises(InvalidArgument, match="one mask for each place"):
        cs.population(dropped, cs.eigsh(dropped, k=2))
    function = cs.hessian(lambda p: (p**4).sum(), torch.ones(3))
    with pytest.raises(InvalidArgument, match="no data"):
        cs.population(function, cs.eigsh(function, k=1))
    for options, words in (
        ({"folds": 3}, "at least 4"),
        ({"level": 1.0}, "level=1"),
        ({"by": "rows"}, "by='rows'"),
        ({"masks": 3}, "masks has a int in it"),
        ({"groups": [1, 2]}, "2 labels, and the data 160"),
        ({"groups": [0] * 160}, "1 different labels"),
    ):
        with pytest.raises(CurvscopeError, match=words):
            cs.population(mean, solution, **options)


def test_batch_statistics_make_batches_the_samples(caplog):
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3)).double()
    _, loss, data = network(n=480)
    batches = [(x, y) for whole, labels in data for x, y in zip(whole.split(16), labels.split(16), strict=True)]
    operator = cs.hessian(model, loss, batches, batchnorm="batch")
    solution = cs.eigsh(operator, k=2)
    with pytest.raises(InvalidArgument, match="batch statistics"):
        cs.population(operator, solution, by="samples")
    with caplog.at_level(logging.WARNING):
        found = cs.population(operator, solution, folds=10, progress=False)
    assert (found.unit, found.samples) == ("batches", 30)
    assert "batch statistics" in caplog.text


def test_results_are_kept_in_files_tables_and_figures(tmp_path):
    operator = sample()
    found = cs.population(operator, cs.eigsh(operator, k=4), progress=False)
    found.save(tmp_path / "population.json")
    again = cs.open(tmp_path / "population.json")
    assert isinstance(again, Population)
    assert again.to_dict() == found.to_dict()
    assert str(again) == str(found)
    pandas = pytest.importorskip("pandas")
    table = found.to_pandas()
    assert isinstance(table, pandas.DataFrame)
    assert {"numerical_lower", "sampling_lower", "bracket_lower", "valid"} <= set(table.columns)
    from matplotlib.figure import Figure

    axes = found.plot(Figure().subplots(), log=True)
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert any("numerical" in label for label in labels)
    assert any("sampling" in label for label in labels)


def test_the_answer_in_words():
    operator = sample(n=120)
    found = cs.population(operator, cs.eigsh(operator, k=3), progress=False)
    assert found.determined(2.0) == 3
    assert found.summary() == "120 samples determine three eigenvalues to a factor of two, all of those computed."
    tight = found.summary(1.01)
    assert tight.startswith("120 samples determine no eigenvalues to a factor of 1.01; for eigenvalue 3 ")
    # a standard error that is small enough is no answer where no interval of a single eigenvalue is valid
    joined = replace(found, valid=torch.zeros(3, dtype=torch.bool), sampling_bracket=torch.tensor([[0.1, 9.0]] * 3).double())
    assert joined.summary().endswith("eigenvalue 3 has close neighbours, so that its bracket alone holds.")
    # four times the samples halve the error: what is needed for a factor falls with its square
    small, large = found.samples_needed(0, 1.05), found.samples_needed(0, 1.1)
    assert 3 < small / large < 5
    with pytest.raises(InvalidArgument, match="no eigenvalue 5"):
        found.samples_needed(5)
    with pytest.raises(InvalidArgument, match="above 1"):
        found.determined(1.0)


def interrupt_in_folds(name, done, total, note):
    if name == "folds" and done > total // 2:
        raise KeyboardInterrupt


def test_runs_resume_with_the_same_numbers(tmp_path):
    operator = sample()
    solution = cs.eigsh(operator, k=3)
    whole = cs.population(operator, solution, progress=False)
    with pytest.raises(KeyboardInterrupt):
        cs.population(operator, solution, run=tmp_path / "run", progress=interrupt_in_folds)
    events = []
    resumed = cs.population(operator, solution, run=tmp_path / "run", progress=lambda *event: events.append(event))
    assert sum(note == "from the run" for name, _, _, note in events if name == "folds") >= 10
    for name in ("estimate", "sampling_interval", "sampling_bracket", "overlap_of_halves"):
        assert torch.allclose(getattr(resumed, name), getattr(whole, name), rtol=1e-9)
    assert cs.population(operator, solution, run=tmp_path / "run", progress=False).to_dict() == resumed.to_dict()
    with pytest.raises(RunConflict, match="folds"):
        cs.population(operator, solution, folds=10, run=tmp_path / "run")


@pytest.mark.parametrize("labelled", [pytest.param(False, marks=pytest.mark.slow), True])
def test_workers_build_the_folds(labelled):
    operator = cs.Recipe("population_targets:sample").build()
    solution = cs.eigsh(operator, k=3)
    groups = [number // 2 for number in range(120)] if labelled else None
    here = cs.population(operator, solution, groups=groups, progress=False)
    there = cs.population(operator, solution, groups=groups, executor=cs.Workers(Immediate(), count=2), progress=False)
    assert torch.allclose(here.sampling_bracket, there.sampling_bracket, rtol=1e-6)
    assert torch.allclose(here.estimate, there.estimate, rtol=1e-6)


def test_memory_that_cannot_hold_the_vectors_is_refused():
    operator = sample()
    solution = cs.eigsh(operator, k=3)
    with pytest.raises(OutOfBudget, match="fewer pairs"):
        cs.population(operator, solution, memory=1000)


def test_samples_of_other_forms_are_dealt():
    """Mappings with a scalar beside rows, and a last batch that is shorter."""
    x = torch.randn(90, 4, generator=torch.Generator().manual_seed(0)).double()
    model = nn.Linear(4, 1, bias=False).double()
    batches = [{"x": part, "scale": torch.tensor(2.0).double()} for part in x.split(40)]

    def loss(model, batch):
        return (batch["scale"] * model(batch["x"])).square().mean()

    operator = cs.hessian(model, loss, batches)
    shared = dealt(operator, 9, 0, None, None)
    assert shared.units.count == 90
    parts = [shared.of_folds([fold]) @ torch.eye(4).double() for fold in range(9)]
    assert torch.allclose(sum(parts) / 9, 8 * x.mT @ x / 90)
    expected = 8 * x[shared.fold == 3].mT @ x[shared.fold == 3] / 10
    assert torch.allclose(parts[3], expected)


def test_batches_without_rows_are_dealt_whole():
    """Graphs, say: tensors of different lengths in one batch."""
    generator = torch.Generator().manual_seed(0)
    batches = [(torch.randn(3, 4, generator=generator).double(), torch.zeros(1).double()) for _ in range(40)]

    def loss(model, batch):
        return model(batch[0]).sum().square() + batch[1].sum()

    operator = cs.hessian(nn.Linear(4, 1, bias=False).double(), loss, batches)
    found = cs.population(operator, cs.eigsh(operator, k=1), folds=10, progress=False)
    assert (found.unit, found.samples) == ("batches", 40)
    with pytest.raises(InvalidArgument, match="no row for every sample"):
        cs.population(operator, cs.eigsh(operator, k=1), by="samples")


def test_overlaps_with_masks_have_intervals():
    """The value is that of ``cs.overlap``; rankings, fixed masks, and several at once agree with each alone."""
    operator = sample()
    solution = cs.eigsh(operator, k=3)
    ranking, mask = cs.masks.random(12, seed=0), cs.masks.from_indices([0, 1, 5], size=12)
    both = cs.population(operator, solution, masks=[ranking, mask], progress=False)
    for one in (ranking, mask):
        curve, plain = both.overlaps[one.name], cs.overlap(solution, one)
        assert torch.allclose(curve.value, plain.value, atol=1e-6)
        assert torch.equal(curve.chance, plain.chance)
        assert (curve.sampling_lower <= curve.sampling_upper).all()
        assert {"sampling_lower", "sampling_upper"} <= set(curve.to_dict())
        assert "sampling interval" in str(curve)
        alone = cs.population(operator, solution, masks=one, progress=False).overlaps[one.name]
        assert torch.allclose(alone.sampling_upper, curve.sampling_upper, rtol=1e-6)
    with pytest.raises(InvalidArgument, match="13 parameters, the vectors 12 rows"):
        cs.population(operator, solution, masks=cs.masks.random(13))
    with pytest.raises(InvalidType, match="masks has a str in it"):
        cs.population(operator, solution, masks=["magnitude"])


def test_the_spread_of_an_overlap_is_that_of_dense_matrices_without_each_fold():
    """Vectors outside of the basis count to first order: without them the spread would be too small."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([3.0, *[1.0] * 29]).double()
    turn = torch.linalg.qr(torch.randn(30, 30, generator=generator).double()).Q
    x = (torch.randn(400, 30, generator=generator).double() * scale) @ turn
    data = [(x, torch.zeros(400, 1).double())]
    operator = cs.ggn(nn.Linear(30, 1, bias=False).double(), nn.MSELoss(), data)
    solution = cs.eigsh(operator, k=1, tol=1e-9)
    shared = dealt(operator, 20, 0, None, None)
    mask = cs.masks.from_indices([0, 3], size=30)
    found = measure(shared, solution, Resources(progress=False), torch.tensor([0, 3]))
    inside = []
    for fold in range(20):
        rest = x[shared.fold != fold]
        vector = torch.linalg.eigh(rest.mT @ rest).eigenvectors[:, -1]
        inside.append(vector[[0, 3]].square().sum())
    value = cs.overlap(solution, mask).value[:1]
    exact = jackknife_spread(value, torch.stack(inside)[:, None], found.shares)
    vectors = found.whole[1], found.halves[0][1], found.halves[1][1]
    curve = overlap_interval(mask, found.rows, found.cores, found.shares, vectors, "LM", 0.95)
    halves = torch.stack([(found.rows.basis @ part[:, :1]).square().sum() for part in vectors[1:]]).mean()
    bias = halves - value
    half = curve.sampling_upper - (value - bias)
    expected = torch.hypot(student_quantile(0.975, 19) * exact, bias)
    assert torch.allclose(half, expected, rtol=0.15)
