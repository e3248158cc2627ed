"""Odd models, losses and data: each is refused by name (a CurvscopeError), or gives finite, reproducible products.

Fell: any other exception, products that are not finite, or zeros for a loss that lost its parameters.
"""

import numpy as np
import torch
from torch import nn

import curvscope as cs

from . import findings

X, Y = torch.linspace(-1, 1, 24).reshape(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
CE = nn.CrossEntropyLoss()


class Returns(nn.Module):
    """A linear layer that returns something else than its output."""

    def __init__(self, made):
        super().__init__()
        self.inner, self.made = nn.Linear(4, 3), made

    def forward(self, x):
        return self.made(self.inner(x))


class Raises(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 3)

    def forward(self, x):
        raise KeyError("a bug of the user's")


class NoGradient(Returns):
    @torch.no_grad()
    def forward(self, x):
        return self.inner(x)


class Inference(Returns):
    @torch.inference_mode()
    def forward(self, x):
        return self.inner(x)


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def frozen():
    return net().requires_grad_(False)


def filled(value):
    model = net()
    with torch.no_grad():
        model[0].weight.fill_(value)
    return model


MODELS = {
    "no module": lambda: 3,
    "None": lambda: None,
    "a function": lambda: lambda x: x,
    "a class": lambda: nn.Linear,
    "no parameters": lambda: nn.Tanh(),
    "an empty container": lambda: nn.Sequential(),
    "all frozen": frozen,
    "a NaN parameter": lambda: filled(float("nan")),
    "an infinite parameter": lambda: filled(float("inf")),
    "huge parameters": lambda: filled(1e38),
    "zero parameters": lambda: filled(0.0),
    "no tensor": lambda: Returns(lambda out: None),
    "a tuple": lambda: Returns(lambda out: (out, out)),
    "a dictionary": lambda: Returns(lambda out: {"logits": out}),
    "a list of numbers": lambda: Returns(lambda out: out.tolist()),
    "an array": lambda: Returns(lambda out: out.detach().numpy()),
    "detached": lambda: Returns(lambda out: out.detach()),
    "without gradients": lambda: NoGradient(None),
    "in inference mode": lambda: Inference(None),
    "rounded": lambda: Returns(torch.round),
    "integers": lambda: Returns(lambda out: out.long()),
    "one sample": lambda: Returns(lambda out: out[:1]),
    "no sample": lambda: Returns(lambda out: out[:0]),
    "complex": lambda: Returns(lambda out: out + 1j * out),
    "NaN": lambda: Returns(lambda out: out * float("nan")),
    "a wrong shape": lambda: nn.Linear(7, 3),
    "too few classes": lambda: nn.Linear(4, 2),
    "raises": Raises,
    "half precision": lambda: net().half(),
    "a lazy layer": lambda: nn.Sequential(nn.LazyLinear(3)),
}
LOSSES = {
    "None": None,
    "a number": 3,
    "a name": "cross_entropy",
    "a class": nn.CrossEntropyLoss,
    "a list": [CE],
    "a number as result": lambda o, y: 1.0,
    "None as result": lambda o, y: None,
    "an array as result": lambda o, y: np.float64(1.0),
    "a vector": lambda o, y: o.sum(1),
    "an unreduced criterion": nn.CrossEntropyLoss(reduction="none"),
    "an integer": lambda o, y: o.sum().long(),
    "a truth value": lambda o, y: (o > 0).all(),
    "NaN": lambda o, y: CE(o, y) * float("nan"),
    "infinite": lambda o, y: CE(o, y) / 0,
    "constant": lambda o, y: torch.tensor(1.0),
    "constant that requires gradients": lambda o, y: torch.tensor(1.0, requires_grad=True),
    "detached": lambda o, y: CE(o, y).detach(),
    "of a detached output": lambda o, y: CE(o.detach(), y),
    "of an item": lambda o, y: torch.tensor(CE(o, y).item()),
    "of data": lambda o, y: y.float().mean(),
    "too few arguments": lambda o: o.sum(),
    "too many arguments": lambda o, y, z: o.sum(),
    "complex": lambda o, y: (o * 1j).sum(),
    "raises": lambda o, y: {}["missing"],
    "a wrong criterion": nn.MSELoss(),
    "an index out of range": lambda o, y: CE(o, y + 5),
    "of sorted values": lambda o, y: o.sort(dim=1).values.square().mean(),
    "float64": lambda o, y: CE(o.double(), y),
}
DATA = {
    "None": None,
    "a number": 3,
    "a text": "data",
    "empty": [],
    "a tensor": X,
    "a pair": (X, Y),
    "a generator": ((x, y) for x, y in [(X, Y)]),
    "an iterator": iter([(X, Y)]),
    "None in it": [None],
    "numbers": [1, 2],
    "inputs alone": [X],
    "one of a pair": [(X,)],
    "a triple": [(X, Y, Y)],
    "arrays": [(X.numpy(), Y.numpy())],
    "an array and a tensor": [(X.numpy(), Y)],
    "no target": [(X, None)],
    "no input": [(None, Y)],
    "other lengths": [(X, Y[:3])],
    "no samples": [(X[:0], Y[:0])],
    "NaN inputs": [(X * float("nan"), Y)],
    "a mapping": {"x": X, "y": Y},
    "mappings": [{"x": X, "y": Y}],
    "integer inputs": [(X.long(), Y)],
    "target of floats": [(X, Y.double())],
    "target out of range": [(X, Y + 7)],
    "negative target": [(X, Y - 5)],
    "ignored targets": [(X, torch.full_like(Y, -100))],
    "a scalar": [(torch.tensor(1.0), torch.tensor(1))],
    "sparse inputs": [(X.to_sparse(), Y)],
    "lists": [([1.0, 2.0], [0, 1])],
    "texts": [("a", "b")],
}


def combinations():
    """(name, model, loss, data): one odd thing at a time, beside sound ones."""
    for name, model in MODELS.items():
        yield f"model: {name}", model, CE, [(X, Y)]
    for name, loss in LOSSES.items():
        yield f"loss: {name}", net, loss, [(X, Y)]
    for name, data in DATA.items():
        yield f"data: {name}", net, CE, data
        if isinstance(data, list) and data:
            yield f"data after sound data: {name}", net, CE, [(X, Y), *data]


def _is_of_the_user(error):
    """Whether an error is what a model or a loss of the user's raises itself, which is passed on as it is."""
    return isinstance(error, KeyError) and any(text in str(error) for text in ("bug of the user", "missing"))


def outcome(matrix, model, loss, data):
    """None if it held, else what came."""
    solution, fell = findings.outcome(lambda: cs.eigsh(matrix(model(), loss, data), 1, progress=False), _is_of_the_user)
    if solution is None:
        return fell
    sound = bool(torch.isfinite(solution.eigenvalues).all() and torch.isfinite(solution.residual_norms).all())
    return None if sound else f"eigenvalues {solution.eigenvalues.tolist()}"


def tried(whole):
    """(what was tried, None or what came)."""
    for matrix in (cs.hessian, cs.ggn, cs.empirical_fisher) if whole else (cs.hessian,):
        for name, *rest in combinations():
            yield f"{matrix.__name__}, {name}", outcome(matrix, *rest)


def cases(whole=False):
    """(name, held) for each odd thing."""
    return findings.as_cases(tried(whole))
