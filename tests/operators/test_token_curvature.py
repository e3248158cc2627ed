"""Gauss-Newton and Fisher matrices over a large vocabulary in chunks of tokens, against dense matrices in float64."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, hessian, jacrev
from torch.nn import functional as F

import curvscope as cs
from curvscope.operators.rules.token_losses import _chunks, _curvature, _pending

DOUBLE = torch.float64
TOKENS, VOCABULARY, IGNORED = 5, 11, 3
WEIGHTS = torch.linspace(0.5, 2, VOCABULARY, dtype=DOUBLE)


class Language(nn.Module):
    """A tiny model, its logits (tokens, classes) or with the classes second."""

    def __init__(self, *, bias=True, tied=False, second=False):
        super().__init__()
        self.embedding, self.body = nn.Embedding(VOCABULARY, 3), nn.Sequential(nn.Linear(3, 3), nn.Tanh())
        self.head, self.second = nn.Linear(3, VOCABULARY, bias=bias), second
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, tokens):
        logits = self.head(self.body(self.embedding(tokens)))
        return logits.movedim(-1, 1) if self.second else logits.flatten(0, 1)


# name: (model, criterion)
KINDS = {
    "plain": (Language, nn.CrossEntropyLoss()),
    "sum, no bias": (lambda: Language(bias=False), nn.CrossEntropyLoss(reduction="sum")),
    "tied": (lambda: Language(bias=False, tied=True), nn.CrossEntropyLoss()),
    "padded": (Language, nn.CrossEntropyLoss(ignore_index=IGNORED)),
    "classes second": (lambda: Language(second=True), nn.CrossEntropyLoss(ignore_index=IGNORED)),
    "class weights": (Language, nn.CrossEntropyLoss(weight=WEIGHTS, ignore_index=IGNORED)),
    "smoothed": (Language, nn.CrossEntropyLoss(label_smoothing=0.2)),
    "all": (lambda: Language(second=True), nn.CrossEntropyLoss(WEIGHTS, ignore_index=IGNORED, label_smoothing=0.1)),
}


def setting(kind):
    build, criterion = KINDS[kind]
    torch.manual_seed(0)
    model = build().to(DOUBLE)
    tokens, labels = (torch.randint(VOCABULARY, (3, TOKENS)) for _ in range(2))
    labels[0, :2] = IGNORED
    return model, criterion, (tokens, labels if getattr(model, "second", False) else labels.flatten())


def in_chunks(monkeypatch, tokens=4):
    monkeypatch.setattr(_pending, "MIN_CHUNKED_LOGITS", 1)
    monkeypatch.setattr(_pending, "MIN_CLASSES", VOCABULARY)
    monkeypatch.setattr(_chunks, "CPU_ENTRIES", tokens * VOCABULARY)


def rows(model, criterion, batch, names):
    """Logits of each token, (tokens, V), its label, the Jacobian by parameter in (tokens, V, D)."""
    chosen = {name: p.detach() for name, p in model.named_parameters() if name in names}

    def logits(values):
        found = functional_call(model, values, (batch[0],))
        return found.movedim(1, -1).flatten(0, 1) if found.ndim > 2 else found

    jacobian = jacrev(logits)(chosen)
    return logits(chosen), batch[1].flatten(), torch.cat([jacobian[name].flatten(2) for name in chosen], -1)


def ggn(criterion, z, labels, jacobian):
    inner = hessian(lambda z: criterion(z, labels))(z)
    return torch.einsum("tvd,tvsw,swe->de", jacobian, inner, jacobian)


def terms(criterion, labels):
    """What the mean divides by: labels that count, by the weight of their class."""
    counted = labels[labels != criterion.ignore_index]
    return float(len(counted) if criterion.weight is None else criterion.weight[counted].sum())


def second_moment(scores, jacobian):
    gradients = torch.einsum("tv,tvd->td", scores, jacobian)
    return gradients.T @ gradients


def empirical(criterion, z, labels, jacobian):
    """One gradient for each label, of its own term of the sum."""
    summed = nn.CrossEntropyLoss(
        criterion.weight, ignore_index=criterion.ignore_index, label_smoothing=criterion.label_smoothing, reduction="sum"
    )
    scores = jacrev(lambda z: summed(z, labels))(z)
    return second_moment(scores, jacobian) / (terms(criterion, labels) if criterion.reduction == "mean" else 1)


ORACLES = {"ggn": ggn, "empirical_fisher": empirical}


def far(operator, expected):
    """Of products with a few random vectors."""
    vectors = torch.randn(operator.shape[0], 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(2))
    wanted = expected.detach() @ vectors
    return float((operator @ vectors - wanted).norm() / wanted.norm())


def operations(operator):
    split = operator._engine._strategies[operator.strategy_report["strategy"]]
    programs = [program for programs in split._programs.values() for program in programs]
    return [str(n.target) for program in programs for graph in (program.primal, program.tangent) for n in graph.graph.nodes]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("matrix", ORACLES)
def test_matrices_are_those_of_whole_logits(matrix, kind, monkeypatch):
    model, criterion, batch = setting(kind)
    expected = ORACLES[matrix](criterion, *rows(model, criterion, batch, dict(model.named_parameters())))
    in_chunks(monkeypatch)
    operator = getattr(cs, matrix)(model, criterion, [batch], strategy="split_vmap:3")
    assert far(operator, expected) <= 1e-12
    assert any("token_s" in name for name in operations(operator))
    assert not any("_softmax." in name for name in operations(operator))


@pytest.mark.parametrize("names", [("head.*",), ("body.*", "embedding.*"), ("head.bias",), ("head.weight", "body.*")])
def test_parameters_that_do_not_vary_are_left_out(names, monkeypatch):
    model, criterion, batch = setting("all")
    in_chunks(monkeypatch)
    matrix = "ggn" if len(names) > 1 else "empirical_fisher"
    for strategy in ("split", "double_backward:3"):
        operator = getattr(cs, matrix)(model, criterion, [batch], params=list(names), strategy=strategy)
        expected = ORACLES[matrix](criterion, *rows(model, criterion, batch, operator.parameters.names))
        assert far(operator, expected) <= 1e-12


@pytest.mark.parametrize(("kind", "draws"), [("padded", 3), ("classes second", 1), ("sum, no bias", 2)])
def test_drawn_labels_are_the_same_in_chunks(kind, draws, monkeypatch):
    model, criterion, batch = setting(kind)
    batches = [tuple(part[:2] for part in batch), tuple(part[2:] for part in batch)] if model.second else [batch]
    whole = cs.monte_carlo_fisher(model, criterion, batches, num_draws=draws, seed=5, strategy="split_vmap")
    expected = whole @ torch.eye(whole.shape[0], dtype=DOUBLE)
    in_chunks(monkeypatch)
    for strategy in ("double_backward:3", "split_vmap:3"):
        found = cs.monte_carlo_fisher(model, criterion, batches, num_draws=draws, seed=5, strategy=strategy)
        assert far(found, expected) <= 1e-12


def test_draws_follow_the_probabilities(monkeypatch):
    monkeypatch.setattr(_chunks, "CPU_ENTRIES", 4 * 997)
    tokens, wanted = 20000, torch.tensor([0.1, 0.2, 0.3, 0.4])
    head = _chunks.Head(torch.zeros(tokens, 1), torch.zeros(4, 1), wanted.log(), torch.zeros(tokens).long(), -100)
    uniform = torch.rand(1, tokens, generator=torch.Generator().manual_seed(0))
    labels = _curvature.drawn_labels(head, torch.zeros(tokens), uniform)
    assert torch.allclose(labels.flatten().bincount() / tokens, wanted, atol=0.015)


def test_a_wrong_score_is_noticed(monkeypatch):
    """The oracle is sharp: scores without their labels give another matrix."""
    model, criterion, batch = setting("plain")
    expected = empirical(criterion, *rows(model, criterion, batch, dict(model.named_parameters())))
    in_chunks(monkeypatch)
    right = _curvature.score_curvature
    monkeypatch.setattr(
        "curvscope.operators.rules.token_losses._operations.score_curvature",
        lambda head, lse, scores, along: right(head, lse, scores._replace(own=0 * scores.own), along),
    )
    assert far(cs.empirical_fisher(model, criterion, [batch], strategy="split"), expected) > 1e-2


def test_language_models_of_transformers_use_chunks(monkeypatch):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"n_positions": TOKENS, "n_embd": 4, "n_layer": 1, "n_head": 2, "vocab_size": VOCABULARY}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes)).to(DOUBLE)
    tokens = torch.randint(VOCABULARY, (3, TOKENS))
    batches = [{"input_ids": tokens, "labels": tokens.masked_fill(tokens == 2, -100)}]

    def found():
        operator = cs.ggn(model, "model", batches, strategy="split", dtype=DOUBLE)
        return operator, operator @ torch.ones(operator.shape[0], dtype=DOUBLE)

    expected = found()[1]
    in_chunks(monkeypatch)
    operator, product = found()
    assert float((product - expected).norm()) <= 1e-12 * float(expected.norm())
    assert any("token_s" in name for name in operations(operator))


def test_functions_of_parameters_use_chunks(monkeypatch):
    model, criterion, batch = setting("plain")
    parameters = {name.replace(".", "/"): p.detach() for name, p in model.named_parameters()}

    def network(values, tokens):
        return functional_call(model, {name.replace("/", "."): value for name, value in values.items()}, (tokens,))

    expected = ggn(criterion, *rows(model, criterion, batch, dict(model.named_parameters())))
    in_chunks(monkeypatch)
    operator = cs.ggn(network, parameters, [batch], criterion=criterion, strategy="split_vmap")
    assert far(operator, expected) <= 1e-12
    assert any("token_s" in name for name in operations(operator))


def cooled(output, target):
    return F.cross_entropy(0.5 * output, target)


def test_other_losses_get_their_logits(monkeypatch):
    model, _, batch = setting("plain")
    expected = ggn(cooled, *rows(model, cooled, batch, dict(model.named_parameters())))
    in_chunks(monkeypatch)
    assert far(cs.ggn(model, cooled, [batch], strategy="split_vmap"), expected) <= 1e-12


def test_nothing_of_tokens_by_vocabulary_is_kept(monkeypatch):
    kept = []
    for on in (False, True):
        if on:
            in_chunks(monkeypatch)
        model, criterion, batch = setting("plain")
        operator = cs.ggn(model, criterion, [batch], strategy="split")
        operator @ torch.ones(operator.shape[0], dtype=DOUBLE)
        kept.append(operator.strategy_report["kept_bytes"])
    assert kept[1] < kept[0] - 8 * 3 * TOKENS * (VOCABULARY - 4)
