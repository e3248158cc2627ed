"""Models that compute parts in bfloat16: derivatives are judged in float64, and it is said how exact products are."""

import pytest
import torch
from torch import Tensor, nn

import curvscope as cs

from .cases import WrongForward

CE = nn.CrossEntropyLoss()
BF16 = torch.bfloat16


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)

    def hidden(self, x: Tensor) -> Tensor:
        return torch.tanh(self.a(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.hidden(x))


class CastsToHalf(Net):
    def hidden(self, x: Tensor) -> Tensor:
        return torch.tanh(self.a(x)).half().float()


class CastsWeights(Net):
    def hidden(self, x: Tensor) -> Tensor:
        weight, bias = self.a.weight.to(BF16), self.a.bias.bfloat16()
        return torch.tanh(nn.functional.linear(x.type(BF16), weight, bias)).float()


class Region(Net):
    def hidden(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=BF16):
            return torch.tanh(self.a(x)).float()


class Decorated(Net):
    @torch.autocast("cpu", dtype=BF16)
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


class SlightlyWrong(WrongForward):
    """Tangents are five per cent off: less than a few rounding units of bfloat16."""

    FACTOR = 2.1


class WrongInside(Net):
    def hidden(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=BF16):
            return SlightlyWrong.apply(self.a(x)).float()


def network(kind):
    torch.manual_seed(0)
    return kind(), [(torch.randn(9, 4), torch.randint(3, (9,)))]


def difference(found, expected):
    return float((found - expected).norm() / expected.norm())


def in_float64(kind):
    model, data = network(kind)
    return cs.hessian(model, CE, data, dtype=torch.float64) @ torch.eye(51, dtype=torch.float64)


@pytest.mark.parametrize("kind", [CastsToHalf, CastsWeights])
@pytest.mark.parametrize("strategy", ["auto", "split", "double_backward"])
def test_casts_to_coarser_numbers_are_left_out(kind, strategy):
    model, data = network(kind)
    H = cs.hessian(model, CE, data, strategy=strategy)
    assert difference(H @ torch.eye(51), in_float64(Net)) < 1e-6
    assert "exact to" not in H.strategy_report["derivatives"]


@pytest.mark.parametrize("make", [cs.hessian, cs.ggn])
@pytest.mark.parametrize("kind", [Region, Decorated])
@pytest.mark.parametrize("strategy", ["auto", "split", "double_backward"])
def test_autocast_inside_is_verified_in_float64_and_its_precision_said(make, kind, strategy):
    model, data = network(kind)
    H = make(model, CE, data, strategy=strategy)
    product = H @ torch.eye(51)
    said = H.strategy_report["derivatives"]
    assert "in float64" in said
    assert "products in bfloat16 are exact to" in said
    plain, data = network(Net)
    exact = make(plain, CE, data, dtype=torch.float64) @ torch.eye(51, dtype=torch.float64)
    stated = H.derivatives().rounding
    assert stated / 5 < difference(product, exact) < 5 * stated
    other = make(model, CE, data, dtype=torch.float64)  # the same model, in exact arithmetic
    assert difference(other @ torch.eye(51, dtype=torch.float64), exact) < 1e-12
    assert "exact to" not in other.strategy_report["derivatives"]


@pytest.mark.parametrize("strategy", ["auto", "split"])
def test_a_wrong_rule_does_not_hide_in_coarse_rounding(strategy):
    model, data = network(WrongInside)
    H = cs.hessian(model, CE, data, strategy=strategy)
    product = H @ torch.eye(51)
    H.derivatives()
    assert "forward over reverse is off by" in H.strategy_report["derivatives"]
    model, data = network(WrongInside)
    exact = cs.hessian(model, CE, data, dtype=torch.float64, strategy="double_backward") @ torch.eye(51, dtype=torch.float64)
    assert difference(product, exact) < 0.02


def test_bfloat16_products_say_how_exact_they_are():
    model, data = network(Net)
    H = cs.hessian(model, CE, data, dtype=BF16)
    H @ torch.ones(51)
    assert "products in bfloat16 are exact to" in H.strategy_report["derivatives"]
