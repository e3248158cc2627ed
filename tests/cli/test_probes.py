import json

import pytest

from curvscope.certificates import failure_probabilities


def test_probes_for_a_confidence_and_back(curvscope):
    told = curvscope("probes", "--confidence", 0.99, "--error", 0.4, "--json")
    facts = json.loads(told.output)
    assert told.status == 0
    assert facts["confidence"] >= 0.99
    again = json.loads(curvscope("probes", "--probes", facts["probes"], "--error", 0.4, "--json").output)
    assert again == facts
    assert (facts["too_small"], facts["too_large"]) == pytest.approx(failure_probabilities(facts["probes"], 0.4))
    fewer = json.loads(curvscope("probes", "--probes", facts["probes"] - 1, "--error", 0.4, "--json").output)
    assert fewer["confidence"] < 0.99


def test_probes_in_words_and_in_complex(curvscope):
    told = curvscope("probes")
    assert "65 probes: the estimated norm lies within 0.71 to 1.22 times the true one" in told.output
    assert json.loads(curvscope("probes", "--complex", "--json").output)["probes"] == 33


@pytest.mark.parametrize("arguments", [("--confidence", 1.5), ("--error", 2), ("--probes", 0)])
def test_bad_requests(curvscope, arguments):
    assert curvscope("probes", *arguments).status == 2
