"""Attention on tiles against PyTorch's own in float64, against differences, and inside operators."""

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, jvp, vjp, vmap
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import curvscope as cs
from curvscope.errors import NotDifferentiable
from curvscope.operators.rules.attention import _call, _forward, _tiles, tiled_attention

DOUBLE = torch.float64
B, H, N, M, E, V = 2, 4, 13, 9, 5, 3


def seen():
    mask = torch.rand(B, 1, N, M, generator=torch.Generator().manual_seed(3)) > 0.3
    mask[0, 0, 2] = False  # a query that sees nothing
    return mask


def added(hidden):
    return torch.zeros(B, 1, N, M, dtype=DOUBLE).masked_fill(~seen(), hidden)


def numbers(*shape):
    return torch.randn(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(sum(shape)))


USUAL = ((B, H, N, E), (B, H, M, E), (B, H, M, V))
GROUPED = ((B, H, N, E), (B, 2, M, E), (B, 2, M, V))
# name: (shapes of q, k, v, arguments of PyTorch's function)
KINDS = {
    "plain": (USUAL, {}),
    "scale": (USUAL, {"scale": 0.3}),
    "causal, fewer keys": (USUAL, {"is_causal": True}),
    "causal, more keys": (((B, H, M, E), (B, H, N, E), (B, H, N, V)), {"is_causal": True}),
    "boolean": (USUAL, {"attn_mask": seen()}),
    "boolean, one for each head": (USUAL, {"attn_mask": numbers(B, H, N, M) > -0.5}),
    "padding": (USUAL, {"attn_mask": torch.tensor([6, 9])[:, None, None, None] > torch.arange(M)}),
    "additive": (USUAL, {"attn_mask": numbers(H, N, M)}),
    "additive, -inf": (USUAL, {"attn_mask": added(-float("inf"))}),
    "additive, most negative": (USUAL, {"attn_mask": added(torch.finfo(DOUBLE).min)}),
    "grouped": (GROUPED, {"enable_gqa": True}),
    "grouped, causal": (GROUPED, {"enable_gqa": True, "is_causal": True}),
    "grouped, boolean": (GROUPED, {"enable_gqa": True, "attn_mask": numbers(B, H, N, M) > -0.5}),
    "broadcast": (((B, H, N, E), (1, H, M, E), (M, V)), {}),
    "matrices": (((N, E), (M, E), (M, V)), {"is_causal": True}),
    "three axes": (((H, N, E), (H, M, E), (H, M, V)), {"attn_mask": numbers(1, M)}),
    "five axes": (((2, 3, 2, N, E), (2, 1, 2, M, E), (3, 2, M, V)), {"attn_mask": numbers(2, 1, 1, 1, M) > -0.5}),
}
BLIND = {"boolean", "additive, -inf"}
TILES = [(128, 1 << 19), (4, 64), (3, 1)]
QUICK = {"causal, more keys", "boolean", "additive, most negative", "grouped, causal"}
SIZED = [
    pytest.param(kind, sizes, marks=() if sizes[0] == 4 and kind in QUICK else pytest.mark.slow, id=f"{kind}, {sizes[0]} rows")
    for kind in KINDS
    for sizes in TILES
]


def set_tiles(monkeypatch, rows, entries):
    monkeypatch.setattr(_tiles, "ROWS", rows)
    monkeypatch.setattr(_tiles, "CPU_ENTRIES", entries)
    monkeypatch.setattr(_forward, "CPU_ENTRIES", entries)


@pytest.fixture
def always(monkeypatch):
    """Short sequences go by tiles too."""
    monkeypatch.setattr(_call, "MIN_TILED_SCORES", 1)


def ours(options):
    names = {"attn_mask": "mask", "is_causal": "causal", "enable_gqa": "grouped"}
    renamed = {names.get(name, name): value for name, value in options.items()}
    return lambda q, k, v: tiled_attention(q, k, v, **renamed)


def exact(options):
    def attention(q, k, v):
        with sdpa_kernel(SDPBackend.MATH):
            return F.scaled_dot_product_attention(q, k, v, **options)

    return attention


def arguments(shapes, seed=0):
    torch.manual_seed(seed)
    return [torch.randn(*shape, dtype=DOUBLE) for shape in shapes]


def derivatives(attention, shapes, *, blind):
    """Everything that autograd and torch.func make of attention, up to the second derivative."""
    q, k, v = x = arguments(shapes)
    along = tuple(arguments(shapes, seed=1))
    many = tuple(torch.stack([a, 2 * b, -c]) for a, b, c in zip(along, x, arguments(shapes, seed=2), strict=True))
    slope, slope_t = (torch.randn_like(attention(q, k, v)) for _ in range(2))

    def gradient(q, k, v, slope):
        return vjp(attention, q, k, v)[1](slope)

    found = [attention(q, k, v), jvp(attention, (q, k, v), along)[1], *gradient(q, k, v, slope)]
    found += jvp(gradient, (q, k, v, slope), (*along, slope_t))[1]
    found += vmap(lambda *a: jvp(gradient, (q, k, v, slope), (*a, slope_t))[1])(*many)
    found += vmap(lambda g: gradient(q, k, v, g))(torch.stack([slope, slope_t]))
    found += vjp(gradient, q, k, v, slope)[1](along)
    found += vmap(lambda *a: vjp(gradient, q, k, v, slope)[1](a))(*many)
    found += vmap(lambda k, g: gradient(q, k, v, g), in_dims=(1, 0))(torch.stack([k, 2 * k], 1), torch.stack([slope, slope_t]))
    moved = torch.stack([q, 0.5 * q]), torch.stack([q, k.new_ones(q.shape)])
    found += vmap(lambda q, a: jvp(lambda q: gradient(q, k, v, slope), (q,), (a,))[1])(*moved)
    found += vmap(lambda g, a: jvp(lambda q: gradient(q, k, v, g), (q,), (a,))[1])(torch.stack([slope, slope_t]), moved[1])
    if not blind:  # where a query sees nothing, PyTorch's own have NaN
        found += vjp(lambda q, k, v, *a: jvp(attention, (q, k, v), a)[1], q, k, v, *along)[1](slope)
    leaves = [tensor.clone().requires_grad_() for tensor in (q, k, v, slope)]
    graph = torch.autograd.grad(attention(*leaves[:3]), leaves[:3], leaves[3], create_graph=True)
    found += torch.autograd.grad(graph, leaves, along, retain_graph=True)
    found += torch.autograd.grad(graph, leaves, many, is_grads_batched=True, retain_graph=True)
    found += torch.autograd.grad(graph[1], leaves, along[1], allow_unused=True)
    return found


def far(found, expected):
    return float((found - expected).norm() / expected.norm().clamp_min(1e-300))


@pytest.mark.parametrize(("kind", "sizes"), SIZED)
def test_all_derivatives_are_pytorchs(kind, sizes, monkeypatch):
    set_tiles(monkeypatch, *sizes)
    shapes, options = KINDS[kind]
    pairs = zip(*(derivatives(f(options), shapes, blind=kind in BLIND) for f in (ours, exact)), strict=True)
    assert max(far(a, b) for a, b in pairs) <= 1e-13


@pytest.mark.parametrize("kind", KINDS)
def test_float32_is_as_exact_as_float32(kind):
    shapes, options = KINDS[kind]
    x, along = arguments(shapes), arguments(shapes, seed=1)
    slope = torch.randn_like(exact(options)(*x))

    def second(attention, dtype):
        g, *rest = (tensor.to(dtype) for tensor in (slope, *x, *along))
        return jvp(lambda *a: vjp(attention, *a)[1](g), tuple(rest[:3]), tuple(rest[3:]))[1]

    mask = options.get("attn_mask")
    narrow = dict(options)
    if mask is not None and mask.is_floating_point():
        least = torch.tensor(torch.finfo().min)
        narrow["attn_mask"] = torch.where(mask == torch.finfo(DOUBLE).min, least, mask.float())
    for found, expected in zip(second(ours(narrow), torch.float32), second(exact(options), DOUBLE), strict=True):
        assert far(found.double(), expected) <= 1e-5


# Scores beside the most negative number are lost to rounding: differences are zero, derivatives (PyTorch's too) are not.
@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "additive, most negative"])
def test_differences_agree(kind, monkeypatch):
    set_tiles(monkeypatch, 4, 64)
    shapes, options = KINDS[kind]
    leaves = [tensor.requires_grad_() for tensor in arguments(shapes)]
    fast = {"fast_mode": True, "check_batched_grad": True}
    assert gradcheck(ours(options), leaves, check_forward_ad=True, check_batched_forward_grad=True, **fast)
    assert gradgradcheck(ours(options), leaves, check_fwd_over_rev=True, check_rev_over_rev=True, **fast)


def test_queries_that_see_nothing_get_zero_and_give_no_gradient():
    q, k, v = arguments(USUAL)
    mask = torch.zeros(N, M, dtype=torch.bool)
    out, pull = vjp(lambda *a: tiled_attention(*a, mask=mask), q, k, v)
    assert not out.any()
    assert not any(piece.any() for piece in pull(torch.ones_like(out)))


def test_the_largest_scores_do_not_overflow():
    q, k, v = arguments(USUAL)
    found, expected = (f({"scale": 1e3})(q, k, v) for f in (ours, exact))
    assert far(found, expected) <= 1e-12


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32(dtype):
    x = [tensor.to(dtype) for tensor in arguments(USUAL)]
    found, pull = vjp(tiled_attention, *x)
    expected, exact_pull = vjp(tiled_attention, *(tensor.double() for tensor in x))
    assert found.dtype is dtype
    slope = torch.ones_like(found)
    pairs = zip((found, *pull(slope)), (expected, *exact_pull(slope.double())), strict=True)
    assert max(far(a.double(), b) for a, b in pairs) <= torch.finfo(dtype).eps


def keys_of(mask=None, rows=20, keys=20, causal=False):
    q, k = torch.zeros(2, 1, 1, rows, 2), torch.zeros(2, 1, keys, 2)
    weights = _tiles.Weights(q, k, mask, causal, 1.0)
    return [(tile.heads.start, tile.rows.start, tile.keys.start, tile.keys.stop) for tile in weights.tiles()]


def test_tiles_skip_what_nobody_sees(monkeypatch):
    set_tiles(monkeypatch, 10, 1)
    whole = [(0, 0, 0, 20), (0, 10, 0, 20), (1, 0, 0, 20), (1, 10, 0, 20)]
    assert keys_of() == whole
    assert [t[2:] for t in keys_of(causal=True)] == [(0, 10), (0, 20)] * 2
    document = torch.arange(20) // 10
    packed = document[:, None] == document
    for mask in (
        packed,
        torch.zeros(20, 20).masked_fill(~packed, -1e38),
        torch.zeros(20, 20).masked_fill(~packed, -float("inf")),
    ):
        expected = [(0, 10), (10, 20)] * 2 if mask.dtype is torch.bool or mask.isinf().any() else [(0, 20)] * 4
        assert [t[2:] for t in keys_of(mask[None, None, None])] == expected
    least = torch.zeros(20, 20).masked_fill(~packed, torch.finfo().min)
    assert [t[2:] for t in keys_of(least[None, None, None])] == [(0, 10), (10, 20)] * 2
    least[3] = torch.finfo().min  # a row of this is uniform, over all keys
    assert [t[2:] for t in keys_of(least[None, None, None])] == [(0, 20), (10, 20)] * 2
    padded = torch.tensor([[7], [20]]) > torch.arange(20)
    assert [t[2:] for t in keys_of(padded[:, None, None, None])] == [(0, 7), (0, 7), (0, 20), (0, 20)]


# --- inside operators ---------------------------------------------------------------------------------------------------------


class Block(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.qkv, self.out, self.options = nn.Linear(8, 24), nn.Linear(8, 8), options

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        return x + self.out(F.scaled_dot_product_attention(q, k, v, **self.options).transpose(1, 2).flatten(2))


class Grouped(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.kv = nn.Linear(8, 16), nn.Linear(8, 8)

    def forward(self, x):
        k, v = self.kv(x).unflatten(-1, (2, 2, 2)).permute(2, 0, 3, 1, 4)
        q = self.q(x).unflatten(-1, (8, 2)).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return mixed.transpose(1, 2).flatten(2)[..., :8]


class WithoutWeights(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.MultiheadAttention(8, 2, batch_first=True, dropout=0.1)

    def forward(self, x):
        padded = torch.arange(x.shape[1]) >= x.shape[1] - 2
        return self.inner(x, x, x, need_weights=False, key_padding_mask=padded.expand(len(x), -1))[0]


LAYERS = {
    "causal": lambda: Block(is_causal=True),
    "boolean": lambda: Block(attn_mask=(torch.arange(12)[:, None] - torch.arange(12)).abs() < 4),
    "grouped": Grouped,
    "MultiheadAttention": WithoutWeights,
    "TransformerEncoderLayer": lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
}


def network(layer):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), LAYERS[layer](), nn.Flatten(), nn.Linear(96, 3)).to(DOUBLE)


def batches():
    torch.manual_seed(1)
    return [(torch.randn(4, 12, 3, dtype=DOUBLE), torch.tensor([0, 1, 2, 0])) for _ in range(2)]


def product(matrix, layer, strategy):
    operator = getattr(cs, matrix)(network(layer), nn.CrossEntropyLoss(), batches(), strategy=strategy, dtype=DOUBLE)
    torch.manual_seed(2)
    return operator, operator @ torch.randn(operator.shape[0], 3, dtype=DOUBLE)


def attention_calls(operator):
    """Names of our operations in the primal and in the tangent program."""
    split = operator._engine._strategies[operator.strategy_report["strategy"]]
    programs = [program for programs in split._programs.values() for program in programs]
    return [
        {str(node.target) for node in getattr(programs[0], part).graph.nodes if "curvscope" in str(node.target)}
        for part in ("primal", "tangent")
    ]


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("matrix", ["hessian", "ggn"])
def test_products_are_those_of_the_plain_kernel(layer, matrix, monkeypatch):
    expected = product(matrix, layer, "double_backward")[1]
    monkeypatch.setattr(_call, "MIN_TILED_SCORES", 1)
    for strategy in ("double_backward", "split", "split_vmap"):
        operator, found = product(matrix, layer, strategy)
        assert far(found, expected) <= 1e-12
        if strategy != "double_backward":
            assert operator.strategy_report["strategy"] == strategy
            primal, tangent = attention_calls(operator)
            first, back = "curvscope.attention.default", "curvscope.attention_backward.default"
            hessian = matrix == "hessian"
            assert primal == ({first, back} if hessian else {first})
            last = "curvscope.attention_backward_along.default" if hessian else back
            assert tangent == {"curvscope.attention_along.default", last}


def test_short_sequences_keep_pytorchs_kernel():
    operator, _ = product("hessian", "causal", "split")
    assert attention_calls(operator) == [set(), set()]


def test_what_is_kept_is_linear_in_the_length(always):
    kept = []
    for length in (64, 128, 256):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 8), Block(is_causal=True), nn.Linear(8, 2))
        data = [(torch.randn(1, length, 3), torch.randn(1, length, 2))]
        operator = cs.hessian(model, nn.MSELoss(), data, strategy="split")
        operator @ torch.ones(operator.shape[0])
        kept.append(operator.strategy_report["kept_bytes"])
    assert kept[2] - kept[1] <= 2.01 * (kept[1] - kept[0])


def test_a_learned_mask_keeps_pytorchs_kernel(always):
    class Biased(Block):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.randn(2, 12, 12))

        def forward(self, x):
            self.options = {"attn_mask": self.bias}
            return super().forward(x)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), Biased(), nn.Flatten(), nn.Linear(96, 3)).to(DOUBLE)
    operator = cs.hessian(model, nn.CrossEntropyLoss(), batches(), strategy="split", dtype=DOUBLE)
    operator @ torch.ones(operator.shape[0], dtype=DOUBLE)
    assert attention_calls(operator) == [set(), set()]


def test_a_loss_with_a_gradient_inside_keeps_pytorchs_kernel(always):
    """Its products are third derivatives."""
    model, ((x, _), _) = network("causal"), batches()
    parameters = dict(model.named_parameters())

    def loss(p):
        moved = x.clone().requires_grad_()
        energy = torch.func.functional_call(model, p, (moved,)).square().sum()
        return torch.autograd.grad(energy, moved, create_graph=True)[0].square().mean()

    operator = cs.hessian(loss, parameters, dtype=DOUBLE)
    v = torch.randn(operator.shape[0], dtype=DOUBLE)
    leaves = list(parameters.values())
    with sdpa_kernel(SDPBackend.MATH):
        slopes = torch.autograd.grad(loss(parameters), leaves, create_graph=True, materialize_grads=True)
        inner = torch.cat([slope.reshape(-1) for slope in slopes]) @ v
        expected = torch.autograd.grad(inner, leaves, materialize_grads=True)
    assert far(operator @ v, torch.cat([piece.reshape(-1) for piece in expected])) <= 1e-10


def test_third_derivatives_are_refused():
    x = arguments([(2, N, E)])[0]

    def loss(x):
        return tiled_attention(x, x, x).square().sum()

    with pytest.raises(NotDifferentiable, match="three times"):
        grad(lambda x: grad(lambda x: grad(loss)(x).sum())(x).sum())(x)


def test_flex_attention_is_refused_with_what_to_call_instead():
    from torch.nn.attention.flex_attention import flex_attention

    class Flexible(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv = nn.Linear(3, 24)

        def forward(self, x):
            q, k, v = self.qkv(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
            return flex_attention(q, k, v).sum((1, 2))

    with pytest.raises(cs.errors.CurvscopeError, match="call functional"):
        cs.hessian(Flexible(), nn.CrossEntropyLoss(), [(torch.randn(4, 12, 3), torch.tensor([0, 1, 2, 0]))])
