"""Nothing of the user's is changed, and what cannot work says so."""

import copy
import logging
import random

import numpy as np
import pytest
import torch
from torch import nn

from curvscope.errors import InvalidArgument, InvalidType, NotDifferentiable, NotFinite
from curvscope.operators import ggn, hessian, preflight

from .cases import CASES, build

CE = nn.CrossEntropyLoss()


def snapshot(model: nn.Module) -> tuple:
    state = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}
    modes = {name: module.training for name, module in model.named_modules()}
    flags = (
        torch.backends.cuda.matmul.fp32_precision,
        torch.backends.cudnn.conv.fp32_precision,
        torch.backends.mha.get_fastpath_enabled(),
        torch.backends.cuda.flash_sdp_enabled(),
        torch._C._get_mkldnn_enabled(),
    )
    return state, gradients, modes, torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy(), flags  # noqa: NPY002


def same(first: object, second: object) -> bool:
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, np.ndarray):
        return bool((first == second).all())
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, tuple):
        return all(same(a, b) for a, b in zip(first, second, strict=True))
    return first == second


@pytest.mark.parametrize("name", ["mlp", "convolutional", "lstm", "attention", "transformer layer"])
@pytest.mark.parametrize("options", [{}, {"batchnorm": "batch"}, {"dropout": 1}], ids=str)
def test_model_and_global_state_are_untouched(name, options):
    model, criterion, batches = build(name)
    model.train()
    next(model.parameters()).grad = torch.ones_like(next(model.parameters()))
    data = torch.utils.data.DataLoader(batches, batch_size=None)
    before = snapshot(model)
    for make in (hessian, ggn):
        A = make(model, criterion, data, **options)
        A @ torch.ones(A.shape[0], 2, dtype=torch.float64)
    assert same(before, snapshot(model))


def test_what_is_kept_is_replayed_without_the_model(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("the model is looked after")

    torch.manual_seed(0)
    model, data = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5), nn.Linear(3, 2)), [(torch.randn(6, 4), torch.arange(6) % 2)]
    H, X = hessian(model, CE, data, strategy="split_vmap"), torch.randn(23, 4)
    first = H @ X
    monkeypatch.setattr("curvscope.operators.objective._isolation._modes", refuse)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(H @ X, first)
    with pytest.raises(AssertionError, match="looked after"):  # another width is traced anew
        H @ X[:, :3]
    assert model.training


def test_untouched_after_an_exception():
    model, criterion, batches = build("convolutional")
    model.train()
    before = snapshot(model)
    broken = copy.copy(batches)
    broken[1] = (batches[1][0][:, :, :1], batches[1][1])
    with pytest.raises(InvalidArgument, match="the loss of batch 2 cannot be evaluated: RuntimeError"):
        hessian(model, criterion, broken)
    assert same(before, snapshot(model))


def test_training_on_does_not_change_an_operator():
    model, criterion, batches = build("mlp")
    H = hessian(model, criterion, batches, strategy="split")  # auto may choose otherwise the second time, by the clock
    x = torch.ones(H.shape[0], dtype=torch.float64)
    before = H @ x
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    assert torch.equal(before, H @ x)


def test_other_precision_is_of_the_matrix_as_it_was():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3))
    model[0].requires_grad_(False)
    data = [(torch.randn(6, 4), torch.arange(6) % 3)]
    H = hessian(model, CE, data, strategy="double_backward")  # auto may choose otherwise the second time, by the clock
    eye = torch.eye(H.shape[0], dtype=torch.float64)
    expected = H.in_dtype(torch.float64) @ eye
    model(10 * data[0][0])  # running statistics, frozen parameters and what is frozen change; values stay
    with torch.no_grad():
        model[0].weight.mul_(2)
    model[3].requires_grad_(False)
    assert torch.equal(H.in_dtype(torch.float64) @ eye, expected)
    assert preflight(H).passed
    with torch.no_grad():
        model[3].weight.mul_(2)
    later = H.in_dtype(torch.float64)
    torch.testing.assert_close(later @ eye, expected, rtol=1e-5, atol=1e-6)  # its own numbers, rounded, are all there is
    assert later.objective.mean_loss == pytest.approx(H.objective.mean_loss)


def test_globs_know_all_names_of_a_tied_parameter():
    model = nn.ModuleDict({"enc": nn.Linear(3, 3), "dec": nn.Linear(3, 3)})
    model["dec"].weight = model["enc"].weight

    def loss(model: nn.ModuleDict, batch: torch.Tensor) -> torch.Tensor:
        return model["dec"](model["enc"](batch).tanh()).square().mean()

    for params, names in (("dec.*", ("enc.weight", "dec.bias")), (["dec.weight"], ("enc.weight",)), ("enc.b*", ("enc.bias",))):
        assert hessian(model, loss, [torch.randn(4, 3)], params=params).parameters.names == names
    assert hessian(model, loss, [torch.ones(2, 3)], params=lambda name, p: "enc" not in name).parameters.names == ("dec.bias",)


def test_wrapped_models_are_unwrapped_with_a_notice(caplog):
    model, criterion, batches = build("mlp")
    with caplog.at_level(logging.WARNING):
        H = hessian(nn.DataParallel(model), criterion, batches)
    assert H.parameters.names[0] == "0.weight"
    assert "DataParallel" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "fast"}, "strategy='fast'"),
        ({"microbatch": 0}, "microbatch=0"),
        ({"reduction": "median"}, "reduction='median'"),
        ({"batchnorm": "train"}, "batchnorm='train'"),
        ({"dropout": 0.5}, "dropout=0.5"),
        ({"width": 0}, "width=0"),
        ({"memory": -1}, "memory=-1"),
        ({"params": "layer9.*"}, "matches none"),
        ({"dtype": torch.int64}, "dtype=torch.int64"),
        ({"accumulate": torch.int64}, "accumulate=torch.int64"),
        ({"weight": lambda batch: -1.0}, r"weight\(batch\) gave -1.0"),
        ({"weight": lambda batch: float("nan")}, r"weight\(batch\) gave nan"),
    ],
)
def test_bad_options_are_named(options, message):
    model, criterion, batches = build("mlp")
    with pytest.raises(InvalidArgument, match=message):
        hessian(model, criterion, batches, **options)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
def test_scripted_models_are_refused():
    with pytest.raises(InvalidType, match="scripted"):
        hessian(torch.jit.script(nn.Linear(2, 1)), nn.MSELoss(), [(torch.eye(2), torch.ones(2, 1))])


def test_bad_data_is_named():
    model, _, batches = build("mlp")
    x, y = batches[0]
    with pytest.raises(InvalidArgument, match="no batch"):
        hessian(model, CE, [])
    with pytest.raises(InvalidArgument, match="only once"):
        hessian(model, CE, iter(batches))
    with pytest.raises(InvalidArgument, match="pairs"):
        hessian(model, CE, [x])
    with pytest.raises(InvalidArgument, match=r"batch 1 is a tensor of shape \(6,\)"):
        hessian(model, nn.CrossEntropyLoss(reduction="none"), batches)
    with pytest.raises(NotFinite, match="batch 2 is nan"):
        hessian(model, CE, [(x, y), (x * torch.nan, y)])
    with pytest.raises(InvalidArgument, match="0 loss terms"):
        hessian(model, CE, [(x, torch.full_like(y, -100))])
    with pytest.raises(InvalidType, match="criterion"):
        hessian(model, "mse", batches)
    with pytest.raises(InvalidArgument, match="mappings with 'labels'"):
        hessian(model, "model", batches)
    with pytest.raises(InvalidArgument, match="where the network ends"):
        ggn(model, lambda model, batch: CE(model(batch[0]), batch[1]), batches)


def test_blocks_of_wrong_form_are_named():
    model, criterion, batches = build("mlp")
    H = hessian(model, criterion, batches)
    with pytest.raises(InvalidArgument, match="shape"):
        H @ torch.ones(3, dtype=torch.float64)
    with pytest.raises(InvalidArgument, match="int64"):
        H @ torch.ones(H.shape[0], dtype=torch.int64)
    ones = torch.ones(H.shape[0])
    assert (H @ ones).dtype == torch.float32  # computed in float64
    torch.testing.assert_close(H @ ones, (H @ ones.double()).float())


def test_losses_without_derivatives_are_named():
    model, _, batches = build("mlp")

    def detached(model: nn.Module, batch: tuple) -> torch.Tensor:
        return CE(model(batch[0]).detach(), batch[1])

    with pytest.raises(NotDifferentiable, match="does not depend on the parameters"):
        hessian(model, detached, batches)


@pytest.mark.parametrize("strategy", ["auto", "split", "double_backward"])
def test_losses_without_second_derivatives_are_named(strategy):
    model, _, batches = build("mlp")

    def largest(model: nn.Module, batch: tuple) -> torch.Tensor:
        outputs = model(batch[0]).square()
        return torch.segment_reduce(outputs, "max", lengths=torch.tensor([len(outputs)]), unsafe=True).mean()

    H = hessian(model, largest, batches, strategy=strategy)
    with pytest.raises(NotDifferentiable, match="segment_reduce"):
        H @ torch.ones(H.shape[0], dtype=H.dtype)


def test_data_that_changes_is_noticed():
    model, criterion, batches = build("mlp")
    data = list(batches)
    H = hessian(model, criterion, data)
    data.pop()
    with pytest.raises(InvalidArgument, match="1 batches, 2 the first time"):
        H @ torch.ones(H.shape[0], dtype=torch.float64)


def test_every_case_is_a_fixed_matrix_for_its_fingerprint():
    for name in ("mlp", "tied tokens"):
        model, criterion, batches = build(name)
        assert hessian(model, criterion, batches).fingerprint == hessian(model, criterion, batches).fingerprint
    assert len(CASES) > 15


class Holder:
    """A batch of a class of its own."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.x, self.y = x, y


def slope_penalty(network, batch):
    x = batch[0].clone().requires_grad_()
    (slope,) = torch.autograd.grad(network(x).sum(), x, create_graph=True)
    return CE(network(batch[0]), batch[1]) + slope.square().mean()


def test_misunderstandings_are_explained():
    model, _, batches = build("mlp")
    with pytest.raises(InvalidArgument, match="no tensor is seen in a batch that is a Holder"):
        hessian(model, lambda model, batch: CE(model(batch.x), batch.y), [Holder(*batches[0])], weight=lambda batch: 1)
    with pytest.raises(InvalidArgument, match="batch 1 holds a NumPy array"):
        hessian(model, CE, [(batches[0][0], batches[0][1].numpy())])
    with pytest.raises(InvalidArgument, match=r"missing.*CTCLoss\(output, y\).*first parameter has the name model"):
        hessian(model, nn.CTCLoss(), batches)
    other_names = hessian(model, lambda m, batch: CE(m(batch[0]), batch[1]), batches)
    ones = torch.ones(other_names.shape[0], dtype=torch.float64)
    torch.testing.assert_close(other_names @ ones, hessian(model, CE, batches) @ ones)
    penalised = hessian(
        model, lambda m, batch: slope_penalty(m, batch), batches
    )  # evaluated with gradients, to tell what it takes
    torch.testing.assert_close(
        penalised @ ones, hessian(model, lambda model, batch: slope_penalty(model, batch), batches) @ ones
    )
    with pytest.raises(InvalidArgument, match=r"'0\.weight' has no shape yet"):
        hessian(nn.Sequential(nn.LazyLinear(2)), CE, batches)
    with pytest.raises(InvalidArgument, match=r"'4\.\*' in params=.* matches none"):
        hessian(model, CE, batches, params=["0.*", "4.*"])


def test_no_parameter_is_rounded_unasked():
    model = nn.Sequential(nn.Linear(4, 3).bfloat16(), nn.LayerNorm(3))
    H = hessian(model, CE, [(torch.randn(5, 4), torch.arange(5) % 3)], params="0.*")
    assert H.dtype == H.objective.dtype == torch.float32


class Once(torch.autograd.Function):
    """An operation whose backward must not be differentiated."""

    @staticmethod
    def forward(context, x):
        context.save_for_backward(x)
        return x.sin()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context, gradient):
        return gradient * context.saved_tensors[0].cos()


class Sine(nn.Linear):
    """A layer that ends in such an operation."""

    def forward(self, x):
        return Once.apply(super().forward(x))


@pytest.mark.parametrize("make", [hessian, ggn])
@pytest.mark.parametrize("strategy", ["double_backward", "split", "auto"])
def test_backwards_that_must_not_be_differentiated_are_refused(make, strategy):
    A = make(Sine(4, 3), CE, [(torch.randn(5, 4), torch.arange(5) % 3)], strategy=strategy)
    with pytest.raises(NotDifferentiable, match="once_differentiable"):
        A @ torch.ones(15)


def test_dropout_of_a_model_without_dropout_layers_is_remarked_on(caplog):
    model, criterion, batches = build("mlp")
    with caplog.at_level(logging.WARNING):
        hessian(model, criterion, batches, dropout=0)
    assert "functional dropout stays off" in caplog.text
