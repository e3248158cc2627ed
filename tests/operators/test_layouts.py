"""Sparse and nested tensors as buffers and in batches, and batches whose tensors require grad, against dense networks."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import curvscope as cs
from curvscope.operators._layouts import equal, parts, rows
from curvscope.operators.fingerprint import fingerprint
from curvscope.operators.objective import move
from curvscope.operators.objective._batches import split

LAYOUTS = {"coo": Tensor.to_sparse, "csr": Tensor.to_sparse_csr, "csc": Tensor.to_sparse_csc}
pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")
PLAIN = {"strategy": "double_backward"}
CE = nn.CrossEntropyLoss()


class Graph(nn.Module):
    """A graph convolution with a fixed adjacency matrix, or one from the batch."""

    def __init__(self, adjacency: Tensor | None) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3).double()
        self.register_buffer("adjacency", adjacency)

    def forward(self, x: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        x, adjacency = x if isinstance(x, tuple) else (x, self.adjacency)
        return self.layer(torch.tanh(adjacency @ x))


def graph_data() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    adjacency = (torch.rand(7, 7) < 0.4).double() + torch.eye(7).double()
    return adjacency, torch.randn(7, 4).double(), torch.randint(3, (7,))


def dense(operator: cs.Operator) -> Tensor:
    return operator @ torch.eye(operator.shape[1], dtype=operator.dtype)


@pytest.mark.parametrize("name", ["coo", "csr"])
def test_sparse_buffers(name):
    adjacency, x, y = graph_data()
    model = Graph(LAYOUTS[name](adjacency))
    plain = Graph(adjacency)
    plain.load_state_dict({**model.state_dict(), "adjacency": adjacency})
    H, D = cs.hessian(model, CE, [(x, y)]), cs.hessian(plain, CE, [(x, y)], **PLAIN)
    expected = dense(D)
    torch.testing.assert_close(dense(H), expected)
    torch.testing.assert_close(cs.eigsh(H, k=1, progress=False).eigenvalues, cs.eigsh(D, k=1, progress=False).eigenvalues)
    assert cs.preflight(H).passed
    torch.testing.assert_close(dense(cs.ggn(model, CE, [(x, y)], **PLAIN)), dense(cs.ggn(plain, CE, [(x, y)], **PLAIN)))
    before = H.fingerprint
    other = Graph(LAYOUTS[name](adjacency + 0.1 * torch.eye(7).double()))
    other.layer.load_state_dict(model.layer.state_dict())
    assert cs.hessian(other, CE, [(x, y)]).fingerprint != before
    with torch.no_grad():
        model.layer.weight.mul_(2)
        plain.layer.weight.mul_(2)
    H.move()
    D.move()
    torch.testing.assert_close(dense(H), dense(D))
    assert H.in_dtype(torch.float32).dtype == torch.float32


@pytest.mark.parametrize("name", ["coo", "csr"])
def test_sparse_tensors_in_batches(name):
    adjacency, x, y = graph_data()
    model, S = Graph(None), LAYOUTS[name](adjacency)
    expected = dense(cs.hessian(model, CE, [((x, adjacency), y)], **PLAIN))
    H = cs.hessian(model, CE, [((x, S), y)])
    torch.testing.assert_close(dense(H), expected)
    assert H.fingerprint != cs.hessian(model, CE, [((x, LAYOUTS[name](adjacency * 2)), y)]).fingerprint


@pytest.mark.parametrize("name", ["coo", "csr"])
def test_sparse_inputs_are_cut_into_microbatches(name):
    """A bag of words: a sparse row for each sample."""
    torch.manual_seed(1)
    words = (torch.rand(6, 9) < 0.3).double()

    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.out = nn.Parameter(torch.randn(9, 3).double()), nn.Linear(3, 2).double()

        def forward(self, x: Tensor) -> Tensor:
            return self.out(torch.tanh(x @ self.table))

    model, y = Words(), torch.randint(2, (6,))
    expected = dense(cs.hessian(model, CE, [(words, y)], **PLAIN))
    sparse = LAYOUTS[name](words)
    torch.testing.assert_close(dense(cs.hessian(model, CE, [(sparse, y)], microbatch=2, **PLAIN)), expected)
    pieces = list(split((sparse, y), 4))
    torch.testing.assert_close(torch.cat([piece[0].to_dense() for piece in pieces]), words)


def test_jagged_nested_inputs():
    torch.manual_seed(2)
    sequences = [torch.randn(length, 4).double() for length in (2, 5, 3)]
    jagged, y = torch.nested.nested_tensor(sequences, layout=torch.jagged), torch.tensor([0, 1, 1])

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 3).double(), nn.Linear(3, 2).double()

        def forward(self, x: Tensor | list[Tensor]) -> Tensor:
            if isinstance(x, Tensor):  # PyTorch itself has no second derivative of sums over the ragged axis
                owner = torch.repeat_interleave(torch.arange(len(x.offsets()) - 1), x.offsets().diff())
                h = torch.tanh(self.a(x)).values()
                return self.b(h.new_zeros(int(owner[-1]) + 1, 3).index_add(0, owner, h))
            return self.b(torch.stack([torch.tanh(self.a(item)).sum(0) for item in x]))

    model = Pooled()
    expected = dense(cs.hessian(model, lambda model, batch: CE(model(batch[0]), batch[1]), [(sequences, y)], **PLAIN))
    H = cs.hessian(model, CE, [(jagged, y)])
    torch.testing.assert_close(dense(H), expected)
    torch.testing.assert_close(dense(cs.hessian(model, CE, [(jagged, y)], microbatch=2, **PLAIN)), expected)
    torch.testing.assert_close(H.gradient(), cs.hessian(model, CE, [(jagged, y)], microbatch=1).gradient())


@pytest.mark.parametrize("name", LAYOUTS)
def test_rows_and_digests_of_sparse_tensors(name):
    matrix = torch.tensor([[0.0, 2.0, 0.0], [1.0, 0.0, 3.0], [0.0, 0.0, 0.0], [4.0, 0.0, 0.0]])
    sparse = LAYOUTS[name](matrix)
    for start, stop in ((0, 2), (2, 3), (1, 9)):
        assert torch.equal(rows(sparse, start, stop).to_dense(), matrix[start:stop])
    assert equal(sparse, LAYOUTS[name](matrix.clone()))
    assert not equal(sparse, LAYOUTS[name](2 * matrix))
    assert not equal(sparse, matrix)
    assert fingerprint(sparse) == fingerprint(LAYOUTS[name](matrix.clone())) != fingerprint(LAYOUTS[name](matrix + 1))
    assert all(part.layout == torch.strided for part in parts(sparse))


@pytest.mark.parametrize("count", [1, 2])
def test_points_that_require_grad(count):
    """The usual form of physics-informed networks: the loss differentiates with respect to tensors of the batch."""
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1)).double()

    def residual(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        with torch.enable_grad():
            x = batch["x"]
            u = model(x)
            (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
            return (slope[:, 0] + u[:, 0]).pow(2).mean()

    data = [{"x": torch.randn(6, 2, dtype=torch.float64, requires_grad=True)} for _ in range(count)]
    params = list(net.parameters())
    total = sum(residual(net, batch) for batch in data) / count
    gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(total, params, create_graph=True, materialize_grads=True)])
    vector = torch.randn_like(gradient)
    expected = torch.cat([g.reshape(-1) for g in torch.autograd.grad(gradient, params, vector, materialize_grads=True)])
    H = cs.hessian(net, residual, data)
    torch.testing.assert_close(H @ vector, expected)
    torch.testing.assert_close(cs.hessian(net, residual, data, microbatch=4) @ vector, expected)
    assert all(batch["x"].is_leaf and batch["x"].grad is None for batch in data)
    assert H.objective.data is data


def test_batches_keep_what_requires_grad():
    x = torch.ones(3, 2, requires_grad=True)
    batch = {"x": x * 1, "y": torch.ones(3)}
    moved = move(copy.copy(batch), torch.device("cpu"), torch.float64)
    assert moved["x"].requires_grad
    assert moved["x"].is_leaf
    assert not moved["y"].requires_grad
    assert functional.mse_loss(moved["x"], torch.zeros(3, 2).double()) == 1
