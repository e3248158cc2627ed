"""Products against matrices that were made without our code: closed forms and PyTorch's own dense Hessian."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

import curvscope as cs
from curvscope.errors import InvalidArgument, InvalidType, NotFinite

DOUBLE = torch.float64


def softmax_hessian(W, x):
    """Closed form for logits = W x, mean cross-entropy: sum_n kron(diag(p_n) - p_n p_n', x_n x_n') / N, W row-major."""
    p = (x @ W.T).softmax(dim=1)
    return sum(torch.kron(torch.diag(q) - torch.outer(q, q), torch.outer(z, z)) for q, z in zip(p, x, strict=True)) / len(x)


def dense_hessian(model, loss):
    """Second derivatives of ``loss(outputs)`` by torch.autograd, over the flat parameter vector."""
    names, values = zip(*model.named_parameters(), strict=True)
    sizes = [value.numel() for value in values]

    def flat_loss(theta):
        pieces = [piece.view_as(value) for piece, value in zip(theta.split(sizes), values, strict=True)]
        return loss(lambda x: functional_call(model, dict(zip(names, pieces, strict=True)), (x,)))

    theta = torch.cat([value.detach().reshape(-1) for value in values])
    return torch.autograd.functional.hessian(flat_loss, theta)


def uneven(x, y, cuts=(1, 7)):
    return list(zip(x.tensor_split(cuts), y.tensor_split(cuts), strict=True))


def assert_same_matrix(operator, matrix, tolerance=1e-10):
    size = len(matrix)
    scale = float(matrix.abs().max())
    block = torch.randn(size, 5, dtype=DOUBLE)
    for X in (block, block[:, :1], block[:, 0], torch.eye(size, dtype=DOUBLE)):
        product = operator @ X
        assert product.shape == X.shape
        assert (product - matrix @ X).abs().max() <= tolerance * scale * max(1.0, float(X.abs().max()))


@pytest.mark.parametrize("make", [cs.hessian, cs.ggn])
def test_linear_softmax_closed_form_on_uneven_batches(make):
    model = nn.Linear(4, 3, bias=False).double()
    x, y = torch.randn(11, 4, dtype=DOUBLE), torch.randint(0, 3, (11,))
    expected = softmax_hessian(model.weight.detach(), x)
    for data in ([(x, y)], uneven(x, y), [(x[i : i + 1], y[i : i + 1]) for i in range(11)]):
        assert_same_matrix(make(model, nn.CrossEntropyLoss(), data), expected)


def mlp():
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Sigmoid(), nn.Linear(5, 3)).double()


CRITERIA = {
    "cross-entropy": (nn.CrossEntropyLoss(), lambda n: torch.randint(0, 3, (n,))),
    "cross-entropy, ignored targets": (nn.CrossEntropyLoss(ignore_index=2), lambda n: torch.arange(n) % 3),
    "cross-entropy, class weights": (
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2, 5], dtype=DOUBLE)),
        lambda n: torch.arange(n) % 3,
    ),
    "cross-entropy, summed": (nn.CrossEntropyLoss(reduction="sum"), lambda n: torch.randint(0, 3, (n,))),
    "squared error": (nn.MSELoss(), lambda n: torch.randn(n, 3, dtype=DOUBLE)),
    "a function": (nn.functional.smooth_l1_loss, lambda n: torch.randn(n, 3, dtype=DOUBLE)),
}


@pytest.mark.parametrize("name", CRITERIA)
def test_hessian_of_a_network_on_uneven_batches(name):
    criterion, targets = CRITERIA[name]
    model, x = mlp(), torch.randn(13, 4, dtype=DOUBLE)
    y = targets(13)
    expected = dense_hessian(model, lambda f: criterion(f(x), y))
    for data in ([(x, y)], uneven(x, y)):
        assert_same_matrix(cs.hessian(model, criterion, data), expected)


@pytest.mark.parametrize("name", CRITERIA)
def test_ggn_of_a_network_on_uneven_batches(name):
    criterion, targets = CRITERIA[name]
    model, x = mlp(), torch.randn(13, 4, dtype=DOUBLE)
    y = targets(13)
    names, values = zip(*model.named_parameters(), strict=True)
    jacobians = torch.func.jacrev(lambda p: functional_call(model, p, (x,)))(dict(zip(names, values, strict=True)))
    J = torch.cat([jacobians[n].detach().flatten(2) for n in names], dim=2).flatten(0, 1)
    output = model(x).detach()
    L = torch.autograd.functional.hessian(lambda o: criterion(o.view_as(output), y), output.flatten())
    for data in ([(x, y)], uneven(x, y)):
        assert_same_matrix(cs.ggn(model, criterion, data), J.T @ L @ J)


def test_loss_of_model_and_batch_with_a_weight():
    model = mlp()
    batches = [{"x": torch.randn(n, 4, dtype=DOUBLE), "w": torch.rand(n, dtype=DOUBLE)} for n in (2, 5, 1)]

    def loss(model, batch):
        return (batch["w"] * model(batch["x"]).square().sum(1)).sum() / batch["w"].sum()

    together = {key: torch.cat([batch[key] for batch in batches]) for key in ("x", "w")}
    H = cs.hessian(model, loss, batches, weight=lambda batch: float(batch["w"].sum()))
    assert_same_matrix(H, dense_hessian(model, lambda f: loss(f, together)))
    with pytest.raises(InvalidArgument, match="pass a criterion"):
        cs.ggn(model, loss, batches, weight=lambda batch: float(batch["w"].sum()))


def test_parameter_filters_give_blocks():
    import re

    model, x, y = mlp(), torch.randn(9, 4, dtype=DOUBLE), torch.randint(0, 3, (9,))
    whole = dense_hessian(model, lambda f: nn.functional.cross_entropy(f(x), y))
    places = cs.hessian(model, nn.CrossEntropyLoss(), [(x, y)]).parameters.slices
    chosen = ["2.weight", "2.bias"]
    rows = torch.cat([torch.arange(len(whole))[places[name]] for name in chosen])
    for params in ("2.*", ["2.weight", "2.b*"], re.compile(r"^2\."), lambda name, p: name.startswith("2")):
        H = cs.hessian(model, nn.CrossEntropyLoss(), [(x, y)], params=params)
        assert H.parameters.names == tuple(chosen)
        assert_same_matrix(H, whole[rows][:, rows])


def test_the_operator_is_fixed_and_the_model_untouched():
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 3)).double()
    model[1].eval()
    x, y = torch.randn(8, 4, dtype=DOUBLE), torch.randint(0, 3, (8,))
    model[0].weight.grad = torch.ones_like(model[0].weight)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.random.get_rng_state()
    H = cs.hessian(model, nn.CrossEntropyLoss(), [(x, y)])
    v = torch.randn(H.shape[0], dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    product, name = H @ v, H.fingerprint
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))
    assert model[3].weight.grad is None
    assert [module.training for module in model.modules()] == [True, True, False, True, True]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(p.requires_grad for p in model.parameters())
    with torch.no_grad():
        model[0].weight += 1
    assert torch.equal(H @ v, product)
    assert cs.hessian(model, nn.CrossEntropyLoss(), [(x, y)]).fingerprint != name


def test_float32_model_in_double():
    model, x, y = mlp().float(), torch.randn(9, 4), torch.randint(0, 3, (9,))
    H = cs.hessian(model, nn.CrossEntropyLoss(), [(x, y)], dtype=DOUBLE)
    assert H.dtype == DOUBLE
    double = mlp()
    double.load_state_dict(model.state_dict())
    assert_same_matrix(H, dense_hessian(double, lambda f: nn.functional.cross_entropy(f(x.double()), y)))
    assert next(model.parameters()).dtype == torch.float32


def test_curvlinops_agrees():
    curvlinops = pytest.importorskip("curvlinops")
    model, x, y = mlp(), torch.randn(9, 4, dtype=DOUBLE), torch.randint(0, 3, (9,))
    parameters = list(model.parameters())
    for ours, theirs in ((cs.hessian, curvlinops.HessianLinearOperator), (cs.ggn, curvlinops.GGNLinearOperator)):
        other = theirs(model, nn.CrossEntropyLoss(), parameters, [(x, y)])
        A = ours(model, nn.CrossEntropyLoss(), [(x, y)])
        X = torch.randn(A.shape[0], 3, dtype=DOUBLE)
        torch.testing.assert_close(A @ X, other @ X, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(cs.as_operator(other) @ X, other @ X)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"data": []}, InvalidArgument, "data yielded no batch"),
        ({"data": iter([])}, InvalidArgument, "only once"),
        ({"data": [torch.ones(3, 4)]}, InvalidArgument, "batch 1 is a Tensor, but a criterion needs pairs"),
        ({"loss": nn.CrossEntropyLoss(reduction="none")}, InvalidArgument, "the loss of batch 1 is a tensor of shape"),
        ({"loss": 3}, InvalidType, "loss is 3, expected a criterion"),
        ({"model": "net"}, InvalidType, "model is a str"),
        ({"params": "3.*"}, InvalidArgument, r"params='3\.\*' matches none of the trainable parameters 0.weight"),
        ({"params": 3}, InvalidType, "params is a int"),
        ({"dtype": torch.int64}, InvalidArgument, "dtype=torch.int64"),
    ],
)
def test_bad_input_is_named_before_any_work(change, error, message):
    arguments = {"model": mlp(), "loss": nn.CrossEntropyLoss(), "data": [(torch.randn(3, 4, dtype=DOUBLE), torch.arange(3))]}
    with pytest.raises(error, match=message):
        cs.hessian(**{**arguments, **change})


def test_nan_is_named():
    model, x, y = mlp(), torch.randn(9, 4, dtype=DOUBLE), torch.randint(0, 3, (9,))
    bad = x.clone()
    bad[4, 2] = float("nan")
    with pytest.raises(NotFinite, match="the loss of batch 2 is nan"):
        cs.hessian(model, nn.CrossEntropyLoss(), [(x, y), (bad, y)])
    with torch.no_grad():
        model[2].bias[1] = float("inf")
    with pytest.raises(NotFinite, match=r"parameter '2\.bias' has 1 of 5 entries"):
        cs.hessian(model, nn.CrossEntropyLoss(), [(x, y)])


def test_data_that_changes_is_noticed():
    model, x, y = mlp(), torch.randn(9, 4, dtype=DOUBLE), torch.randint(0, 3, (9,))
    data = [(x, y), (x, y)]
    H = cs.hessian(model, nn.CrossEntropyLoss(), data)
    data.pop()
    with pytest.raises(InvalidArgument, match="data yielded 1 batches, 2 the first time"):
        H @ torch.ones(H.shape[0], dtype=DOUBLE)


@pytest.mark.parametrize(
    ("block", "error", "message"),
    [
        (torch.ones(3, dtype=DOUBLE), InvalidArgument, r"pass \(83,\) or \(83, b\)"),
        (torch.ones(83, 2, 2, dtype=DOUBLE), InvalidArgument, "shape"),
        (torch.ones(83, dtype=torch.int64), InvalidArgument, "the operator is torch.float64, the block torch.int64"),
        (["1.0"], InvalidType, "pass"),
    ],
)
def test_wrong_blocks(block, error, message):
    model = mlp()
    H = cs.hessian(model, nn.CrossEntropyLoss(), [(torch.randn(3, 4, dtype=DOUBLE), torch.arange(3))])
    assert H.shape == (83, 83)
    with pytest.raises(error, match=message):
        H @ block


def test_loss_that_is_linear_or_constant_in_a_parameter():
    class Partly(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.linear, self.unused = (nn.Parameter(torch.ones(2, dtype=DOUBLE)) for _ in range(3))

        def forward(self, x):
            return (self.used**3).sum() * x.mean() + self.linear.sum()

    model, x = Partly(), torch.ones(4, dtype=DOUBLE)
    H = cs.hessian(model, lambda model, batch: model(batch), [x])
    assert_same_matrix(H, torch.diag(torch.tensor([6.0, 6, 0, 0, 0, 0], dtype=DOUBLE)))
