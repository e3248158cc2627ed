"""Every strategy on every kind of model gives the matrix that dense float64 differentiation gives."""

import functools

import pytest
import torch
from torch import nn

from curvscope.operators import ggn, hessian
from curvscope.operators.products import STRATEGIES
from curvscope.system import long_work

from .cases import CASES, build, dense_ggn, dense_hessian

HALVES = [
    pytest.param(name, strategy, marks=[pytest.mark.slow] * (strategy.startswith(("split", "linearize")) and (i + j) % 2))
    for i, strategy in enumerate(("auto", *STRATEGIES))
    for j, name in enumerate(CASES)
]
"""Each traced strategy on every second kind of model, in turn; the other halves are slow tests."""


@functools.cache
def oracle(kind: str, name: str) -> torch.Tensor:
    return {"hessian": dense_hessian, "ggn": dense_ggn}[kind](*build(name))


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize(("name", "strategy"), HALVES)
def test_hessian_equals_dense_hessian(name, strategy):
    model, criterion, batches = build(name)
    H = hessian(model, criterion, batches, strategy=strategy, width=5)
    with long_work():
        found = H @ torch.eye(H.shape[0], dtype=torch.float64)[:, :12]
    assert relative(found, oracle("hessian", name)[:, :12]) < 1e-10


@pytest.mark.parametrize(("name", "strategy"), HALVES)
def test_ggn_equals_dense_ggn(name, strategy):
    model, criterion, batches = build(name)
    G = ggn(model, criterion, batches, strategy=strategy, width=5)
    with long_work():
        found = G @ torch.eye(G.shape[0], dtype=torch.float64)[:, :12]
    assert relative(found, oracle("ggn", name)[:, :12]) < 1e-10


def test_traced_strategies_are_used_where_they_can_be():
    for name in ("mlp", "activations", "squared error", "convolutional", "lstm", "gru", "attention", "tied tokens"):
        model, criterion, batches = build(name)
        for make in (hessian, ggn):
            A = make(model, criterion, batches)
            with long_work():
                A @ torch.randn(A.shape[0], 4, dtype=torch.float64)
            assert A.strategy_report["strategy"].startswith("split"), (name, A.strategy_report)


def test_models_that_cannot_be_traced_fall_back():
    # PyTorch 2.9 cannot linearize what reads values in Python, 2.13 can: the last resort is as exact, and slower.
    recent = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 13)
    baked = {"linearize"} if recent else {"linearize", "double_backward"}
    expected = {"control flow": {"split"}, "baked values": baked, "reverse mode only": {"double_backward"}}
    for name, strategies in expected.items():
        model, criterion, batches = build(name)
        H = hessian(model, criterion, batches, strategy="split")
        H @ torch.ones(H.shape[0], dtype=torch.float64)
        assert H.strategy_report["strategy"] in strategies, name


@pytest.mark.parametrize("name", ["mlp", "class weights", "frozen layer"])
def test_curvlinops_agrees(name):
    curvlinops = pytest.importorskip("curvlinops")
    model, criterion, batches = build(name, batches=1)
    model.eval()
    params = [p for p in model.parameters() if p.requires_grad]
    for make, theirs in ((hessian, "HessianLinearOperator"), (ggn, "GGNLinearOperator")):
        A = make(model, criterion, batches)
        x = torch.randn(A.shape[0], 3, dtype=torch.float64)
        B = getattr(curvlinops, theirs)(model, criterion.double(), params, batches, check_deterministic=False)
        assert relative(A @ x, B @ x) < 1e-10


def test_float32_is_accurate_to_its_rounding():
    model, criterion, batches = build("activations")
    expected = dense_hessian(model, criterion, batches)
    H = hessian(model, criterion, batches, dtype=torch.float32)
    x = torch.randn(H.shape[0], 3)
    assert H.dtype == torch.float32
    assert relative((H @ x).double(), expected @ x.double()) < 1e-5


def test_bfloat16_is_summed_in_float32():
    model, criterion, batches = build("mlp")
    expected = dense_hessian(model, criterion, batches)
    H = hessian(model, criterion, batches, dtype=torch.bfloat16)
    x = torch.randn(H.shape[0], 3)
    assert H.dtype == torch.float32
    assert relative((H @ x).double(), expected @ x.double()) < 0.1
    wide = hessian(model, criterion, batches, dtype=torch.float32, accumulate=torch.float64)
    assert (wide @ x.double()).dtype == torch.float64


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", CASES)
def test_cuda_equals_cpu(name):
    model, criterion, batches = build(name)
    H, K = hessian(model, criterion, batches), hessian(model, criterion, batches, device="cuda")
    x = torch.randn(H.shape[0], 3, dtype=torch.float64)
    assert relative((K @ x.cuda()).cpu(), H @ x) < 1e-10


def test_batch_statistics_on_request():
    model, criterion, batches = build("convolutional")
    model[7].p = 0.0
    H = hessian(model, criterion, batches, batchnorm="batch")
    reference = nn.Sequential(*(m for m in model))
    reference[1] = nn.BatchNorm2d(2, track_running_stats=False).double()
    reference[1].load_state_dict({k: v for k, v in model[1].state_dict().items() if k in ("weight", "bias")})
    x = torch.randn(H.shape[0], 2, dtype=torch.float64)
    assert relative(H @ x, dense_hessian(reference, criterion, batches) @ x) < 1e-10


def test_branches_on_values_are_traced_once_each():
    model, criterion, batches = build("control flow", batches=6)
    batches = [(x - x.mean() + sign, y) for sign, (x, y) in zip((1, -1, 1, -1, 1, -1), batches, strict=True)]
    H = hessian(model, criterion, batches, strategy="split")
    x = torch.randn(H.shape[0], 2, dtype=torch.float64)
    assert relative(H @ x, dense_hessian(model, criterion, batches) @ x) < 1e-10
    traced = [len(programs) for programs in H._engine._strategies["split"]._programs.values()]
    assert traced == [2]
