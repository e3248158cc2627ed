"""Operations whose derivatives PyTorch has wrong or not at all, and models that are evaluated in unusual ways."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import curvscope as cs
from curvscope.errors import NotDifferentiable

STRATEGIES = ["double_backward", "split", "split_vmap"]
DOUBLE = torch.float64


@pytest.fixture(autouse=True)
def in_float64():
    torch.manual_seed(0)
    torch.set_default_dtype(DOUBLE)
    yield
    torch.set_default_dtype(torch.float32)


def difference_quotient(objective, v, step=1e-4):
    """H v from gradients that are evaluated at moved parameters, fourth order, in plain autograd."""

    def gradient(t):
        values = [
            (value + t * piece).requires_grad_()
            for value, piece in zip(objective.values, objective.parameters.split(v), strict=True)
        ]
        with objective.isolated(), torch.enable_grad():
            total = 0
            for batch, weight in objective.batches():
                total = total + weight * objective.loss(tuple(values), batch)
            return objective.parameters.join(torch.autograd.grad(total, values, materialize_grads=True))

    near, far = (gradient(step) - gradient(-step)) / (2 * step), (gradient(2 * step) - gradient(-2 * step)) / (4 * step)
    return (4 * near - far) / 3


def same_matrix(found, expected, limit=1e-12):
    """Products with random vectors agree."""
    for strategy in ("double_backward", "split"):
        ours, theirs = found(strategy), expected(strategy)
        block = torch.randn(ours.shape[0], 3, dtype=DOUBLE)
        difference, product = ours @ block - theirs @ block, theirs @ block
        assert float(difference.norm()) <= limit * float(product.norm()), strategy


class Body(nn.Module):
    def __init__(self, middle=lambda body, h: body.b(h)):
        super().__init__()
        torch.manual_seed(1)
        self.a, self.b, self.c = nn.Linear(3, 4), nn.Sequential(nn.Linear(4, 4), nn.Tanh()), nn.Linear(4, 3)
        self.middle = middle

    def forward(self, x):
        return self.c(self.middle(self, torch.tanh(self.a(x))))


DATA = [(torch.randn(5, 3, dtype=DOUBLE), torch.arange(5) % 3)]


# --- recomputation ------------------------------------------------------------------------------------------------------------

CHECKPOINTED = {
    "not reentrant": lambda body, h: checkpoint(body.b, h, use_reentrant=False),
    "reentrant": lambda body, h: checkpoint(body.b, h, use_reentrant=True),
    "sequential": lambda body, h: checkpoint_sequential(body.b, 2, h, use_reentrant=False),
    "nested": lambda body, h: checkpoint(lambda t: checkpoint(body.b, t, use_reentrant=False), h, use_reentrant=False),
}


@pytest.mark.parametrize("middle", CHECKPOINTED.values(), ids=CHECKPOINTED)
def test_checkpoints_use_the_operators_parameters(middle):
    nets = Body(middle), Body()
    found, expected = ({s: cs.hessian(net, F.cross_entropy, DATA, strategy=s) for s in STRATEGIES} for net in nets)
    with torch.no_grad():  # training goes on
        for net in nets:
            for p in net.parameters():
                p.mul_(1.5)
    same_matrix(found.__getitem__, expected.__getitem__)
    assert torch.allclose(found["split"].gradient(), expected["split"].gradient())


def test_checkpoints_work_as_before_outside():
    h = torch.randn(2, 4, requires_grad=True)
    net = Body()
    cs.hessian(Body(CHECKPOINTED["reentrant"]), F.cross_entropy, DATA) @ torch.ones(sum(p.numel() for p in net.parameters()))
    checkpoint(net.b, h, use_reentrant=True).sum().backward()
    assert torch.allclose(h.grad, torch.autograd.grad(net.b(h).sum(), h)[0])


# --- scripts ------------------------------------------------------------------------------------------------------------------


def gelu(x):
    return x * 0.5 * (1.0 + torch.erf(x / 1.41421))


def scripted(kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "function":
            return torch.jit.script(gelu)
        if kind == "traced":
            return torch.jit.trace(gelu, torch.randn(5, 4))
        return torch.jit.script(nn.Sequential(nn.Tanh(), nn.Hardswish()))


@pytest.mark.parametrize("kind", ["function", "traced", "module"])
@pytest.mark.parametrize("warm", [False, True])
def test_scripts_have_derivatives(kind, warm):
    script = scripted(kind)
    plain = nn.Sequential(nn.Tanh(), nn.Hardswish()) if kind == "module" else gelu
    net, same = Body(lambda body, h: script(body.b(h))), Body(lambda body, h: plain(body.b(h)))
    for _ in range(3 * warm):  # the executor compiles on its second call
        gradient = torch.autograd.grad(F.cross_entropy(net(DATA[0][0]), DATA[0][1]), net.parameters(), create_graph=True)
        torch.autograd.grad(sum(g.square().sum() for g in gradient), net.parameters())
    same_matrix(*(lambda s, net=n: cs.hessian(net, F.cross_entropy, DATA, strategy=s) for n in (net, same)))


@pytest.mark.parametrize("how", ["script", "trace"])
def test_scripted_parts_with_parameters_have_derivatives(how):
    net = nn.Sequential(nn.Linear(3, 5), nn.Hardswish(), nn.Linear(5, 3)).to(DOUBLE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        part = torch.jit.script(net[:2]) if how == "script" else torch.jit.trace(net[:2], DATA[0][0])
    mixed = nn.Sequential(part, net[2])
    same_matrix(
        *(lambda s, net=n: cs.hessian(net, F.cross_entropy, DATA, strategy=s) for n in (mixed, nn.Sequential(net[:2], net[2])))
    )


# --- embeddings ---------------------------------------------------------------------------------------------------------------

IDS = torch.tensor([[0, 1, 2], [3, 0, 0], [4, 2, 0], [1, 1, 0]])
BAG_WEIGHTS = torch.rand(IDS.shape, dtype=DOUBLE)


class Words(nn.Module):
    """An embedding with a padding row that takes part in the loss, and its plain counterpart."""

    def __init__(self, lookup):
        super().__init__()
        torch.manual_seed(2)
        self.table, self.out, self.lookup = nn.Parameter(torch.randn(5, 4)), nn.Linear(4, 3), lookup

    def forward(self, ids):
        return self.out(torch.tanh(self.lookup(ids, self.table)))


def held(table):
    """The table with row 0 as a constant."""
    return torch.cat([table[:1].detach(), table[1:]])


LOOKUPS = {
    "padding": (lambda i, t: F.embedding(i, t, padding_idx=0).mean(1), lambda i, t: held(t)[i].mean(1)),
    "negative": (lambda i, t: F.embedding(i, t, padding_idx=-5).mean(1), lambda i, t: held(t)[i].mean(1)),
    "torch.embedding": (lambda i, t: torch.embedding(t, i, 0).mean(1), lambda i, t: held(t)[i].mean(1)),
    "bag mean": (
        lambda i, t: F.embedding_bag(i, t, padding_idx=0),
        lambda i, t: (t[i] * (i > 0)[..., None]).sum(1) / (i > 0).sum(1, keepdim=True),
    ),
    "bag sum": (
        lambda i, t: F.embedding_bag(i, t, mode="sum", per_sample_weights=BAG_WEIGHTS),
        lambda i, t: (t[i] * BAG_WEIGHTS[..., None]).sum(1),
    ),
    "bag max": (lambda i, t: F.embedding_bag(i, t, mode="max"), lambda i, t: t[i].amax(1)),
    "bag offsets": (
        lambda i, t: F.embedding_bag(i.flatten(), t, torch.arange(0, i.numel(), 3)),
        lambda i, t: t[i].mean(1),
    ),
}


@pytest.mark.parametrize(("lookup", "plain"), LOOKUPS.values(), ids=LOOKUPS)
def test_embeddings(lookup, plain):
    data = [(IDS, torch.arange(4) % 3)]
    models = Words(lookup), Words(plain)
    assert torch.allclose(models[0](IDS), models[1](IDS))
    same_matrix(*(lambda s, m=model: cs.hessian(m, F.cross_entropy, data, strategy=s) for model in models))
    same_matrix(*(lambda s, m=model: cs.ggn(m, F.cross_entropy, data, strategy=s) for model in models))


def test_a_table_within_its_norm_is_not_written_to():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(5, 4, max_norm=1.0), nn.Flatten(), nn.Tanh(), nn.Linear(12, 3))
    data, before = [(IDS, torch.arange(4) % 3)], model[0].weight.detach().clone()
    H = cs.hessian(model, F.cross_entropy, data)
    table = H.objective.values[0]
    assert torch.equal(model[0].weight, before)
    assert float(table.norm(dim=1).max()) <= 1
    plain = nn.Sequential(nn.Embedding(5, 4), *model[1:])
    with torch.no_grad():
        plain[0].weight.copy_(table)
    same_matrix(*(lambda s, m=m: cs.hessian(m, F.cross_entropy, data, strategy=s) for m in (model, plain)))
    assert torch.equal(H.objective.values[0], table)


def test_rescaled_gradients_are_refused_by_name():
    model = nn.Sequential(nn.Embedding(5, 4, scale_grad_by_freq=True), nn.Flatten(), nn.Linear(12, 3))
    with pytest.raises(NotDifferentiable, match="scale_grad_by_freq"):
        cs.hessian(model, F.cross_entropy, [(IDS, torch.arange(4) % 3)])


# --- states -------------------------------------------------------------------------------------------------------------------


class Counts(nn.Module):
    """Moves buffers in every forward pass, also in evaluation mode."""

    def __init__(self, moves=True):
        super().__init__()
        torch.manual_seed(3)
        self.a, self.c, self.moves = nn.Linear(3, 4), nn.Linear(4, 3), moves
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.register_buffer("average", torch.ones(4))

    def forward(self, x):
        h = torch.tanh(self.a(x))
        if self.moves:
            self.calls += 1
            self.average.mul_(0.9).add_(0.1 * h.detach().mean(0))
            return self.c(h / self.average * self.calls)
        average = 0.9 + 0.1 * h.detach().mean(0)
        return self.c(h / average)


def test_buffers_begin_from_the_same_state_every_time():
    nets = Counts(), Counts(moves=False)
    same_matrix(*(lambda s, n=n: cs.hessian(n, F.cross_entropy, DATA, strategy=s) for n in nets))
    assert int(nets[0].calls) == 0
    H = cs.hessian(nets[0], F.cross_entropy, DATA)
    assert torch.equal(H @ torch.ones(31), H @ torch.ones(31))


# --- products over groups -----------------------------------------------------------------------------------------------------

GROUPS = torch.tensor([0, 1, 0, 1])
PRODUCTS = {
    "scatter_reduce": lambda h: torch.ones(len(h), 3).scatter_reduce(1, GROUPS.expand(len(h), 4), h, "prod"),
    "without self": lambda h: (2 * h[:, :3]).scatter_reduce(1, GROUPS.expand(len(h), 4), h, "prod", include_self=False),
    "in place": lambda h: (1 + h[:, :3]).scatter_reduce_(1, GROUPS.expand(len(h), 4), h, "prod"),
    "index_reduce": lambda h: (1 + h[:, :3]).index_reduce(1, GROUPS, h, "prod"),
}
PLAIN = {
    "scatter_reduce": lambda h: torch.stack([h[:, 0] * h[:, 2], h[:, 1] * h[:, 3], torch.ones(len(h))], 1),
    "without self": lambda h: torch.stack([h[:, 0] * h[:, 2], h[:, 1] * h[:, 3], 2 * h[:, 2]], 1),
    "in place": lambda h: torch.stack([(1 + h[:, 0]) * h[:, 0] * h[:, 2], (1 + h[:, 1]) * h[:, 1] * h[:, 3], 1 + h[:, 2]], 1),
}
PLAIN["index_reduce"] = PLAIN["in place"]


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_over_groups(name):
    nets = [
        nn.Sequential(nn.Linear(3, 4), nn.Tanh(), Applied(operation), nn.Linear(3, 3))
        for operation in (PRODUCTS[name], PLAIN[name])
    ]
    nets[1].load_state_dict(nets[0].state_dict())
    same_matrix(*(lambda s, n=n: cs.hessian(n, F.cross_entropy, DATA, strategy=s) for n in nets))


class Applied(nn.Module):
    def __init__(self, operation):
        super().__init__()
        self.operation = operation

    def forward(self, h):
        return self.operation(h)


# --- gradients in the loss ----------------------------------------------------------------------------------------------------


def forces(model, batch):
    x = batch.clone().requires_grad_()
    (force,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
    return (force - 1).square().mean()


def laplacian(model, batch):
    return torch.func.vmap(lambda x: torch.func.hessian(lambda y: model(y[None]).sum())(x).trace())(batch).square().mean()


def penalty_under_no_grad_elsewhere(model, batch):
    with torch.no_grad():
        scale = model(batch).abs().mean()
    x = batch.clone().requires_grad_()
    energy = model(x).sum()
    return energy.square() / 8 + torch.autograd.grad(energy, x, create_graph=True)[0].square().mean() * (1 + 0 * scale)


INSIDE = {"forces": forces, "laplacian": laplacian, "penalty": penalty_under_no_grad_elsewhere}
NORMS = {
    "none": nn.Identity,
    "layer norm": lambda: nn.LayerNorm(6),
    "group norm": lambda: nn.GroupNorm(2, 6),
}


@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
@pytest.mark.parametrize("loss", INSIDE.values(), ids=INSIDE)
def test_gradients_inside_the_loss(loss, norm):
    model = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), norm(), nn.Linear(6, 1))
    data = [torch.randn(4, 3), torch.randn(4, 3)]
    for strategy in ("auto", "split"):
        H = cs.hessian(model, loss, data, strategy=strategy)
        v = torch.randn(H.shape[0])
        expected = difference_quotient(H.objective, v)
        assert float((H @ v - expected).norm()) <= 1e-6 * float(expected.norm())


def test_a_network_that_returns_forces_has_a_ggn():
    class Forces(nn.Module):
        def __init__(self):
            super().__init__()
            self.energy = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))

        def forward(self, x):
            x = x.detach().requires_grad_()
            return torch.autograd.grad(self.energy(x).sum(), x, create_graph=True)[0]

    data = [(torch.randn(4, 3), torch.randn(4, 3))]
    found = [cs.ggn(model, nn.MSELoss(), data, strategy=s) for model in [Forces()] for s in STRATEGIES]
    v = torch.randn(found[0].shape[0])
    for other in found[1:]:
        assert torch.allclose(other @ v, found[0] @ v)


# --- casts --------------------------------------------------------------------------------------------------------------------

CASTS = {
    "float": lambda x: x.float(),
    "to": lambda x: x.to(torch.float32),
    "type": lambda x: x.type(torch.float32) + torch.zeros(1),
    "like a new one": lambda x: x.to(torch.zeros(1)) + torch.zeros(4, dtype=torch.float32),
    "softmax": lambda x: torch.softmax(x, -1, dtype=torch.float32),
}


@pytest.mark.parametrize("cast", CASTS.values(), ids=CASTS)
def test_casts_follow_the_dtype_of_the_computation(cast):
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    model = nn.Sequential(Applied(cast), nn.Linear(4, 3))
    data = (
        [(torch.randint(0, 9, (6, 4)), torch.arange(6) % 3)]
        if cast is not CASTS["softmax"]
        else [(torch.randn(6, 4), torch.arange(6) % 3)]
    )
    H = cs.hessian(model, F.cross_entropy, data, dtype=DOUBLE)
    x = torch.softmax(data[0][0].double(), -1) if cast is CASTS["softmax"] else data[0][0].double()
    plain = cs.hessian(model[1].double(), F.cross_entropy, [(x, data[0][1])])
    v = torch.randn(15, dtype=DOUBLE)
    assert float((H @ v - plain @ v).norm()) <= 1e-12 * float((plain @ v).norm())
    assert H.rounding < 1e-15
    assert torch.get_default_dtype() == torch.float32


def test_bfloat16_parts_are_computed_in_the_widest_dtype():
    torch.set_default_dtype(torch.float32)

    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 6).bfloat16(), nn.Linear(6, 3)

        def forward(self, x):
            return self.b(torch.tanh(self.a(x.bfloat16())).float())

    data = [(torch.randn(6, 4), torch.arange(6) % 3)]
    assert cs.preflight(cs.hessian(Mixed(), F.cross_entropy, data)).passed


# --- indices ------------------------------------------------------------------------------------------------------------------

ROWS = torch.tensor([2, 0, 1, 3])
INDEXED = {
    "two axes": lambda h: h[:, ROWS.view(2, 2)].flatten(1),
    "several": lambda h: torch.cat([h, h[torch.arange(len(h)), torch.arange(len(h)) % 4, None]], 1)[:, 1:],
    "mask": lambda h: h + h[h.detach() > 0.1].sum(),
    "axis mask": lambda h: h[:, torch.tensor([True, False, True, True])].repeat(1, 2)[:, :4],
}


@pytest.mark.parametrize("index", INDEXED.values(), ids=INDEXED)
def test_indices_are_recorded(index):
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), Applied(index), nn.Linear(4, 3))
    data = [DATA[0], (torch.randn(5, 3), DATA[0][1])]
    H = cs.hessian(model, F.cross_entropy, data)
    with cs.execution.long_work():
        found = H @ torch.eye(H.shape[0])[:, :3]
    assert H.strategy_report["strategy"].startswith("split")
    expected = cs.hessian(model, F.cross_entropy, data, strategy="double_backward") @ torch.eye(H.shape[0])[:, :3]
    assert torch.allclose(found, expected)


# --- switches -----------------------------------------------------------------------------------------------------------------


def switches():
    cuda = torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.fp32_precision
    return (
        *cuda,
        torch.backends.cudnn.conv.fp32_precision,
        torch.backends.cudnn.rnn.fp32_precision,
        torch.backends.cudnn.allow_tf32,
    )


def reading(h):
    return h if torch.backends.cudnn.allow_tf32 in (True, False) else -h


def with_flags(h):
    with torch.backends.cudnn.flags(enabled=False):
        return h * 2


@pytest.mark.parametrize("inside", [reading, with_flags])
def test_models_may_switch_backends(inside):
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), Applied(inside), nn.Linear(4, 3))
    before = switches()
    H = cs.hessian(model, F.cross_entropy, DATA)
    H @ torch.ones(H.shape[0])
    assert switches() == before
