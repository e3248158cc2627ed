"""The matrix does not depend on how its products are computed, and is linear and symmetric."""

import itertools

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn

from curvscope.errors import InvalidArgument
from curvscope.operators import ggn, hessian
from curvscope.operators.products import STRATEGIES
from curvscope.system import long_work

from .cases import WEIGHTED, build

STRATEGY = st.sampled_from(["auto", *STRATEGIES])


def problem(samples: int = 7) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    labels = torch.randint(0, 3, (samples,))
    labels[1] = -100
    return model, torch.randn(samples, 3, dtype=torch.float64), labels


MODEL, X, Y = problem()
SIZE = sum(p.numel() for p in MODEL.parameters())
BLOCK = torch.randn(SIZE, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
WHOLE = {make: make(MODEL, WEIGHTED, [(X, Y)], strategy="double_backward") @ BLOCK for make in (hessian, ggn)}


@settings(max_examples=25, deadline=None)
@given(
    make=st.sampled_from([hessian, ggn]),
    cuts=st.lists(st.integers(1, 6), max_size=4, unique=True),
    microbatch=st.none() | st.integers(1, 7),
    width=st.none() | st.integers(1, 7),
    columns=st.integers(1, 6),
    strategy=STRATEGY,
)
def test_same_matrix_for_every_batching_width_and_strategy(make, cuts, microbatch, width, columns, strategy):
    edges = [0, *sorted(cuts), len(X)]
    batches = [(X[i:j], Y[i:j]) for i, j in itertools.pairwise(edges)]
    A = make(MODEL, WEIGHTED, batches, microbatch=microbatch, strategy=strategy, width=width)
    torch.testing.assert_close(A @ BLOCK[:, :columns], WHOLE[make][:, :columns], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("make", [hessian, ggn])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_linear_and_symmetric(make, strategy):
    A = make(MODEL, WEIGHTED, [(X, Y)], strategy=strategy)
    x, y = BLOCK[:, 0], BLOCK[:, 1]
    torch.testing.assert_close(A @ (2 * x - 3 * y), 2 * (A @ x) - 3 * (A @ y), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(y @ (A @ x), x @ (A @ y), rtol=1e-12, atol=1e-12)


def test_finite_differences_of_the_gradient():
    H = hessian(MODEL, WEIGHTED, [(X, Y)])
    criterion = nn.CrossEntropyLoss(weight=WEIGHTED.weight.double(), label_smoothing=0.1)
    direction, step = BLOCK[:, 0], 1e-5

    def gradient(shift: float) -> torch.Tensor:
        moved = dict(H.parameters.unflatten(H.parameters.flatten(dict(MODEL.named_parameters())) + shift * direction))
        moved = {name: value.detach().requires_grad_() for name, value in moved.items()}
        loss = criterion(torch.func.functional_call(MODEL, moved, (X,)), Y)
        return torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(moved.values()))])

    expected = (gradient(step) - gradient(-step)) / (2 * step)
    torch.testing.assert_close(H @ direction, expected, rtol=1e-7, atol=1e-9)


def test_products_repeat_bitwise_and_blocks_keep_their_argument():
    H = hessian(MODEL, WEIGHTED, [(X[:4], Y[:4]), (X[4:], Y[4:])])
    block = BLOCK.clone()
    with long_work():
        first, second = H @ block, H @ block
    assert torch.equal(first, second)
    assert torch.equal(block, BLOCK)


def test_batches_without_loss_terms_are_passed_over():
    empty = (X[:2], torch.full((2,), -100))
    H = hessian(MODEL, WEIGHTED, [empty, (X, Y), empty])
    torch.testing.assert_close(H @ BLOCK, WHOLE[hessian], rtol=1e-10, atol=1e-12)


def test_dropout_on_request_is_one_fixed_matrix():
    model, criterion, batches = build("convolutional")
    H = hessian(model, criterion, batches, dropout=5)
    x = torch.randn(H.shape[0], 2, dtype=torch.float64)
    with long_work():
        assert torch.equal(H @ x, H @ x)
    off = hessian(model, criterion, batches)
    assert not torch.allclose(H @ x, off @ x)


def test_parameter_filters_give_diagonal_blocks():
    H = hessian(MODEL, WEIGHTED, [(X, Y)])
    part = hessian(MODEL, WEIGHTED, [(X, Y)], params="2.*")
    places = torch.cat([torch.arange(SIZE)[H.parameters.slices[name]] for name in part.parameters.names])
    dense = H @ torch.eye(SIZE, dtype=torch.float64)
    found = part @ torch.eye(part.shape[0], dtype=torch.float64)
    torch.testing.assert_close(found, dense[places][:, places], rtol=1e-10, atol=1e-12)


def test_a_recorded_choice_repeats_the_products_bit_for_bit():
    model, criterion, batches = build("mlp", batches=3)
    x = torch.randn(43, 11, dtype=torch.float64)
    first = hessian(model, criterion, batches)
    found = first @ x
    again = hessian(model, criterion, batches, strategy=first.strategy_report["choice"])
    assert torch.equal(again @ x, found)
    assert again.strategy_report["choice"] == first.strategy_report["choice"]
    assert hessian(model, criterion, batches, strategy="split_vmap:4") @ x is not None
    for wrong in ("split_vmap:0", "split_vmap:x", "auto:4", "fast:2"):
        with pytest.raises(InvalidArgument, match="strategy="):
            hessian(model, criterion, batches, strategy=wrong)
    with pytest.raises(InvalidArgument, match="disagree"):
        hessian(model, criterion, batches, strategy="split_vmap:4", width=8)


def test_pieces_of_a_batch_do_not_change_what_an_operator_is():
    whole, pieces = (hessian(MODEL, WEIGHTED, [(X, Y)], microbatch=size) for size in (None, 3))
    assert whole.fingerprint == pieces.fingerprint
    counted = {"weight": lambda batch: 1.0}  # every piece weighs as much as a whole batch: another matrix
    parts = [(X[:2], Y[:2]), (X[2:], Y[2:])]
    assert (
        hessian(MODEL, WEIGHTED, parts, **counted).fingerprint
        != hessian(MODEL, WEIGHTED, parts, microbatch=3, **counted).fingerprint
    )
