"""Losses and batches in the forms that users have them."""

from collections import UserDict, namedtuple
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from curvscope.errors import InvalidArgument
from curvscope.operators import Objective, empirical_fisher, ggn, hessian, preflight
from curvscope.solvers import eigsh
from curvscope.system import long_work
from curvscope.training import interpolate

from .cases import build, dense_ggn, dense_hessian, flat_function


def test_loss_of_model_and_nested_batch():
    model, criterion, batches = build("mlp")
    nested = [{"inputs": {"x": x, "scale": 1.0}, "pair": (y, ["names"])} for x, y in batches]

    def loss(model: nn.Module, batch: dict) -> Tensor:
        return functional.cross_entropy(model(batch["inputs"]["x"]) * batch["inputs"]["scale"], batch["pair"][0])

    H = hessian(model, loss, nested)
    dense = dense_hessian(model, criterion, batches)
    with long_work():
        found = H @ torch.eye(H.shape[0], dtype=torch.float64)
    torch.testing.assert_close(found, dense, rtol=1e-10, atol=1e-12)
    assert H.strategy_report["strategy"].startswith("split")


def test_regularisers_count_once_for_every_batching():
    model, criterion, batches = build("mlp")

    def loss(model: nn.Module, batch: tuple) -> Tensor:
        return criterion(model(batch[0]), batch[1]) + 0.05 * sum(p.square().sum() for p in model.parameters())

    eye = torch.eye(43, dtype=torch.float64)
    expected = dense_hessian(model, criterion, batches) + 0.1 * eye
    for microbatch in (None, 2):
        torch.testing.assert_close(hessian(model, loss, batches, microbatch=microbatch) @ eye, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "loss",
    [
        partial(functional.cross_entropy, weight=torch.tensor([1.0, 5.0, 0.1])),
        lambda output, target: functional.cross_entropy(output, target, ignore_index=1),
        lambda output, target: functional.cross_entropy(output, target, reduction="sum"),
        lambda model, batch: functional.cross_entropy(model(batch[0]), batch[1], ignore_index=1),
    ],
)
def test_losses_that_average_over_something_else_are_noticed(loss, caplog):
    torch.manual_seed(0)
    model, x, y = nn.Linear(4, 3), torch.randn(6, 4), torch.tensor([0, 0, 1, 1, 1, 2])
    hessian(model, loss, [(x, y)])
    with pytest.raises(InvalidArgument, match=r"microbatch would change the matrix.*weight=lambda"):
        hessian(model, loss, [(x, y)], microbatch=4)
    assert not caplog.messages
    with pytest.raises(InvalidArgument, match=r"differ in size.*weight=lambda"):
        hessian(model, loss, [(x, y), (x[:2], y[:2])])
    hessian(model, loss, [(x, y), (x, y.flip(0))])
    assert "weighted by their numbers" in caplog.text


@pytest.mark.parametrize("criterion", [nn.NLLLoss(), functional.nll_loss, nn.CrossEntropyLoss()])
def test_gauss_newton_matrices_that_are_zero_are_remarked_on(criterion, caplog):
    G = ggn(nn.Sequential(nn.Linear(4, 3), nn.LogSoftmax(1)), criterion, [(torch.ones(2, 4), torch.tensor([0, 1]))])
    zero = not bool((G @ torch.arange(15.0)).any())
    assert zero == ("GGN is zero" in caplog.text) == (not isinstance(criterion, nn.CrossEntropyLoss))


class Classifier(nn.Module):
    """Returns what Hugging Face models do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> SimpleNamespace:
        logits = self.layer(x).tanh()
        return SimpleNamespace(logits=logits, loss=None if labels is None else functional.cross_entropy(logits, labels))


def test_gauss_newton_matrices_of_models_with_a_loss_follow_training():
    torch.manual_seed(0)
    model, data = Classifier(), [{"x": torch.randn(6, 4), "labels": torch.arange(6) % 3}]
    G, eye = ggn(model, "model", data), torch.eye(15)
    with torch.no_grad():
        model.layer.weight.add_(1)
    G.move()
    fresh = ggn(model, "model", data)
    torch.testing.assert_close(G @ eye, fresh @ eye)
    torch.testing.assert_close(G.in_dtype(torch.float64) @ eye.double(), (fresh @ eye).double())
    assert G.objective.mean_loss == fresh.objective.mean_loss


def test_losses_that_average_over_samples_are_not_suspected(caplog):
    torch.manual_seed(0)
    model, x, y = nn.Linear(4, 3), torch.randn(7, 4), torch.arange(7) % 3
    data = [(x, y), (x[:1], y[:1]), (x[:2], y[:2])]
    for loss in (partial(functional.cross_entropy, label_smoothing=0.1), functional.multi_margin_loss):
        hessian(model, loss, data, microbatch=2)
    hessian(model, partial(functional.cross_entropy, reduction="sum"), data, microbatch=2, reduction="sum")
    ignoring = partial(functional.cross_entropy, ignore_index=0)
    hessian(model, ignoring, data, weight=lambda batch: float((batch[1] > 0).sum()), microbatch=3)
    assert not caplog.messages


@dataclass(frozen=True)
class Pair:
    x: Tensor
    y: Tensor

    def target(self) -> Tensor:
        return self.y + 1


class Encoding(UserDict):
    def __getattr__(self, name):
        try:
            return self.__dict__["data"][name]
        except KeyError:
            raise AttributeError(name) from None


@pytest.mark.parametrize("strategy", ["split_vmap", "double_backward"])
@pytest.mark.parametrize("kind", [Pair, lambda x, y: Encoding(x=x, y=y), namedtuple("Two", "x y")])
def test_batches_are_what_their_loss_expects(kind, strategy):
    torch.manual_seed(0)
    model, x, y = nn.Linear(4, 3), torch.randn(6, 4), torch.arange(6) % 2

    def loss(model: nn.Module, batch: object) -> Tensor:
        target = batch.target() if isinstance(batch, Pair) else batch.y + 1
        return functional.cross_entropy(model(batch.x), target)

    expected = hessian(model, nn.CrossEntropyLoss(), [(x, y + 1)]) @ torch.eye(15)
    for sizes, microbatch in (([4, 2], 3), ([6], None), ([1, 1, 4], None)):
        data = [kind(*parts) for parts in zip(x.split(sizes), y.split(sizes), strict=True)]
        H = hessian(model, loss, data, strategy=strategy, microbatch=microbatch)
        torch.testing.assert_close(H @ torch.eye(15), expected)
    assert hessian(model, loss, [kind(x, y)]).fingerprint != hessian(model, loss, [kind(x + 1e-6, y)]).fingerprint


def test_values_of_a_batch_may_have_any_name():
    torch.manual_seed(0)
    model, x, y = nn.Linear(4, 3), torch.randn(6, 4), torch.arange(6) % 3

    def loss(model: nn.Module, batch: object) -> Tensor:
        return functional.cross_entropy(model(batch.x), batch.kind)

    expected = hessian(model, nn.CrossEntropyLoss(), [(x, y)]) @ torch.eye(15)
    torch.testing.assert_close(hessian(model, loss, [Encoding(x=x, kind=y)]) @ torch.eye(15), expected)


def test_weights_of_tokens_are_the_users():
    model, _, batches = build("mlp")
    weighted = [(x, y, torch.rand(6, dtype=torch.float64)) for x, y in batches]

    def loss(model: nn.Module, batch: tuple) -> Tensor:
        terms = functional.cross_entropy(model(batch[0]), batch[1], reduction="none")
        return (terms * batch[2]).sum() / batch[2].sum()

    everything = tuple(torch.cat(parts) for parts in zip(*weighted, strict=True))
    split = hessian(model, loss, weighted, weight=lambda batch: float(batch[2].sum()), microbatch=4)
    whole = hessian(model, loss, [everything])
    x = torch.randn(43, 2, dtype=torch.float64)
    torch.testing.assert_close(split @ x, whole @ x, rtol=1e-10, atol=1e-12)


def test_functions_stand_for_their_modules():
    model, criterion, batches = build("mlp")
    x = torch.randn(43, 2, dtype=torch.float64)
    ignoring = [(x, y.clone()) for x, y in batches]
    ignoring[0][1][:3] = -100
    for make in (hessian, ggn):
        ours = make(model, functional.cross_entropy, ignoring) @ x
        torch.testing.assert_close(ours, make(model, criterion, ignoring) @ x, rtol=1e-12, atol=1e-14)


def test_ragged_last_batch():
    model, criterion, batches = build("lstm", batches=3)
    batches[2] = (batches[2][0][:1, :2], batches[2][1][:1])
    H = hessian(model, criterion, batches)
    x = torch.randn(H.shape[0], 3, dtype=torch.float64)
    torch.testing.assert_close(H @ x, dense_hessian(model, criterion, batches) @ x, rtol=1e-10, atol=1e-12)


def test_scalar_and_one_column_outputs():
    torch.manual_seed(0)
    model = nn.Linear(3, 1).double()
    data = [(torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 1, dtype=torch.float64))]
    evaluate, at = flat_function(model, lambda net: functional.mse_loss(net(data[0][0]), data[0][1]))
    expected = torch.autograd.functional.hessian(evaluate, at)
    for make in (hessian, ggn):
        torch.testing.assert_close(make(model, nn.MSELoss(), data) @ torch.eye(4, dtype=torch.float64), expected)


def hugging_face(kind):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    small = {"vocab_size": 11, "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 8}
    if kind == "causal":
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**small)).double()
        labels = torch.randint(0, 11, (3, 6))
        labels[0, 3:] = -100
    else:
        config = transformers.GPT2Config(**small, num_labels=3, pad_token_id=0)
        model = transformers.GPT2ForSequenceClassification(config).double()
        labels = torch.randint(0, 3, (3,))
    return model, {"input_ids": torch.randint(1, 11, (3, 6)), "attention_mask": torch.ones(3, 6).long(), "labels": labels}


@pytest.mark.parametrize("kind", ["causal", "classifier"])
def test_hugging_face_models(kind):
    model, batch = hugging_face(kind)
    x = torch.randn(sum(p.numel() for p in model.parameters()), 1, dtype=torch.float64)
    whole = hessian(model, "model", [UserDict(batch)], strategy="double_backward") @ x
    pieces = hessian(model, "model", [UserDict(batch)], microbatch=1) @ x
    # The library computes its loss in float32 whatever the model's dtype.
    assert (pieces - whole).norm() < 1e-6 * whole.norm()


class Logits(nn.Module):
    """What the model's own loss looks at, as a plain network."""

    def __init__(self, model: nn.Module, shifted: bool) -> None:
        super().__init__()
        self.model, self.shifted = model, shifted

    def forward(self, tokens: Tensor) -> Tensor:
        logits = self.model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits
        return logits[:, :-1].flatten(0, 1) if self.shifted else logits


@pytest.mark.parametrize("kind", ["causal", "classifier"])
def test_ggn_of_a_models_own_loss_is_that_of_its_logits(kind):
    model, batch = hugging_face(kind)
    labels = batch["labels"][:, 1:].flatten() if kind == "causal" else batch["labels"]
    data = [(batch["input_ids"], labels)]
    expected = ggn(Logits(model, kind == "causal"), nn.CrossEntropyLoss(), data, strategy="double_backward")
    G = ggn(model, "model", [UserDict(batch)], microbatch=1)
    x = torch.randn(G.shape[0], 2, dtype=torch.float64)
    torch.testing.assert_close(G @ x, expected @ x, rtol=1e-9, atol=1e-12)
    assert preflight(G).passed, str(preflight(G))
    F = empirical_fisher(model, "model", [UserDict(batch)])
    expected = empirical_fisher(Logits(model, kind == "causal"), nn.CrossEntropyLoss(), data)
    torch.testing.assert_close(F @ x, expected @ x, rtol=1e-9, atol=1e-12)


def test_models_that_cannot_be_cut_at_their_logits_say_what_to_pass():
    model, batch = hugging_face("classifier")

    class Regularised(type(model)):
        def forward(self, **inputs: Tensor):
            found = super().forward(**inputs)
            if found.loss is not None:
                found.loss = found.loss + 0.1 * self.score.weight.square().sum()
            return found

    model.__class__ = Regularised
    with pytest.raises(InvalidArgument, match=r"Regularised cannot be cut where its loss begins.*pass a criterion"):
        ggn(model, "model", [batch])
    assert hessian(model, "model", [batch]).shape[0] > 0


def test_distributed_data_parallel_is_unwrapped(tmp_path, caplog):
    distributed = pytest.importorskip("torch.distributed")
    if not distributed.is_available() or not distributed.is_gloo_available():
        pytest.skip("needs torch.distributed with gloo")
    model, criterion, batches = build("mlp")
    plain = hessian(model, criterion, batches)
    x = torch.randn(plain.shape[0], 2, dtype=torch.float64)
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        wrapped = hessian(nn.parallel.DistributedDataParallel(model), criterion, batches)
        torch.testing.assert_close(wrapped @ x, plain @ x, rtol=1e-12, atol=1e-14)
    finally:
        distributed.destroy_process_group()
    assert wrapped.parameters.names == plain.parameters.names
    assert "DistributedDataParallel" in caplog.text


def test_frozen_and_trainable_parameters_look_so_to_a_loss():
    model, _, batches = build("mlp")
    model[0].bias.requires_grad_(False)

    def loss(net: nn.Module, batch: tuple) -> Tensor:
        return nn.functional.cross_entropy(net(batch[0]), batch[1]) + sum(
            p.square().sum() for p in net.parameters() if p.requires_grad
        )

    objective = Objective(model, lambda model, batch: loss(model, batch), batches)
    expected = sum(float(loss(model, batch).detach()) for batch in batches) / len(batches)
    assert objective.mean_loss == pytest.approx(expected, rel=1e-12)
    line = interpolate(objective, objective.parameters.join(objective.values), objective.parameters.join(objective.values))
    assert float(line.loss[0]) == pytest.approx(expected, rel=1e-12)


def causal_models():
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 11, "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 8}

    class Renamed(transformers.GPT2LMHeadModel):
        """A causal language model whose name does not say so."""

    torch.manual_seed(0)
    bart = transformers.BartConfig(
        vocab_size=11, d_model=8, decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=8, max_position_embeddings=8
    )
    return [(Renamed(transformers.GPT2Config(**sizes)), True), (transformers.BartForCausalLM(bart), False)]


def test_whether_labels_are_shifted_is_told_by_the_loss_not_by_the_name():
    for model, shifted in causal_models():
        ids = torch.randint(3, 11, (2, 6))
        labels = torch.full_like(ids, -100)
        labels[0], labels[1, :2] = ids[0], ids[1, :2]  # 6 and 2 labels; of which, shifted, 5 and 1 count
        batches = [{"input_ids": ids[i : i + 1], "labels": labels[i : i + 1]} for i in (0, 1)]
        together = Objective(model, "model", [{"input_ids": ids, "labels": labels}])
        assert together.total_terms == (6 if shifted else 8)
        assert Objective(model, "model", batches).mean_loss == pytest.approx(together.mean_loss, rel=1e-5)


def test_models_that_compute_in_float32_inside_pass_in_float64():
    model, batch = hugging_face("causal")
    H = hessian(model, "model", [batch], params="*ln_*")
    assert H.dtype == torch.float64
    assert H.rounding == torch.finfo(torch.float64).eps
    assert preflight(H).passed, str(preflight(H))
    for method in ("exact", "krylov"):
        assert eigsh(H, 2, method=method).status.code == "converged"
    assert preflight(hessian(model, "model", [batch], params="*ln_*", dtype=torch.float32)).passed
    wrong = preflight(hessian(model, "model", [batch], params="*ln_*", weight=lambda batch: 1.0))
    assert [check.name for check in wrong.checks if not check.passed] == ["batch-split invariance"]


def test_models_whose_loss_comes_from_other_keys_than_labels():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=11, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, max_position_embeddings=8
    )
    model = transformers.BertForQuestionAnswering(config).eval()
    batch = {
        "input_ids": torch.randint(11, (3, 6)),
        "start_positions": torch.tensor([0, 1, 2]),
        "end_positions": torch.ones(3).long(),
    }
    expected = float(model(**batch).loss.detach())
    assert Objective(model, "model", [batch]).mean_loss == pytest.approx(expected, rel=1e-6)
    with pytest.raises(InvalidArgument, match=r"returns it as \.loss"):
        Objective(model, "model", [{"input_ids": batch["input_ids"]}])


class HardSigmoid(nn.Module):
    """As PyTorch defines it, of functions that it can differentiate twice."""

    def forward(self, x: Tensor) -> Tensor:
        return (x + 3).clamp(0, 6) / 6


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")
@pytest.mark.parametrize("strategy", ["split_vmap", "double_backward"])
@pytest.mark.parametrize("normed", [nn.utils.parametrizations.weight_norm, nn.utils.weight_norm])
def test_weight_normalisation_has_right_second_derivatives(normed, strategy):
    """PyTorch's own leave terms out: the oracle writes the normalisation out."""
    torch.manual_seed(0)
    layer, x, y = normed(nn.Linear(4, 3).double()), torch.randn(6, 4, dtype=torch.float64), torch.arange(6) % 3
    H = hessian(layer, nn.CrossEntropyLoss(), [(x, y)], strategy=strategy)

    def written_out(vector: Tensor) -> Tensor:
        given = H.parameters.unflatten(vector)
        bias, g, v = (given[name] for name in H.parameters.names)
        return functional.cross_entropy(functional.linear(x, g * v / v.square().sum(1, keepdim=True).sqrt(), bias), y)

    expected = torch.autograd.functional.hessian(written_out, H.values())
    torch.testing.assert_close(H @ torch.eye(18, dtype=torch.float64), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("strategy", ["double_backward", "split"])
def test_hardsigmoid_gates(strategy):
    """Of MobileNetV3; PyTorch's own has no second derivative."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Hardsigmoid(), nn.Linear(5, 3)).double()
    batches = [(4 * torch.randn(6, 4, dtype=torch.float64), torch.randint(3, (6,)))]
    H = hessian(model, nn.CrossEntropyLoss(), batches, strategy=strategy)
    found = H @ torch.eye(H.shape[0], dtype=torch.float64)
    expected = dense_hessian(nn.Sequential(model[0], HardSigmoid(), model[2]), nn.CrossEntropyLoss(), batches)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("strategy", ["double_backward", "split"])
def test_criteria_without_forward_derivatives(strategy):
    torch.manual_seed(0)
    model, criterion = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double(), nn.SoftMarginLoss()
    batches = [(torch.randn(5, 4, dtype=torch.float64), 2.0 * torch.randint(2, (5, 2)).double() - 1) for _ in range(2)]
    G = ggn(model, criterion, batches, strategy=strategy)
    found = G @ torch.eye(G.shape[0], dtype=torch.float64)
    torch.testing.assert_close(found, dense_ggn(model, criterion, batches), rtol=1e-9, atol=1e-12)


def test_parts_that_are_compiled_run_as_they_were_written():
    """In its place, by ``compile()``, or as a part of another: a model need not be compiled as a whole."""
    model, criterion, batches = build("mlp")
    expected = hessian(model, criterion, batches)
    x = torch.ones(expected.shape[0], dtype=torch.float64)
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    model.compile()
    partly = nn.Sequential(model[0], torch.compile(model[1]), model[2])
    for compiled in (model, partly):
        for strategy in ("auto", "split"):
            torch.testing.assert_close(hessian(compiled, criterion, batches, strategy=strategy) @ x, expected @ x)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before


class Bag(nn.Module):
    """The mean of embeddings, which are turned by complex numbers as rotary embeddings are."""

    def __init__(self, sparse: bool) -> None:
        super().__init__()
        self.tokens, self.head = nn.Embedding(6, 4, sparse=sparse), nn.Linear(4, 3)
        self.register_buffer("turn", torch.polar(torch.ones(2), torch.tensor([0.3, 0.7])))

    def forward(self, x: Tensor) -> Tensor:
        turned = torch.view_as_complex(self.tokens(x).mean(1).unflatten(1, (2, 2))) * self.turn
        return self.head(torch.view_as_real(turned).flatten(1).tanh())


@pytest.mark.parametrize("strategy", ["double_backward", "split"])
def test_sparse_embeddings_and_complex_buffers(strategy):
    torch.manual_seed(0)
    plain, model = Bag(sparse=False).double(), Bag(sparse=True).double()
    model.load_state_dict(plain.state_dict())
    batches = [(torch.randint(6, (4, 3)), torch.randint(3, (4,)))]
    H = hessian(model, nn.CrossEntropyLoss(), batches, strategy=strategy)
    expected = dense_hessian(plain, nn.CrossEntropyLoss(), batches)
    torch.testing.assert_close(H @ torch.eye(H.shape[0], dtype=torch.float64), expected, rtol=1e-6, atol=1e-9)
    assert model.tokens.sparse
    coarse = hessian(model, nn.CrossEntropyLoss(), batches, strategy=strategy, dtype=torch.float32)
    torch.testing.assert_close(coarse @ torch.eye(H.shape[0]), expected.float(), rtol=1e-4, atol=1e-5)
