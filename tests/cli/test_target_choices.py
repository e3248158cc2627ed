"""--matrix and --precision with a function of the user's: honoured or refused by every command, never ignored."""

import json
import sys

import pytest
import torch

import curvscope as cs
from curvscope.errors import InvalidArgument
from curvscope.store import Run

TARGET = """
import torch
from torch import nn
import curvscope as cs

def pair(shard=0, num_shards=1):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    x, y = torch.randn(30, 6), torch.arange(30) % 3
    return model, nn.CrossEntropyLoss(), [(x[shard::num_shards], y[shard::num_shards])]

def operator():
    return cs.hessian(*pair())
"""


@pytest.fixture
def target(tmp_path, monkeypatch):
    name = f"choices_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(TARGET)
    monkeypatch.syspath_prepend(tmp_path)
    return lambda function: f"{name}:{function}"


def dense(target, matrix):
    """The float64 matrix of the user's network, and its eigenvalues by magnitude."""
    made = sys.modules[target("pair").split(":")[0]].pair()
    operator = matrix(*made, dtype=torch.float64)
    whole = operator @ torch.eye(operator.shape[0], dtype=torch.float64)
    values = torch.linalg.eigvalsh(whole)
    return whole, values[values.abs().argsort(descending=True)]


def test_eigs_and_what_follows_measure_the_matrix_that_was_named(curvscope, target):
    asked = ("eigs", "--target", target("pair"), "--matrix", "ggn", "-k", 4, "--method", "krylov", "--out", "run", "--json")
    found = json.loads(curvscope(*asked).output)
    ggn, values = dense(target, cs.ggn)
    assert found["eigenvalues"] == pytest.approx(values[:4].tolist(), rel=1e-3)
    assert abs(found["eigenvalues"][0] - float(dense(target, cs.hessian)[1][0])) > 1e-2 * found["eigenvalues"][0]
    assert curvscope("certify", "run").status == 0
    trace = json.loads(curvscope("trace", "run", "--json", "--trust").output)["trace"]["value"]
    assert trace == pytest.approx(float(ggn.trace()), rel=0.2)
    again = curvscope("eigs", "--target", target("pair"), "-k", 4, "--method", "krylov", "--out", "run")
    assert again.status == 2
    assert "matrix" in str(again.error)
    assert Run.open("run").manifest["options"]["matrix"] == "ggn"


def test_precision_is_honoured(curvscope, target):
    asked = ("eigs", "--target", target("pair"), "--precision", "float64", "-k", 3, "--out", "run", "--json")
    values = dense(target, cs.hessian)[1] if curvscope(*asked).status == 0 else None
    solution = cs.open("run")
    assert solution.provenance["dtype"] == "float64"
    torch.testing.assert_close(solution.eigenvalues, values[:3], rtol=1e-10, atol=0)


@pytest.mark.parametrize(
    "command",
    [
        ("trace", "--method", "exact", "--json"),
        ("density", "--method", "exact", "--json"),
        ("plan", "-k", 2, "--json"),
    ],
)
def test_other_commands_take_them_too(curvscope, target, command):
    first = curvscope(*command, "--target", target("pair"), "--matrix", "ggn")
    assert first.status == 0
    found = json.loads(first.output)
    exact = float(dense(target, cs.ggn)[0].trace())
    if "trace" in found:
        got = found["trace"]["value"] if isinstance(found["trace"], dict) else found["trace"][0]
        assert got == pytest.approx(exact, rel=1e-4)


def test_shards_are_of_the_matrix_that_was_named(target):
    from curvscope.runs import recipe_of_target

    recipe = recipe_of_target({"target": target("pair"), "matrix": "ggn", "precision": "float64"})
    whole = recipe.build()
    parts = [recipe.with_options(shard=i, num_shards=2).build() for i in (0, 1)]
    x = torch.ones(whole.shape[0], dtype=torch.float64)
    torch.testing.assert_close((parts[0] @ x + parts[1] @ x) / 2, whole @ x)


@pytest.mark.parametrize("choice", [("--matrix", "ggn"), ("--precision", "float64")])
@pytest.mark.parametrize("command", [("eigs", "-k", 2, "--out", "run"), ("plan", "-k", 2), ("density",), ("trace",)])
def test_a_function_that_returns_an_operator_has_decided(curvscope, target, command, choice):
    refused = curvscope(*command, "--target", target("operator"), *choice)
    assert isinstance(refused.error, InvalidArgument)
    assert " ".join(choice) in str(refused.error)
    assert "return (model, loss, data)" in str(refused.error)


@pytest.mark.parametrize("choice", [("--matrix", "ggn"), ("--split", "test"), ("--step", 3), ("--data", "folder")])
@pytest.mark.parametrize("command", ["overlap", "density", "trace"])
def test_a_run_has_its_own_operator(curvscope, target, command, choice):
    curvscope("eigs", "--target", target("pair"), "-k", 2, "--out", "run")
    refused = curvscope(command, "run", *choice)
    assert isinstance(refused.error, InvalidArgument)
    assert f"{choice[0]}: a RUN has its own operator" in str(refused.error)
