"""What the check of derivatives costs, counted in operations: clocks of shared machines do not tell."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import curvscope as cs

SAMPLES = 32


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells, self.head = nn.LSTM(8, 16, batch_first=True), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cells(x)[0][:, -1])


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x).mean(1))


def perceptron():
    return nn.Sequential(nn.Linear(40, 30), nn.Tanh(), nn.Linear(30, 20), nn.Tanh(), nn.Linear(20, 5)), torch.randn(SAMPLES, 40)


def convolutional():
    layers = [nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.Tanh(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(8 * 36, 5)), torch.randn(SAMPLES, 3, 16, 16)


NETWORKS = {
    "perceptron": perceptron,
    "convolutional": convolutional,
    "recurrent": lambda: (Recurrent(), torch.randn(SAMPLES, 6, 8)),
    "encoder": lambda: (Encoder(), torch.randn(SAMPLES, 6, 16)),
}


def operations(function):
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def operations_of_a_gradient(objective):
    """Of the four samples that the check looks at."""
    with objective.isolated():
        piece = objective.few_samples(next(objective.batches())[0])
        return operations(lambda: objective.batch_gradient(piece))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("make", [cs.hessian, cs.ggn])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_check_costs_about_ten_gradients_of_few_samples(name, make, dtype):
    torch.manual_seed(0)
    model, x = NETWORKS[name]()
    data = [(x, torch.randint(5, (SAMPLES,)))]

    def fresh():
        return make(model, nn.CrossEntropyLoss(), data, dtype=dtype)

    gradient = operations_of_a_gradient(fresh().objective)
    by_double_backward = fresh()
    assert operations(lambda: by_double_backward._engine.verify(forward=False)) <= 5.5 * gradient
    # Later a strategy that is traced: the same model, so that only what is new is looked at.
    assert operations(lambda: by_double_backward._engine.verify(forward=True)) <= 6.5 * gradient
    assert by_double_backward.derivatives().forward
    assert operations(by_double_backward.derivatives) == 0
    again = fresh()
    assert operations(again.derivatives) <= 2.5 * gradient, "the verdict is remembered; the substitution is looked at"


@pytest.mark.parametrize("name", NETWORKS)
def test_a_check_of_a_traced_strategy_at_once(name):
    torch.manual_seed(0)
    model, x = NETWORKS[name]()
    H = cs.hessian(model, nn.CrossEntropyLoss(), [(x, torch.randint(5, (SAMPLES,)))], strategy="split")
    assert operations(H.derivatives) <= 8.5 * operations_of_a_gradient(H.objective)


def test_an_identity_costs_little_more_than_a_product_with_a_batch():
    torch.manual_seed(0)
    model, _ = convolutional()
    x = torch.randn(256, 3, 16, 16)
    H = cs.hessian(model, nn.CrossEntropyLoss(), [(x, torch.randint(5, (256,)))] * 4)
    v = torch.ones(H.shape[0])
    with H.objective.isolated():
        batch = next(H.objective.batches())[0]
    alone = cs.hessian(model, nn.CrossEntropyLoss(), [batch], strategy="double_backward")
    alone @ v
    product = operations(lambda: alone @ v)
    assert operations(lambda: H.identity) <= 1.7 * product
