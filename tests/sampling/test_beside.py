"""Numerical and sampling intervals side by side, wherever a solution or a curve is shown."""

from dataclasses import replace

import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

import curvscope as cs
from curvscope.errors import InvalidArgument
from curvscope.runs._contents import pairs_table


def sampled():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(80, 6, generator=generator).double() * torch.tensor([4.0, 2.0, 1.0, 0.1, 0.1, 0.1])
    model, data = nn.Linear(6, 1, bias=False).double(), [(x, torch.zeros(80, 1).double())]
    operator = cs.ggn(model, nn.MSELoss(), data, strategy="double_backward")
    solution = cs.eigsh(operator, k=3)
    return operator, solution, cs.population(operator, solution, masks=cs.masks.by_magnitude(model), progress=False)


OPERATOR, SOLUTION, FOUND = sampled()
BOTH = FOUND.beside(SOLUTION)


def test_a_solution_keeps_both_kinds_apart():
    assert torch.equal(BOTH.intervals, SOLUTION.intervals)
    assert torch.equal(BOTH.sampling_intervals, FOUND.best_interval)
    assert SOLUTION.sampling_intervals is None
    widths = [interval[:, 1] - interval[:, 0] for interval in (BOTH.sampling_intervals, BOTH.intervals)]
    assert (widths[0] > 1e3 * widths[1]).all()
    assert torch.equal(BOTH[1:].sampling_intervals, FOUND.best_interval[1:])
    assert torch.equal(BOTH[::-1].sampling_intervals, FOUND.best_interval.flip(0))
    assert torch.equal(cs.certify(OPERATOR, BOTH).sampling_intervals, FOUND.best_interval)


def test_both_are_printed_drawn_and_tabulated_under_their_names():
    low = f"[{float(BOTH.sampling_intervals[0, 0]):.4g}"
    assert low in str(BOTH)
    assert "numerical  sampling interval" in str(BOTH)
    assert "sampling" not in str(SOLUTION)
    legend = BOTH.plot(Figure().subplots()).get_legend()
    assert [text.get_text() for text in legend.get_texts()] == [
        "population, sampling interval",
        "these samples, numerical interval",
    ]
    table = pairs_table(BOTH)
    assert table.heads[2] == "numerical\ninterval"
    assert table.heads[-1] == "sampling\ninterval"
    assert table.rows[0][-1].startswith(low)
    pandas = pytest.importorskip("pandas")
    assert isinstance(BOTH.to_pandas(), pandas.DataFrame)
    assert BOTH.to_pandas()["sampling_lower"].tolist() == BOTH.sampling_intervals[:, 0].tolist()


def test_both_are_saved_and_damage_is_seen(tmp_path):
    BOTH.save(tmp_path / "solution")
    kept = cs.open(tmp_path / "solution")
    assert torch.equal(kept.sampling_intervals, BOTH.sampling_intervals)
    assert torch.equal(kept.intervals, BOTH.intervals)
    SOLUTION.save(tmp_path / "alone")
    assert cs.open(tmp_path / "alone").sampling_intervals is None


def test_a_curve_names_both():
    certified = cs.overlap(cs.certify(OPERATOR, SOLUTION), cs.masks.random(6))
    curve = replace(certified, sampling_lower=certified.value - 0.1, sampling_upper=certified.value + 0.1)
    heading = str(curve).splitlines()[2]
    assert heading.index("numerical interval") < heading.index("sampling interval")
    labels = [text.get_label() for text in curve.plot(Figure().subplots()).collections]
    assert labels == ["numerical interval", "sampling interval"]


def test_intervals_of_another_solution_are_refused():
    with pytest.raises(InvalidArgument, match="other eigenvalues"):
        FOUND.beside(SOLUTION[:2])
