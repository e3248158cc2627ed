"""What is switched on around a call does not change what it computes."""

import os
from concurrent.futures import ThreadPoolExecutor

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


def sleepless(x):
    """tanh, with many occasions for other threads."""
    for _ in range(200):
        os.sched_yield()
    return x.tanh()


def test_operators_of_one_model_in_several_threads(monkeypatch):
    monkeypatch.setattr(nn.Tanh, "forward", lambda self, x: sleepless(x))
    model, criterion, data = problem()
    model.append(nn.Dropout())  # in training mode when it comes back
    eye = torch.eye(31)
    operators = [kind(model, criterion, data, strategy="double_backward") for kind in (cs.hessian, cs.ggn) * 2]
    expected = [A @ eye for A in operators]
    with ThreadPoolExecutor(4) as pool:
        found = [future.result() for future in [pool.submit(A.__matmul__, eye) for A in operators * 5]]
    for product, right in zip(found, expected * 5, strict=True):
        torch.testing.assert_close(product, right)
    assert model.training


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x):
        return self.layer(x + torch.rand_like(x)).tanh()


def test_noise_in_a_forward_pass_is_noticed_though_products_repeat():
    H = cs.hessian(Noisy(), *problem()[1:], strategy="double_backward")
    report = cs.preflight(H, short=True)
    assert [check.name for check in report.checks if not check.passed] == ["determinism"]
