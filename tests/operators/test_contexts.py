"""What is switched on around a call does not change what it computes."""

import pytest
import torch
from torch import nn

import curvscope as cs

CONTEXTS = {
    "inference": torch.inference_mode,
    "no_grad": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


def problem():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))
    return model, nn.CrossEntropyLoss(), [(torch.randn(5, 3), torch.arange(5) % 3)]


@pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS)
@pytest.mark.parametrize("strategy", ["auto", "double_backward"])
def test_nothing_around_a_call_matters(context, strategy):
    expected = cs.hessian(*problem(), strategy=strategy)
    plain = cs.eigsh(expected, 3, method="krylov")
    with context():
        H = cs.hessian(*problem(), strategy=strategy)
        found = cs.eigsh(H, 3, method="krylov")
        report = cs.preflight(H)
        gradient = H.gradient()
    assert report.passed, str(report)
    torch.testing.assert_close(found.eigenvalues, plain.eigenvalues)
    torch.testing.assert_close(gradient, expected.gradient())
    assert found.status.converged


@pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS)
def test_nothing_around_other_measurements_matters(context):
    model, criterion, data = problem()
    H = cs.hessian(model, criterion, data, strategy="double_backward")

    def measured():
        curve = cs.overlap_without_vectors(H, cs.masks.by_magnitude(model), 4, num_probes=2, num_steps=8)
        return curve.value, cs.loss_along(H, torch.ones(H.shape[0]), points=3).loss, torch.tensor(cs.trace(H).value)

    expected = measured()
    with context():
        found = measured()
    torch.testing.assert_close(found, expected)
