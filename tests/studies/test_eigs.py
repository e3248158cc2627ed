"""What the report of a run says of its pairs, and of the eigenvalues that were not computed."""

import pytest
import torch

import curvscope as cs
from curvscope.report import _figures as figures
from curvscope.runs._contents import _interval, _others, pairs_table

GAPS = torch.diag(torch.tensor([5.0, -4.0, 3.0, 0.5, 0.1], dtype=torch.float64))
WIDE = torch.diag(torch.cat([GAPS.diagonal()[:3], torch.linspace(0.0, 0.5, 397, dtype=torch.float64)]))
TIE = torch.diag(torch.tensor([5.0, -4.0, 3.0, 3.0, 0.1], dtype=torch.float64))


def solved(A, k, *, certified=True, which="LM"):
    solution = cs.eigsh(A, k, which=which)
    return cs.certify(A, solution) if certified else solution


@pytest.mark.parametrize(
    ("solution", "complete", "sentence", "legend"),
    [
        (solved(GAPS, 3, certified=False), None, "not computed; the method looks for the largest", "not computed"),
        (solved(WIDE, 3), 3, "of smaller magnitude; certain, except with", "of smaller magnitude"),
        (solved(GAPS, 3), 3, "of smaller magnitude; certain.", "of smaller magnitude"),
        (solved(TIE, 3), 2, "not computed; some may be larger than the last pairs: only the first 2 of 3", "not computed"),
        (solved(TIE[2:, 2:], 1), 0, "not computed; some may be larger than these: of none of the 1 pairs", "not computed"),
    ],
    ids=["not certified", "all", "all, of few", "some", "none"],
)
def test_of_the_others_is_said_what_is_known(solution, complete, sentence, legend):
    """All, some, or none of the pairs are proven to be the largest; text and figure say the same."""
    assert (solution.certificate and solution.certificate.complete) == complete
    assert _others(solution).startswith(f"Grey: the others, {sentence}")
    axes = figures.spectra({"": solution}).axes[0]
    rest = solution.eigenvectors.shape[0] - solution.k
    assert axes.get_legend().get_texts()[-1].get_text() == f"the other {rest},\n{legend}"
    completeness = str(solution).splitlines()[-2]
    assert ("none of the" in completeness, "the first" in completeness) == (complete == 0, bool(complete))


@pytest.mark.parametrize("solution", [solved(GAPS, 3, certified=False, which="LA"), solved(GAPS, 5)], ids=["LA", "all"])
def test_nothing_is_said_of_others_that_are_not_drawn(solution):
    assert _others(solution) == ""


@pytest.mark.parametrize("center", [0.303548361234567, -1.327552e-5, 9.99999999e2, 0.0])
@pytest.mark.parametrize("radius", [0.1, 4.7e-8, 1.3e-12])
def test_shown_intervals_hold_the_true_ones_and_are_hardly_wider(center, radius):
    low, high = center - radius, center + radius
    shown = [float(end) for end in _interval(low, high).strip("[]").split(", ")]
    assert shown[0] <= low < high <= shown[1]
    assert shown[1] - shown[0] <= 1.25 * (high - low) + 2e-15 * abs(center)


def test_the_pairs_and_their_intervals():
    rows = pairs_table(solved(GAPS, 3, certified=False)).rows
    assert [float(row[1]) for row in rows] == [5, -4, 3]
    assert all(float(row[2].split(",")[0][1:]) <= float(row[1]) <= float(row[2].split(",")[1][:-1]) for row in rows)
