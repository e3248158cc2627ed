"""Small models of every kind that users bring, as data: a new kind joins by one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional


class WrongForward(torch.autograd.Function):
    """x^2, right but for its rule for tangents, which gives ``FACTOR`` x; subclasses say how wrong."""

    FACTOR = 2.002
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.square()

    @staticmethod
    def setup_context(context: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        context.save_for_backward(*inputs)
        context.save_for_forward(*inputs)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return 2 * context.saved_tensors[0] * gradient

    @classmethod
    def jvp(cls, context: Any, tangent: Tensor) -> Tensor:
        return cls.FACTOR * context.saved_tensors[0] * tangent


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.Module], **options: Any) -> None:
        super().__init__()
        self.body = kind(3, 2, batch_first=True, **options)
        self.head = nn.Linear(2 * (2 if options.get("bidirectional") else 1), 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x)[0][:, -1])


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.head = nn.Linear(4, 12), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 2)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.head(mixed.transpose(1, 2).flatten(2).mean(1))


class Tokens(nn.Module):
    """Embedding tied to the output layer; (B, T) tokens to (B * T, V) logits."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.norm, self.head = nn.Embedding(7, 4), nn.LayerNorm(4), nn.Linear(4, 7, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(functional.gelu(self.norm(self.embedding(tokens)))).flatten(0, 1)


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(4, 3), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


class LooksAtValues(nn.Module):
    """Control flow on values: a program traced for one batch is wrong for another."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        layer = self.first if bool(x.sum() > 0) else self.second
        return layer(x).tanh()


class BakesValues(nn.Module):
    """Reads values where no tracer can see it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).tanh() * abs(x.flatten().tolist()[0])


class Doubled(torch.autograd.Function):
    """An operation with derivatives of every order in reverse mode and none in forward mode."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return 2 * gradient


class ReverseOnly(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return Doubled.apply(self.layer(x).tanh())


def frozen() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
    model[0].requires_grad_(False)
    return model


def convolutional() -> nn.Module:
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1),
        nn.BatchNorm2d(2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(2, 2, 2, stride=2),
        nn.SiLU(),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(2, 3),
    )
    model[1].running_mean.normal_()
    model[1].running_var.uniform_(0.5, 1.5)
    return model


def activations() -> nn.Module:
    layers: list[nn.Module] = []
    for kind in (nn.Sigmoid, nn.GELU, nn.Softplus, nn.ELU, nn.LeakyReLU, nn.Hardtanh, nn.Softsign, nn.Tanh):
        layers += [nn.Linear(4, 4), kind()]
    return nn.Sequential(*layers, nn.Linear(4, 3))


def classes(*shape: int, high: int = 3) -> Callable[[], Tensor]:
    return lambda: torch.randint(0, high, shape)


def normal(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(*shape, dtype=torch.float64)


def ignoring(*shape: int, high: int) -> Callable[[], Tensor]:
    def draw() -> Tensor:
        labels = torch.randint(0, high, shape)
        labels[torch.rand(shape) < 0.3] = -100
        labels[0] = 1
        return labels

    return draw


WEIGHTED = nn.CrossEntropyLoss(weight=torch.tensor([0.5, 1.0, 2.0]), label_smoothing=0.1)
CE = nn.CrossEntropyLoss()

# name: (model, criterion, draw x, draw y)
CASES: dict[str, tuple[Callable[[], nn.Module], Any, Callable[[], Tensor], Callable[[], Tensor]]] = {
    "mlp": (lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), CE, normal(6, 4), classes(6)),
    "activations": (activations, CE, normal(6, 4), classes(6)),
    "squared error": (lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh()), nn.MSELoss(), normal(6, 4), normal(6, 3)),
    "huber": (lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh()), nn.HuberLoss(delta=0.7), normal(6, 4), normal(6, 3)),
    "summed": (lambda: nn.Linear(4, 3), nn.CrossEntropyLoss(reduction="sum"), normal(6, 4), classes(6)),
    "class weights": (lambda: nn.Linear(4, 3), WEIGHTED, normal(6, 4), classes(6)),
    "binary": (
        lambda: nn.Sequential(nn.Linear(4, 2), nn.Tanh(), nn.Linear(2, 2)),
        nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 3.0])),
        normal(6, 4),
        lambda: torch.rand(6, 2, dtype=torch.float64),
    ),
    "soft labels": (lambda: nn.Linear(4, 3), CE, normal(6, 4), lambda: torch.rand(6, 3, dtype=torch.float64).softmax(1)),
    "convolutional": (convolutional, CE, normal(4, 1, 4, 4), classes(4)),
    "lstm": (lambda: Recurrent(nn.LSTM), CE, normal(3, 4, 3), classes(3)),
    "stacked bidirectional lstm": (
        lambda: Recurrent(nn.LSTM, num_layers=2, bidirectional=True, dropout=0.3),
        CE,
        normal(3, 3, 3),
        classes(3),
    ),
    "gru": (lambda: Recurrent(nn.GRU), CE, normal(3, 4, 3), classes(3)),
    "attention": (Attention, CE, normal(3, 4, 4), classes(3)),
    "transformer layer": (
        lambda: nn.Sequential(nn.TransformerEncoderLayer(4, 2, 6, batch_first=True), nn.Flatten(), nn.Linear(12, 3)),
        CE,
        normal(3, 3, 4),
        classes(3),
    ),
    "tied tokens": (Tokens, CE, classes(2, 5, high=7), ignoring(10, high=7)),
    "unused parameter": (Unused, CE, normal(6, 4), classes(6)),
    "frozen layer": (frozen, CE, normal(6, 4), classes(6)),
    "control flow": (LooksAtValues, CE, normal(6, 4), classes(6)),
    "baked values": (BakesValues, CE, normal(6, 4), classes(6)),
    "reverse mode only": (ReverseOnly, CE, normal(6, 4), classes(6)),
}


def build(name: str, *, batches: int = 2) -> tuple[nn.Module, Any, list[tuple[Tensor, Tensor]]]:
    """Model in float64, criterion and batches of case ``name``."""
    torch.manual_seed(0)
    make, criterion, draw_x, draw_y = CASES[name]
    return make().double(), criterion, [(draw_x(), draw_y()) for _ in range(batches)]


def flat_function(model: nn.Module, function: Callable[[nn.Module], Tensor]) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """``function`` of the model's trainable parameters laid end to end, and where it stands; the oracle's own code."""
    model.eval()
    chosen = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}

    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self) -> Tensor:
            return function(self.inner)

    def evaluate(vector: Tensor) -> Tensor:
        tensors, start = {}, 0
        for name, p in chosen.items():
            tensors[f"inner.{name}"] = vector[start : start + p.numel()].view(p.shape)
            start += p.numel()
        return functional_call(Holder(), tensors, ())

    return evaluate, torch.cat([p.reshape(-1) for p in chosen.values()])


def cross_entropy_weight(criterion: Any, y: Tensor) -> float:
    """What the mean of the cases' criteria divides by."""
    if isinstance(criterion, nn.CrossEntropyLoss) and not y.is_floating_point():
        y = y[y != -100]
        return float(y.numel() if criterion.weight is None else criterion.weight[y].sum())
    return float(y.numel() if not isinstance(criterion, nn.CrossEntropyLoss) else y.shape[0])


def dense_hessian(model: nn.Module, criterion: Any, batches: list[tuple[Tensor, Tensor]]) -> Tensor:
    """sum_b w_b times the Hessian of the batch's loss, by ``torch.autograd.functional``."""
    criterion = criterion.double()
    weights = [cross_entropy_weight(criterion, y) for _, y in batches]
    total = 0.0
    for (x, y), weight in zip(batches, weights, strict=True):
        evaluate, at = flat_function(model, lambda net, x=x, y=y: criterion(net(x), y))
        share = 1.0 if criterion.reduction == "sum" else weight / sum(weights)
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            total = total + share * torch.autograd.functional.hessian(evaluate, at)
    return total


def dense_ggn(model: nn.Module, criterion: Any, batches: list[tuple[Tensor, Tensor]]) -> Tensor:
    """sum_b w_b J' (d2l/df2) J from dense Jacobians and dense loss Hessians."""
    criterion = criterion.double()
    weights = [cross_entropy_weight(criterion, y) for _, y in batches]
    total = 0.0
    for (x, y), weight in zip(batches, weights, strict=True):
        evaluate, at = flat_function(model, lambda net, x=x: net(x))
        share = 1.0 if criterion.reduction == "sum" else weight / sum(weights)
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            jacobian = torch.autograd.functional.jacobian(evaluate, at)
            output = evaluate(at).detach()
        curved = torch.autograd.functional.hessian(lambda o, y=y: criterion(o, y), output)
        jacobian = jacobian.reshape(output.numel(), -1)
        total = total + share * jacobian.T @ curved.reshape(output.numel(), -1) @ jacobian
    return total
