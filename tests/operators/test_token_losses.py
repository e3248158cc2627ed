"""Cross-entropy over a large vocabulary in chunks of tokens, against PyTorch's own in float64 and against differences."""

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

import curvscope as cs
from curvscope.operators.rules.token_losses import _chunks, _pending
from curvscope.operators.rules.token_losses._functions import TokenLosses

DOUBLE = torch.float64
TOKENS, VOCABULARY = 6, 11


class Language(nn.Module):
    """A tiny model whose head and loss are written in some way."""

    def __init__(self, shape=lambda logits: logits.flatten(0, 1), bias=True, tied=False):
        super().__init__()
        self.embedding, self.body = nn.Embedding(VOCABULARY, 4), nn.Sequential(nn.Linear(4, 4), nn.Tanh())
        self.head, self.shape = nn.Linear(4, VOCABULARY, bias=bias), shape
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, tokens):
        return self.shape(self.head(self.body(self.embedding(tokens))))


def smooth(output, target):
    return F.cross_entropy(output, target, label_smoothing=0.1)


def likely(output, target):
    return F.cross_entropy(output, F.one_hot(target, VOCABULARY).to(output.dtype) / 2 + 0.5 / VOCABULARY)


def masked(logits):
    logits[..., 2] = -3.0
    return logits.flatten(0, 1)


def cooled(logits):
    logits.mul_(0.5)
    return logits.flatten(0, 1)


def by_log_softmax(output, target):
    return F.nll_loss(output.log_softmax(-1), target, ignore_index=3, reduction="sum") / 7


def shifted(logits):
    return logits[..., :-1, :].contiguous().float().to(logits.dtype).view(-1, VOCABULARY)


WEIGHTS = torch.linspace(0.5, 2, VOCABULARY, dtype=DOUBLE)
# name: (model, criterion, whether labels are flat, tokens of a window that are predicted, whether chunks are used)
KINDS = {
    "flat": (Language, nn.CrossEntropyLoss(), True, TOKENS, True),
    "without bias": (lambda: Language(bias=False), nn.CrossEntropyLoss(reduction="sum"), True, TOKENS, True),
    "tied": (lambda: Language(bias=False, tied=True), nn.CrossEntropyLoss(), True, TOKENS, True),
    "ignored": (Language, nn.CrossEntropyLoss(ignore_index=3), True, TOKENS, True),
    "class weights": (Language, nn.CrossEntropyLoss(weight=WEIGHTS, ignore_index=3), True, TOKENS, True),
    "classes second": (lambda: Language(lambda z: z.movedim(-1, 1)), nn.CrossEntropyLoss(), False, TOKENS, True),
    "transposed": (lambda: Language(lambda z: z.transpose(1, 2)), nn.CrossEntropyLoss(), False, TOKENS, True),
    "permuted": (lambda: Language(lambda z: z.permute(0, 2, 1)), nn.CrossEntropyLoss(), False, TOKENS, True),
    "next token": (
        lambda: Language(lambda z: z[:, :-1].reshape(-1, VOCABULARY)),
        nn.CrossEntropyLoss(),
        True,
        TOKENS - 1,
        True,
    ),
    "log-softmax": (Language, by_log_softmax, True, TOKENS, True),
    "smoothed": (Language, smooth, True, TOKENS, True),
    "smoothed by class": (
        Language,
        nn.CrossEntropyLoss(weight=WEIGHTS, ignore_index=3, label_smoothing=0.2),
        True,
        TOKENS,
        True,
    ),
    "probabilities": (Language, likely, True, TOKENS, False),
    "an entry written": (lambda: Language(masked), nn.CrossEntropyLoss(), True, TOKENS, False),
    "scaled in place": (lambda: Language(cooled), nn.CrossEntropyLoss(), True, TOKENS, False),
    "scaled logits": (lambda: Language(lambda z: 0.5 * z.flatten(0, 1)), nn.CrossEntropyLoss(), True, TOKENS, False),
}


def in_chunks(monkeypatch, entries=4 * VOCABULARY):
    monkeypatch.setattr(_pending, "MIN_CHUNKED_LOGITS", 1)
    monkeypatch.setattr(_pending, "MIN_CLASSES", VOCABULARY)
    monkeypatch.setattr(_chunks, "CPU_ENTRIES", entries)


def product(kind, matrix, strategy):
    build, criterion, flat, predicted, _ = KINDS[kind]
    torch.manual_seed(0)
    model = build().to(DOUBLE)
    tokens, labels = (torch.randint(VOCABULARY, (3, n)) for n in (TOKENS, predicted))
    labels[0, 0] = 3
    operator = getattr(cs, matrix)(
        model, criterion, [(tokens, labels.flatten() if flat else labels)], strategy=strategy, dtype=DOUBLE
    )
    torch.manual_seed(1)
    return operator, operator @ torch.randn(operator.shape[0], 3, dtype=DOUBLE)


def calls(operator):
    split = operator._engine._strategies[operator.strategy_report["strategy"]]
    programs = [program for programs in split._programs.values() for program in programs]
    nodes = [*programs[0].primal.graph.nodes, *programs[0].tangent.graph.nodes]
    return {str(node.target).split(".")[1] for node in nodes if "curvscope" in str(node.target)}


def far(found, expected):
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("kind", KINDS)
def test_hessian_products_are_those_of_whole_logits(kind, monkeypatch):
    expected = product(kind, "hessian", "double_backward")[1]
    in_chunks(monkeypatch)
    for strategy in ("double_backward", "split", "split_vmap"):
        operator, found = product(kind, "hessian", strategy)
        assert far(found, expected) <= 1e-12
        if strategy != "double_backward":
            assert operator.strategy_report["strategy"] == strategy
            used = {"token_losses_along", "token_losses_backward_along"}
            assert (used <= calls(operator) | {"token_losses_along"}) == KINDS[kind][4]


def test_language_models_of_transformers_use_it(monkeypatch):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"n_positions": TOKENS, "n_embd": 4, "n_layer": 1, "n_head": 2, "vocab_size": VOCABULARY}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes)).to(DOUBLE)
    tokens = torch.randint(VOCABULARY, (3, TOKENS))
    batches = [{"input_ids": tokens, "labels": tokens.masked_fill(tokens == 2, -100)}]

    def found():
        operator = cs.hessian(model, "model", batches, strategy="split", dtype=DOUBLE)
        return operator, operator @ torch.ones(operator.shape[0], dtype=DOUBLE)

    expected = found()[1]
    in_chunks(monkeypatch)
    operator, product = found()
    assert far(product, expected) <= 1e-12
    assert "token_losses_backward_along" in calls(operator)


def test_differences_agree(monkeypatch):
    monkeypatch.setattr(_chunks, "CPU_ENTRIES", 3 * VOCABULARY)
    torch.manual_seed(0)
    leaves = [torch.randn(*shape, dtype=DOUBLE, requires_grad=True) for shape in ((7, 3), (VOCABULARY, 3), (VOCABULARY,))]
    labels = torch.tensor([0, 4, -100, 10, 2, 2, 1])

    def losses(h, w, b):
        return TokenLosses.apply(h, w, b, labels, -100)[0]

    assert torch.allclose(losses(*leaves), F.cross_entropy(F.linear(*leaves), labels, reduction="none"), rtol=1e-13)
    assert gradcheck(losses, leaves, check_forward_ad=True, check_batched_grad=True, fast_mode=True)
    assert gradgradcheck(losses, leaves, check_fwd_over_rev=True, check_batched_grad=True, fast_mode=True)


def test_logits_far_apart_do_not_overflow():
    h, w = 1e4 * torch.eye(3, dtype=DOUBLE), torch.eye(3, dtype=DOUBLE)
    labels = torch.tensor([0, 1, 0])
    found = TokenLosses.apply(h, w, torch.zeros(3, dtype=DOUBLE), labels, -100)[0]
    assert torch.equal(found, torch.tensor([0.0, 0.0, 1e4], dtype=DOUBLE))


def test_a_view_taken_before_logits_are_written_is_refused(monkeypatch):
    def late(logits):
        flat = logits.flatten(0, 1)
        logits[..., 2] = -3.0
        return flat

    in_chunks(monkeypatch)
    labels = torch.zeros(3 * TOKENS, dtype=torch.int64)
    with pytest.raises(cs.errors.InvalidArgument, match="out of place"):
        cs.hessian(Language(late), nn.CrossEntropyLoss(), [(torch.zeros(3, TOKENS, dtype=torch.int64), labels)])


def test_autocast_inside_the_model_keeps_its_own_arithmetic(monkeypatch):
    in_chunks(monkeypatch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert _pending.linear(torch.randn(4, 3), torch.randn(VOCABULARY, 3)) is NotImplemented


def test_per_sample_gradients_do_not_need_it(monkeypatch):
    """A batched input goes the usual way."""
    in_chunks(monkeypatch)
    h, w = torch.randn(5, 4, 3), torch.randn(VOCABULARY, 3)
    found = torch.func.vmap(
        lambda x: torch.func.grad(lambda x: F.cross_entropy(_pending_linear(x, w), torch.zeros(4).long()))(x)
    )(h)
    expected = torch.stack([torch.func.grad(lambda x: F.cross_entropy(x @ w.T, torch.zeros(4).long()))(x) for x in h])
    assert torch.allclose(found, expected, atol=1e-6)


def _pending_linear(x, w):
    found = _pending.linear(x, w)
    assert found is NotImplemented
    return F.linear(x, w)


def test_what_is_kept_does_not_grow_with_the_vocabulary(monkeypatch):
    kept = []
    for on in (False, True):
        if on:
            in_chunks(monkeypatch)
        operator, _ = product("flat", "hessian", "split")
        kept.append(operator.strategy_report["kept_bytes"])
    assert kept[1] < kept[0] - 8 * 3 * TOKENS * VOCABULARY
