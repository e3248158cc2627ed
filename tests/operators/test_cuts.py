"""Gauss-Newton matrices of models with a loss of their own, and of networks that return tuples or dictionaries."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

import curvscope as cs
from curvscope.errors import InvalidArgument

PLAIN = {"strategy": "double_backward"}


def product(
    model: nn.Module, outputs: Callable[[nn.Module], Tensor], loss: Callable[[Tensor], Tensor], vector: Tensor
) -> Tensor:
    """J^T (d2 loss / d output2) J v by PyTorch's own functions, at the model's parameters in evaluation mode."""
    model.eval()
    names, values = zip(*model.named_parameters(), strict=True)
    pieces = [piece.view(p.shape) for piece, p in zip(vector.split([p.numel() for p in values]), values, strict=True)]

    def network(*values: Tensor) -> Tensor:
        return outputs(lambda **inputs: functional_call(model, dict(zip(names, values, strict=True)), (), inputs))

    values = tuple(p.detach() for p in values)
    output, tangent = torch.autograd.functional.jvp(network, values, tuple(pieces), strict=False)
    curved = torch.autograd.functional.hvp(loss, output.detach(), tangent)[1]
    found = torch.autograd.functional.vjp(network, values, curved)[1]
    return torch.cat([piece.reshape(-1) for piece in found])


def models() -> dict[str, Callable]:
    transformers = pytest.importorskip("transformers")
    small = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {"vocab_size": 60, "max_position_embeddings": 12, **small}
    tokens = {"input_ids": torch.randint(3, 60, (3, 7)), "attention_mask": torch.ones(3, 7, dtype=torch.long)}
    images, labels = torch.randn(3, 3, 16, 16), torch.randint(3, 60, (3, 5))
    labels[0, 3:] = -100

    def clip() -> tuple:
        vision = {"image_size": 16, "patch_size": 8, **small}
        ends = {"eos_token_id": 2, "bos_token_id": 1, "pad_token_id": 0}
        config = transformers.CLIPConfig(text_config=text | ends, vision_config=vision, projection_dim=8)
        batch = {**tokens, "pixel_values": images, "return_loss": True}
        where = torch.arange(3)

        def loss(f: Tensor) -> Tensor:
            return (functional.cross_entropy(f, where) + functional.cross_entropy(f.T, where)) / 2

        return transformers.CLIPModel(config), batch, lambda call: call(**batch).logits_per_text, loss

    def t5() -> tuple:
        config = {"vocab_size": 60, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2}
        model = transformers.T5ForConditionalGeneration(
            transformers.T5Config(**config, decoder_start_token_id=0, pad_token_id=0, dropout_rate=0.0)
        )
        batch = {**tokens, "labels": labels}
        flat = labels.flatten()
        return model, batch, lambda call: call(**batch).logits.flatten(0, 1), lambda f: functional.cross_entropy(f, flat)

    def bart() -> tuple:
        sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2}
        sizes |= {"decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 12}
        model = transformers.BartForConditionalGeneration(transformers.BartConfig(vocab_size=60, **sizes))
        batch = {**tokens, "labels": labels}
        flat = labels.flatten()
        return model, batch, lambda call: call(**batch).logits.flatten(0, 1), lambda f: functional.cross_entropy(f, flat)

    def question() -> tuple:
        model = transformers.BertForQuestionAnswering(transformers.BertConfig(**text))
        batch = {**tokens, "start_positions": torch.tensor([1, 0, 3]), "end_positions": torch.tensor([2, 5, 3])}
        places = torch.cat([batch["start_positions"], batch["end_positions"]])

        def outputs(call: Callable) -> Tensor:
            found = call(**batch)
            return torch.cat([found.start_logits, found.end_logits])

        return model, batch, outputs, lambda f: functional.cross_entropy(f, places)

    def autoencoder() -> tuple:
        decoder = {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
        sizes = {"image_size": 16, "patch_size": 8, "decoder_intermediate_size": 24, **decoder}
        model = transformers.ViTMAEForPreTraining(transformers.ViTMAEConfig(**small, **sizes))
        batch = {"pixel_values": images, "noise": torch.rand(3, 4)}
        mask = model.eval()(**batch).mask
        patches = model.patchify(images)

        def loss(f: Tensor) -> Tensor:
            return ((f - patches).square().mean(-1) * mask).sum() / mask.sum()

        return model, batch, lambda call: call(**batch).logits, loss

    return {"clip": clip, "t5": t5, "bart": bart, "question": question, "autoencoder": autoencoder}


@pytest.mark.parametrize("name", ["clip", "t5", "bart", "question", "autoencoder"])
def test_gauss_newton_matrices_of_models_with_their_own_loss(name):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, batch, outputs, loss = models()[name]()
    model.eval().requires_grad_(True)  # fixed position embeddings, too
    vector = torch.randn(sum(p.numel() for p in model.parameters()))
    found = cs.ggn(model, "model", [batch], **PLAIN) @ vector
    with sdpa_kernel(SDPBackend.MATH):
        expected = product(model, outputs, loss, vector)
    assert float(expected.norm()) > 0
    assert float((found - expected).norm() / expected.norm()) < 1e-4


def test_losses_of_unknown_form_are_told_what_to_do():
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> object:
            return type("Found", (), {"loss": self.layer(x).square().mean() ** 2})()

    with pytest.raises(InvalidArgument, match=r"no form is known for batches with keys \['x'\].*criterion \(output, target\)"):
        cs.ggn(Odd(), "model", [{"x": torch.ones(4, 3)}])


class Heads(nn.Module):
    """Mean and log variance, as a tuple or a dictionary."""

    def __init__(self, kind: type) -> None:
        super().__init__()
        self.kind, self.body = kind, nn.Linear(3, 4).double()
        self.mean, self.spread = nn.Linear(4, 2).double(), nn.Linear(4, 1).double()

    def forward(self, x: Tensor) -> object:
        h = torch.tanh(self.body(x))
        mean, spread = self.mean(h), self.spread(h)
        return (mean, spread) if self.kind is tuple else {"mean": mean, "spread": spread, "name": "normal"}


def likelihood(found: tuple | dict | Tensor, y: Tensor) -> Tensor:
    if isinstance(found, Tensor):
        mean, spread = found[:, :2], found[:, 2:]
    else:
        mean, spread = found if isinstance(found, tuple) else (found["mean"], found["spread"])
    return (0.5 * (mean - y).square() * (-spread).exp() + 0.5 * spread).sum(1).mean()


class Joined(nn.Module):
    def __init__(self, inner: Heads) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        found = self.inner(x)
        return torch.cat(found if isinstance(found, tuple) else [found["mean"], found["spread"]], 1)


@pytest.mark.parametrize("strategy", ["double_backward", "split", "split_vmap"])
@pytest.mark.parametrize("kind", [tuple, dict])
def test_networks_that_return_several_tensors(kind, strategy):
    torch.manual_seed(1)
    model, data = Heads(kind), [(torch.randn(n, 3).double(), torch.randn(n, 2).double()) for n in (4, 2)]
    eye = torch.eye(31).double()
    for matrix in (cs.ggn, cs.empirical_fisher):
        found = matrix(model, likelihood, data, strategy=strategy) @ eye
        torch.testing.assert_close(found, matrix(Joined(model), likelihood, data, **PLAIN) @ eye)


def test_outputs_that_are_no_tensors_are_named():
    class Bad(Heads):
        def forward(self, x: Tensor) -> object:
            return self.mean(self.body(x)), torch.arange(len(x))

    class Pooled(Heads):
        def forward(self, x: Tensor) -> object:
            h = self.body(x)
            return self.mean(h), self.spread(h).mean(0)

    data = [(torch.randn(4, 3).double(), torch.randn(4, 2).double())]
    with pytest.raises(InvalidArgument, match=r"tuple with torch\.float64, torch\.int64"):
        cs.ggn(Bad(tuple), lambda found, y: (found[0] - y).square().mean(), data) @ torch.ones(31).double()

    def loss(found: tuple, y: Tensor) -> Tensor:
        return ((found[0] - y).square() * found[1].exp()).mean()

    with pytest.raises(InvalidArgument, match="a row for each sample"):
        cs.empirical_fisher(Pooled(tuple), loss, data) @ torch.ones(31).double()
    assert bool((cs.ggn(Pooled(tuple), loss, data) @ torch.ones(31).double()).isfinite().all())
