"""What "auto" takes depends on what products cost, not on the number of parameters alone; what was given is honoured."""

import pytest
import torch
from torch import nn

import curvscope as cs
from curvscope.solvers._auto import takes_exact


class Adapted(nn.Module):
    """A large frozen layer with an adapter of low rank, as in LoRA."""

    def __init__(self, width):
        super().__init__()
        torch.manual_seed(0)
        self.base = nn.Linear(width, width).requires_grad_(False)
        self.down, self.up = nn.Linear(width, 1, bias=False), nn.Linear(1, 3, bias=False)

    def forward(self, x):
        return self.up(self.down(torch.tanh(self.base(x))))


def hessian(width, samples):
    x = torch.randn(samples, width, generator=torch.Generator().manual_seed(1))
    return cs.hessian(Adapted(width), nn.CrossEntropyLoss(), [(x, torch.arange(samples) % 3)])


def method(solution):
    return solution.provenance["options"]["method"]


def test_few_parameters_of_a_large_network_are_not_solved_densely():
    H = hessian(800, 20)
    assert H.shape[0] == 803
    found = cs.eigsh(H, 2, progress=False)
    assert method(found) == "krylov"
    assert found.cost.products < 300


def test_cheap_products_and_small_matrices_are_solved_densely():
    assert method(cs.eigsh(hessian(100, 200), 2, progress=False)) == "exact"
    assert method(cs.eigsh(torch.eye(900), 2, progress=False)) == "exact"
    assert method(cs.eigsh(torch.diag(torch.arange(1600.0)), 2, progress=False)) == "krylov"


@pytest.mark.parametrize(("pixels", "expected"), [(8, True), (40, False)])
def test_convolutions_over_large_images_are_not_solved_densely(pixels, expected):
    """The same 963 weights: what a product costs grows with the number of places that share them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 32, 3, bias=False), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 3))
    data = [(torch.randn(64, 3, pixels, pixels), torch.arange(64) % 3)]
    assert takes_exact(cs.hessian(model, nn.CrossEntropyLoss(), data), 1) is expected


@pytest.mark.parametrize("options", [{"ncv": 20}, {"max_products": 40}, {"maxiter": 3}, {"keep_basis": True}])
def test_options_of_krylov_are_honoured(options):
    found = cs.eigsh(torch.diag(torch.arange(200.0)), 2, progress=False, **options)
    assert method(found) == "krylov"


def test_a_run_that_was_begun_densely_is_resumed_so(tmp_path):
    H = hessian(800, 20)
    before = cs.eigsh(H, 2, method="exact", run=tmp_path / "run", progress=False, preflight=False)
    again = cs.eigsh(H, 2, run=tmp_path / "run", progress=False)
    assert method(again) == "exact"
    assert torch.equal(again.eigenvalues, before.eigenvalues)
