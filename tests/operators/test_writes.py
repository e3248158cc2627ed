"""Models that write to their parameters or buffers in the forward pass: refused by name, or right; never changed."""

import copy

import pytest
import torch
from torch import Tensor, nn

import curvscope as cs
from curvscope.errors import UnfitOperator, WrittenParameter

CE = nn.CrossEntropyLoss()


pytestmark = pytest.mark.usefixtures("double")


def data(batches=1):
    return [(torch.randn(7 + 2 * i, 4), torch.randint(3, (7 + 2 * i,))) for i in range(batches)]


class Writes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)
        self.gain = nn.Parameter(torch.ones(6), requires_grad=False)
        self.__dict__["held"] = self.a.weight

    def write(self) -> None:
        """Overwritten below."""

    def forward(self, x: Tensor) -> Tensor:
        self.write()
        return self.b(torch.tanh(self.a(x)) * self.gain)


class Decays(Writes):
    def write(self) -> None:
        self.a.weight.data.mul_(0.9)


class Clamps(Writes):
    def write(self) -> None:
        self.a.weight.data.clamp_(-0.2, 0.2)


class Normalises(Writes):
    @torch.no_grad()
    def write(self) -> None:
        self.a.weight.copy_(self.a.weight / self.a.weight.norm(dim=1, keepdim=True))


class SetsRows(Writes):
    @torch.no_grad()
    def write(self) -> None:
        self.a.weight[0] = 0.5


class Rebinds(Writes):
    def write(self) -> None:
        self.a.weight.data = self.a.weight.data / 2


class Assigns(Writes):
    def write(self) -> None:
        self.a.weight = nn.Parameter(self.a.weight.detach() * 0.9)


class WritesFrozen(Writes):
    def write(self) -> None:
        self.gain.data.mul_(0.5)


class WritesAfterwards(Writes):
    def forward(self, x: Tensor) -> Tensor:
        found = super().forward(x)
        self.a.weight.data.mul_(0.9)
        return found


class WritesBySecondReference(Writes):
    def write(self) -> None:
        self.__dict__["held"].data.mul_(0.9)


KINDS = [Decays, Clamps, Normalises, SetsRows, Rebinds, Assigns, WritesFrozen, WritesAfterwards, WritesBySecondReference]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("batches", [1, 3])
def test_written_parameters_are_refused_by_name(kind, dtype, batches):
    model = kind()
    before, own = copy.deepcopy(model.state_dict()), dict(model.named_parameters())
    with pytest.raises(WrittenParameter, match="gain" if kind is WritesFrozen else r"a\.weight"):
        cs.hessian(model, CE, data(batches), dtype=dtype)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(p is own[name] for name, p in model.named_parameters())


@pytest.mark.parametrize("kind", [Decays, Assigns])
def test_written_parameters_of_a_loss_function_and_of_a_part(kind):
    with pytest.raises(WrittenParameter):
        cs.hessian(kind(), lambda model, batch: CE(model(batch[0]), batch[1]), data())
    with pytest.raises(WrittenParameter):
        cs.ggn(kind(), CE, data(), params="a.*")


def test_a_write_that_changes_nothing_now_is_not_trusted():
    """Rows of norm one stay as they are; the derivatives still are those of another function."""
    model = Normalises()
    for _ in range(3):
        model(torch.ones(1, 4))
    with pytest.raises(UnfitOperator):
        cs.hessian(model, CE, data()) @ torch.ones(51)


def test_written_tensors_of_a_function():
    def function(p):
        p["a"].data.mul_(0.9)
        return p["a"].square().sum()

    tensors = {"a": torch.ones(3)}
    with pytest.raises(WrittenParameter, match="'a'"):
        cs.hessian(function, tensors)
    assert torch.equal(tensors["a"], torch.ones(3))


class Counts(Writes):
    """Buffers: one is written to in place, one is assigned."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("in_place", torch.ones(()))
        self.register_buffer("assigned", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        found = super().forward(x) * self.in_place.clone() * self.assigned
        self.in_place.mul_(0.5)
        self.assigned = self.assigned * 0.5
        return found


@pytest.mark.parametrize("strategy", ["auto", "split", "double_backward"])
def test_written_buffers_are_as_they_were(strategy):
    model, batches = Counts(), data()
    plain = Writes()
    plain.load_state_dict(model.state_dict(), strict=False)
    own = dict(model.named_buffers())
    H = cs.hessian(model, CE, batches, strategy=strategy)
    block = torch.randn(H.shape[0], 2)
    expected = cs.hessian(plain, CE, batches) @ block
    assert float((H @ block - expected).norm()) <= 1e-12 * float(expected.norm())
    assert all(tensor is own[name] for name, tensor in model.named_buffers())
    assert all(float(tensor) == 1 for tensor in own.values())


def test_tables_within_their_norm_and_parametrisations_are_no_writes():
    table = nn.Sequential(nn.Embedding(5, 4, max_norm=0.5), nn.Flatten(), nn.Tanh(), nn.Linear(12, 3))
    batches = [(torch.randint(5, (6, 3)), torch.randint(3, (6,)))]
    cs.hessian(table, CE, batches) @ torch.ones(59)
    normed = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3)), nn.Tanh())
    cs.hessian(normed, CE, data()) @ torch.ones(15)
