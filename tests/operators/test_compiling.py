"""Traced programs through PyTorch's compiler: where they are, that products stay the same, and that nothing is an error."""

import pytest
import torch
from torch import nn

import curvscope as cs
from curvscope.errors import InvalidArgument
from curvscope.execution import long_work
from curvscope.operators.products import _compiling


def setting():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.LayerNorm(7), nn.Linear(7, 3))
    return model, nn.CrossEntropyLoss(), [(torch.randn(4, 5), torch.randint(3, (4,))) for _ in range(2)]


def products(**options):
    operator = cs.ggn(*setting(), **options)
    vectors = torch.randn(operator.shape[0], 4, generator=torch.Generator().manual_seed(1))
    return operator, operator @ vectors


@pytest.fixture
def compiled(monkeypatch):
    """Programs that were handed to a compiler, which gives them back as they are."""
    seen = []

    def as_it_is(program, **options):
        assert options == {"fullgraph": True, "dynamic": False}
        seen.append(program)
        return program

    monkeypatch.setattr(torch, "compile", as_it_is)
    return seen


@pytest.mark.parametrize("strategy", ["split", "split_vmap:2", "linearize"])
def test_what_is_asked_for_is_compiled(strategy, compiled):
    expected = products(strategy=strategy, compile=False)[1]
    assert not compiled
    operator, found = products(strategy=strategy, compile=True)
    assert torch.allclose(found, expected, atol=1e-6)
    assert len(compiled) == (2 if strategy == "linearize" else 1)  # one program serves both mini-batches
    assert operator.strategy_report["compiled"]
    assert not any("onednn" in str(node.target) or str(node.target).endswith("_.Tensor") for node in compiled[0].graph.nodes)


def test_double_backward_has_no_program(compiled):
    _, found = products(strategy="double_backward", compile=True)
    assert torch.allclose(found, products(compile=False)[1], atol=1e-6)
    assert not compiled


def test_a_missing_compiler_is_no_error(monkeypatch, caplog):
    def missing(program, **options):
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\nmore")

    monkeypatch.setattr(torch, "compile", missing)
    operator, found = products(strategy="split", compile=True)
    assert torch.allclose(found, products(strategy="split", compile=False)[1], atol=1e-6)
    assert operator.strategy_report["not_compiled"] == "InvalidCxxCompiler: No working C++ compiler found"
    assert not operator.strategy_report["compiled"]
    assert caplog.text.count("No working C++ compiler found") == 1


def test_cpus_do_not_try(compiled):
    with long_work(10**9):
        operator, _ = products()
    assert not compiled
    assert not operator.strategy_report["compiled"]


@pytest.mark.parametrize(("faster", "announced"), [(True, 10**9), (False, 10**9), (True, 3), (True, None)])
def test_auto_takes_what_is_faster_where_it_pays(faster, announced, compiled, monkeypatch):
    seconds = iter([2e-3] * 3 + [1e-3 if faster else 3e-3] * 3)
    monkeypatch.setattr(_compiling, "TRIED_ON", ("cpu",))
    monkeypatch.setattr(_compiling, "seconds_of", lambda run, device: next(seconds))
    with long_work(announced):
        operator, found = products(strategy="split_vmap:2")
    assert torch.allclose(found, products(compile=False)[1], atol=1e-6)
    report = operator.strategy_report
    assert report["compiled"] == (faster and announced == 10**9)
    assert len(compiled) == (announced == 10**9)
    reasons = {(True, 10**9): "", (False, 10**9): "not compiled 0.002 s", (True, 3): "3 were announced", (True, None): ""}
    assert reasons[faster, announced] in report["not_compiled"]


def test_a_report_repeats_what_was_compiled(compiled, monkeypatch):
    report = products(strategy="split", compile=True)[0].strategy_report
    again = cs.ggn(*setting()).view(strategy_report=report)
    again @ torch.ones(again.shape[0])
    assert again.strategy_report["compiled"]
    never = cs.ggn(*setting(), compile=False).view(strategy_report=report)
    never @ torch.ones(never.shape[0])
    assert not never.strategy_report["compiled"]


def test_other_values_are_refused():
    with pytest.raises(InvalidArgument, match="compile='yes'"):
        cs.hessian(*setting(), compile="yes")


@pytest.mark.slow
@pytest.mark.parametrize("matrix", ["hessian", "ggn"])
def test_the_compiler_itself_gives_the_same_products(matrix):
    found = {}
    for compile in (False, True):
        operator = getattr(cs, matrix)(*setting(), strategy="split", compile=compile)
        found[compile] = operator @ torch.ones(operator.shape[0], 1)
        if compile and not operator.strategy_report["compiled"]:
            pytest.skip(operator.strategy_report["not_compiled"])
    assert torch.allclose(found[True], found[False], atol=1e-6)
