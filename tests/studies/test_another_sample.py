"""Curvature of 500 images beside that of another 500."""

import pytest

from curvscope.studies.beyond import another_sample
from curvscope.studies.engine import run_study
from curvscope.studies.sagun import sagun_data


@pytest.mark.slow
def test_intervals_claims_and_figures_come_from_the_numbers(tmp_path):
    config = another_sample.SampleConfig(steps=(0, 3), k=3, folds=4, halvings=1)
    page = run_study(another_sample.STUDY, tmp_path / "run", config=config, progress=False)
    assert [section.title for section in page.sections][:2] == ["Claims", "Eigenvalues of the sample and of the population"]
    assert len(page.sections[-1].table.rows) == 6
    assert len(page.sections[0].table.rows) == 8
    again = run_study(another_sample.STUDY, tmp_path / "run", config=config, progress=False)
    assert again.sections[-1].table.rows == page.sections[-1].table.rows


def test_wider_blobs_have_larger_outliers_in_the_population_or_not():
    def found(*ends):
        return {f"0.{place}": {"interval": list(end)} for place, end in enumerate(ends)}

    (holds,) = sagun_data._sampling_claims(found((0.1, 0.2), (0.3, 0.4)))
    (reverse,) = sagun_data._sampling_claims(found((0.3, 0.4), (0.1, 0.2)))
    assert reverse["holds"] is False
    (open_,) = sagun_data._sampling_claims(found((0.1, 0.4), (0.3, 0.5)))
    assert holds["holds"] is True
    assert open_["holds"] == "undecided"
    assert sagun_data._sampling_claims({}) == []


def test_fresh_samples_have_an_interval():
    config = sagun_data.DataConfig()
    model = sagun_data.mlp((2, 4, 4, 2), sagun_data.nn.ReLU, 0)
    cell = sagun_data._on_fresh_samples(model, 0.5, config)
    assert cell["interval"][0] < cell["top"] < cell["interval"][1]
