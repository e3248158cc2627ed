"""Preflight passes what is a matrix and names what is not."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from curvscope.operators import as_operator, empirical_fisher, ggn, hessian, monte_carlo_fisher, preflight
from curvscope.operators.base import Operator

from .cases import build


@pytest.mark.parametrize("make", [hessian, ggn, empirical_fisher])
@pytest.mark.parametrize("name", ["mlp", "lstm", "attention"])
def test_good_operators_pass(make, name):
    model, criterion, batches = build(name)
    found = preflight(make(model, criterion, batches))
    assert found.passed, str(found)
    assert ("finite difference" in str(found)) == (make is hessian)
    assert preflight(make(model, criterion, batches), short=True).passed


def test_random_augmentation_is_named():
    model, criterion, batches = build("mlp")

    class Augmented:
        def __iter__(self):
            return iter([(x + 0.1 * torch.randn_like(x), y) for x, y in batches])

    torch.manual_seed(5)
    data = Augmented()
    draws = iter(range(10_000))
    data.__class__.__iter__ = lambda self: iter([(x + 0.01 * next(draws), y) for x, y in batches])
    found = preflight(hessian(model, criterion, data))
    assert not found.passed
    assert "augmentation" in str(found)


def test_functional_dropout_is_named():
    class Careless(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return functional.dropout(self.layer(x).tanh(), 0.5)

    _, criterion, batches = build("mlp")
    found = preflight(hessian(Careless().double(), criterion, batches))
    failed = {check.name: check for check in found.checks if not check.passed}
    assert "training=self.training" in failed["determinism"].remedy


def test_batch_statistics_are_named():
    model, criterion, batches = build("convolutional")
    found = preflight(ggn(model, criterion, batches, batchnorm="batch"))
    failed = {check.name: check for check in found.checks if not check.passed}
    assert list(failed) == ["batch-split invariance"]
    assert failed["batch-split invariance"].remedy == "choose batchnorm='eval'"


def test_losses_that_are_no_means_are_named():
    model, _, batches = build("mlp")

    def summed(model: nn.Module, batch: tuple) -> Tensor:
        return functional.cross_entropy(model(batch[0]), batch[1], reduction="sum")

    assert "reduction='sum'" in str(preflight(hessian(model, summed, batches)))
    assert preflight(hessian(model, summed, batches, reduction="sum")).passed


def test_wrong_derivatives_are_named():
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            context.save_for_backward(x)
            return x.square()

        @staticmethod
        def backward(context, gradient):
            (x,) = context.saved_tensors
            return 2 * x.detach() * gradient

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return Wrong.apply(self.layer(x))

    _, criterion, batches = build("mlp")
    found = preflight(hessian(Model().double(), criterion, batches))
    assert [check.name for check in found.checks if not check.passed] == ["derivatives"]


def test_operators_of_any_kind():
    assert preflight(as_operator(torch.eye(4))).passed
    skew = as_operator(torch.tensor([[0.0, 1.0], [-1.0, 0.0]]), hermitian=True)
    assert [c.name for c in preflight(skew).checks if not c.passed] == ["symmetry"]

    class Affine(Operator):
        shape, dtype, device, hermitian = (3, 3), torch.float32, torch.device("cpu"), False

        def _apply(self, block: Tensor) -> Tensor:
            return block + 1

        def _fingerprint(self) -> str:
            return "affine"

    assert [c.name for c in preflight(Affine()).checks if not c.passed] == ["linearity"]


@pytest.mark.parametrize("batchnorm", ["eval", "batch"])
def test_shuffling_loaders_are_named_and_harmless_where_order_does_not_count(batchnorm):
    model, criterion, batches = build("convolutional")
    samples = [(x, y) for xs, ys in batches for x, y in zip(xs, ys, strict=True)]
    loader = torch.utils.data.DataLoader(samples, batch_size=4, shuffle=True)
    found = {
        check.name: check for check in preflight(hessian(model, criterion, loader, batchnorm=batchnorm), short=True).checks
    }
    assert "shuffles" in found["same order in every pass"].cause
    assert found["same order in every pass"].passed == (batchnorm == "eval")
    assert found["same data in every pass"].passed
    fixed = torch.utils.data.DataLoader(samples, batch_size=4, shuffle=False)
    assert "shuffles" not in str(preflight(hessian(model, criterion, fixed, batchnorm=batchnorm), short=True))


def test_shuffling_loaders_change_a_monte_carlo_fisher():
    model, criterion, batches = build("mlp")
    samples = [(x, y) for xs, ys in batches for x, y in zip(xs, ys, strict=True)]
    loader = torch.utils.data.DataLoader(samples, batch_size=4, shuffle=True)
    assert not preflight(monte_carlo_fisher(model, criterion, loader), short=True).passed


def test_batches_that_cannot_be_halved_are_a_failed_check():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3, track_running_stats=False), nn.Linear(3, 3))
    batches = [(torch.randn(3, 3), torch.arange(3)) for _ in range(2)]
    (failed,) = (check for check in preflight(hessian(model, nn.CrossEntropyLoss(), batches)).checks if not check.passed)
    assert failed.name == "batch-split invariance"
    assert "more than 1 value" in failed.cause
    alone = preflight(hessian(model, nn.CrossEntropyLoss(), batches[:1]))  # nothing hangs on how one batch is weighted
    assert alone.passed
    assert "not measured" in str(alone)
