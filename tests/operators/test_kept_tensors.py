"""Models whose forward pass keeps tensors in plain attributes: no graph stays, and who computes with them is refused."""

import pytest
import torch
from torch import Tensor, nn

import curvscope as cs
from curvscope.errors import NotDeterministic

CE = nn.CrossEntropyLoss()


pytestmark = pytest.mark.usefixtures("double")


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 3)

    def hidden(self, x: Tensor) -> Tensor:
        return torch.tanh(self.a(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.hidden(x))


class Looks(Plain):
    """Keeps its activations for a look at them."""

    def hidden(self, x):
        self.seen = super().hidden(x)
        return self.seen


class CachesConstant(Looks):
    """Keeps a constant too, and a flag beside it."""

    ready = False

    def hidden(self, x):
        if not self.ready:
            self.scale, self.ready = torch.tensor(2.0), True
        return self.scale * super().hidden(x)


class CachesHidden(Plain):
    ready = False

    def hidden(self, x):
        if not self.ready:
            self.kept, self.ready = super().hidden(x), True
        return self.kept


class CachesNorm(Plain):
    def hidden(self, x):
        if not hasattr(self, "norm"):
            self.norm = self.a.weight.norm()
        return super().hidden(x) / self.norm


class CarriesState(Plain):
    state = None

    def hidden(self, x):
        found = super().hidden(x) if self.state is None else super().hidden(x) + self.state
        self.state = found.mean(0).detach()
        return found


def data():
    return [(torch.randn(7, 4), torch.randint(3, (7,))) for _ in range(2)]


@pytest.mark.parametrize("kind", [Looks, CachesConstant])
@pytest.mark.parametrize("strategy", ["auto", "double_backward", "split_vmap"])
def test_what_is_kept_for_a_look_changes_nothing(kind, strategy):
    model, batches = kind(), data()
    found = cs.hessian(model, CE, batches, strategy=strategy).to_dense()
    assert not getattr(model, "seen", torch.zeros(())).requires_grad
    x, y = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
    values = torch.cat([p.detach().flatten() for p in model.parameters()])

    def loss(theta):
        a, a0, b, b0 = theta.split([20, 5, 15, 3])
        scale = 2.0 if kind is CachesConstant else 1.0
        return CE((scale * torch.tanh(x @ a.view(5, 4).T + a0)) @ b.view(3, 5).T + b0, y)

    assert torch.allclose(found, torch.func.hessian(loss)(values), atol=1e-12)


@pytest.mark.parametrize("kind", [CachesHidden, CachesNorm, CarriesState])
@pytest.mark.parametrize(
    "make", [cs.hessian, cs.ggn, lambda net, loss, data: cs.hessian(net, lambda m, b: loss(m(b[0]), b[1]), data)]
)
def test_what_is_kept_and_computed_with_is_refused(kind, make):
    model = kind()
    for _ in range(2):  # nothing is left over that would be taken as given the next time
        with pytest.raises(NotDeterministic, match="keeps a state"):
            make(model, CE, data()).to_dense()
