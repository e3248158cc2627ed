"""Text problems: windows, the small transformer against one written by hand, Hugging Face models drawn and saved."""

import json
from itertools import islice

import pytest
import torch
from torch import nn
from torch.nn import functional

import curvscope as cs
from curvscope.errors import InvalidArgument
from curvscope.problems._text import Windows, read_text
from curvscope.problems._tinygpt import CHARACTERS
from curvscope.training import evaluate, train

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def problem():
    return cs.problems.get("tinygpt")


def test_the_packaged_text_is_small_plain_and_whole():
    text = read_text(None)
    assert 12_000 < len(text) < 2**20
    assert set(text) <= set(CHARACTERS)
    assert text.count("\n\n") == 19  # twenty sonnets


def test_windows_pair_each_token_with_the_next():
    windows = Windows(torch.arange(200), 6)
    x, y = windows.even("train")
    assert torch.equal(y, x + 1)
    assert x.flatten().tolist() == list(range(len(x) * 6))  # none left out, none twice
    assert windows.even("test")[0][0, 0] == 180
    assert len(windows.even("train", 4)[0]) == 4
    batches = list(islice(windows.random(3, 0, 0), 3))
    assert torch.equal(next(windows.random(3, 0, 2))[0], batches[2][0])
    assert max(int(y.max()) for _, y in batches) < 180
    with pytest.raises(InvalidArgument, match="has 40 tokens, at least 70 are needed"):
        Windows(torch.arange(40), 6)


def test_text_from_a_file_or_a_folder(tmp_path):
    (tmp_path / "b.txt").write_text("two")
    (tmp_path / "a.txt").write_text("one")
    assert read_text(tmp_path) == "one\ntwo"
    assert read_text(tmp_path / "a.txt") == "one"
    for wrong in (tmp_path / "c.txt", tmp_path / "empty"):
        with pytest.raises(InvalidArgument, match="no text in"):
            read_text(wrong)
    (tmp_path / "d.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidArgument, match="is not UTF-8 text"):
        read_text(tmp_path / "d.txt")


def test_the_small_transformer_is_what_it_says(problem):
    model = problem.model()
    assert sum(p.numel() for p in model.parameters()) == 116_480
    tokens = problem.curvature_batches()[0][0][:2, :9]
    x = model.embedding(tokens) + model.position.weight[:9]
    for block in model.blocks:
        h = functional.layer_norm(x, (64,))
        q, k, v = (h @ block.attention.query_key_value.weight.T).split(64, dim=-1)
        heads = []
        for i in range(4):
            part = slice(16 * i, 16 * i + 16)
            scores = q[..., part] @ k[..., part].mT / 4 + torch.full((9, 9), -torch.inf).triu(1)
            heads.append(scores.softmax(-1) @ v[..., part])
        x = x + torch.cat(heads, -1) @ block.attention.output.weight.T
        x = x + functional.gelu(functional.layer_norm(x, (64,)) @ block.mlp[0].weight.T) @ block.mlp[2].weight.T
    torch.testing.assert_close(model(tokens), (functional.layer_norm(x, (64,)) @ model.head.weight.T).mT)


def test_tokens_are_the_loss_terms(problem):
    model = problem.model()
    ((x, y),) = problem.curvature_batches()
    assert x.shape == (16, 64)
    whole = cs.hessian(model, problem.criterion, [(x, y)])
    parts = cs.hessian(model, problem.criterion, [(x[:3], y[:3]), (x[3:], y[3:])])
    v = torch.randn(whole.shape[0], generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(whole @ v, parts @ v, atol=2e-5, rtol=1e-4)
    with torch.no_grad():
        assert whole.objective.mean_loss == pytest.approx(float(functional.cross_entropy(model(x), y)), rel=1e-6)
    loss, accuracy = evaluate(problem, model)
    assert loss == pytest.approx(torch.tensor(96.0).log().item(), abs=0.1)
    assert 0 <= accuracy < 0.2


def test_training_learns_and_goes_on(problem):
    recorder = cs.Recorder(problem.model(), [0, 3, 12])
    losses = train(problem, recorder.model, recorder)
    assert losses[-1] < losses[0] - 0.5
    model = recorder.load(3, problem.model())
    assert train(problem, model, cs.Recorder(model, [12]), start=3) == losses[3:]


CAUSAL = {"vocab_size": 256, "n_positions": 16, "n_embd": 8, "n_layer": 1, "n_head": 2, "bos_token_id": 0, "eos_token_id": 0}


@pytest.fixture
def causal(tmp_path):
    """The folder of a small GPT-2: a configuration and nothing else."""
    transformers.GPT2Config(**CAUSAL, architectures=["GPT2LMHeadModel"]).save_pretrained(tmp_path / "gpt")
    return tmp_path / "gpt"


def test_a_causal_model_from_its_configuration_and_from_its_weights(causal):
    drawn = cs.problems.get(f"hf-config:{causal}")
    before = torch.random.get_rng_state()
    model = drawn.model()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not drawn.classifies
    ((inputs, labels),) = drawn.curvature_batches()
    assert labels.shape == (16, 16)
    H = cs.hessian(model, drawn.criterion, [(inputs, labels)])
    # the same matrix as from the model's own loss, on whole rows of tokens
    rows = torch.cat([inputs["input_ids"], labels[:, -1:]], dim=1)
    own = cs.hessian(model.model, _next_token, [rows], weight=lambda batch: batch[:, 1:].numel())
    v = torch.randn(H.shape[0], generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(H @ v, own @ v, atol=1e-5, rtol=1e-4)
    with pytest.raises(InvalidArgument, match="no Hugging Face model"):
        cs.problems.get(f"hf:{causal}").model()
    model.model.save_pretrained(causal)
    trained = cs.problems.get(f"hf:{causal}").model()
    for name, value in model.state_dict().items():
        assert torch.equal(value, trained.state_dict()[name])
    assert evaluate(drawn, model)[0] == pytest.approx(torch.tensor(256.0).log().item(), abs=0.2)
    recorder = cs.Recorder(model, [0, 1])
    assert len(train(drawn, model, recorder)) == 2


def _next_token(model, rows):
    return nn.functional.cross_entropy(model(rows[:, :-1]).logits.mT, rows[:, 1:])


def test_a_classifier_on_labelled_texts(tmp_path):
    config = transformers.BertConfig(
        vocab_size=256,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=12,
        num_labels=3,
        architectures=["BertForSequenceClassification"],
    )
    config.save_pretrained(tmp_path / "bert")
    rows = [{"text": "a text" * (i % 3 + 1), "label": i % 3} for i in range(20)]
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    problem = cs.problems.get(f"hf-config:{tmp_path / 'bert'}", data=tmp_path)
    assert problem.classifies
    ((inputs, labels),) = problem.curvature_batches()
    assert (inputs["input_ids"].shape, labels.tolist()) == ((16, 12), [i % 3 for i in range(16)])
    assert inputs["attention_mask"].sum(1).tolist() == [6 if i % 3 == 0 else 12 for i in range(16)]
    model = problem.model()
    G = cs.ggn(model, problem.criterion, problem.curvature_batches())
    assert cs.preflight(G).passed
    assert sum(len(y) for _, y in problem.evaluation_batches()) == 20
    assert 0 <= evaluate(problem, model)[1] <= 1
    assert len(train(problem, model, cs.Recorder(model, [1]))) == 2
    with pytest.raises(InvalidArgument, match=r"is a classifier: pass data=DIR \(--data DIR\) with train.jsonl"):
        cs.problems.get(f"hf-config:{tmp_path / 'bert'}").curvature_batches()
    (tmp_path / "test.jsonl").write_text('{"text": "x", "label": 3}')
    with pytest.raises(InvalidArgument, match="has labels up to 3, the model 3 classes"):
        problem.curvature_batches("test")
    (tmp_path / "test.jsonl").write_text('{"words": "x"}')
    with pytest.raises(InvalidArgument, match="must hold lines of"):
        problem.curvature_batches("test")
