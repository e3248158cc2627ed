"""Wrong paths, choices, texts and lists of the commands are refused in one line, before anything is written."""

import pytest

from . import choices


def fallen(whole):
    return [f"{line!r}: {found}" for line, found in choices.findings(whole) if found is not None]


def test_wrong_values_of_options_are_refused_in_one_line():
    assert fallen(whole=False) == []


@pytest.mark.slow
def test_all_wrong_values_of_options_are_refused_in_one_line():
    assert fallen(whole=True) == []


def test_every_kind_of_option_is_tried():
    kinds = {kind for command in choices.COMMANDS for _, _, kind in choices.options(command)}
    assert {"path", "text", "pair"} <= kinds
    assert {line[0] for _, _, line in choices.lines()} >= {"eigs", "certify", "density", "overlap", "study", "export", "track"}
