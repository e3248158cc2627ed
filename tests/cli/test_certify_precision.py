"""``curvscope certify RUN --precision float64``: beside dense float64 matrices, and what is refused."""

import json
import sys

import pytest
import torch

import curvscope as cs
from curvscope.errors import InvalidArgument, RunConflict
from curvscope.measurement import _storage as storage
from curvscope.tall import OnDisk

TARGET = """
import torch
from torch import nn
import curvscope as cs

def pair(shift=0.0):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 3))
    return model, nn.CrossEntropyLoss(), [(torch.randn(30, 6) + shift, torch.arange(30) % 3)]

def gauss_newton():
    return cs.ggn(*pair())

def double():
    return cs.hessian(*pair(), dtype=torch.float64)

def coarse():
    return cs.hessian(*pair(), dtype=torch.bfloat16)

def matrix():
    return torch.diag(torch.tensor([4.0, -3.0, 2.0, 1.0]))
"""


@pytest.fixture
def target(tmp_path, monkeypatch):
    name = f"network_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(TARGET)
    monkeypatch.syspath_prepend(tmp_path)
    return lambda function: f"{name}:{function}"


def dense(target, matrix=cs.hessian):
    """Eigenvalues and -vectors in float64, by magnitude."""
    operator = matrix(*sys.modules[target("pair").split(":")[0]].pair(), dtype=torch.float64)
    values, vectors = torch.linalg.eigh(operator @ torch.eye(operator.shape[0], dtype=torch.float64))
    order = values.abs().argsort(descending=True)
    return values[order], vectors[:, order]


def solved(curvscope, target, function, *options, k=6):
    made = curvscope("eigs", "-k", k, "--target", target(function), "--method", "krylov", "--out", "run", *options)
    assert made.status == 0


@pytest.mark.parametrize(
    ("function", "matrix"), [pytest.param("pair", cs.hessian, marks=pytest.mark.slow), ("gauss_newton", cs.ggn)]
)
def test_a_run_in_float32_is_certified_in_float64(curvscope, target, tmp_path, function, matrix):
    """Intervals hold the exact eigenvalues, far below float32's rounding; bounds for angles and overlaps hold."""
    solved(curvscope, target, function, "--tol", 1e-6)
    before = (tmp_path / "run" / "solution" / "solution.json").read_text()
    single = cs.open(tmp_path / "run")
    made = curvscope("certify", "run", "--precision", "float64", "--json")
    assert made.status == 0, made.output
    answer = json.loads(made.output)
    assert (answer["failed"], answer["dtype"]) == ([], "float64")

    values, vectors = dense(target, matrix)
    complete = answer["complete"]
    assert complete >= 4
    low, high = torch.tensor(answer["intervals"], dtype=torch.float64)[:complete].T
    rounding = len(values) * torch.finfo(torch.float64).eps * values[0].abs()  # of the dense solve
    assert bool(((low - rounding <= values[:complete]) & (values[:complete] <= high + rounding)).all())
    assert bool((high - low < 1e-8 * values[0].abs()).all())
    certified = cs.open(tmp_path / "run" / "certified")
    assert certified.eigenvectors.dtype == torch.float64
    cosines = (certified.eigenvectors.to_tensor() * vectors[:, :6]).sum(0).abs()[:complete]
    sines = (1 - cosines.square()).clamp(min=0).sqrt()
    assert bool((sines <= torch.tensor(answer["angles"])[:complete] + 2e-8).all())

    assert (tmp_path / "run" / "solution" / "solution.json").read_text() == before  # the run's own stays
    assert torch.equal(cs.open(tmp_path / "run").eigenvalues, single.eigenvalues)

    curve = json.loads(curvscope("overlap", "run", "--json").output)
    model = sys.modules[target("pair").split(":")[0]].pair()[0]
    places = torch.cat([p.detach().flatten() for p in model.parameters()]).abs().argsort(descending=True)
    exact = [float(vectors[places[: k + 1], : k + 1].square().sum()) / (k + 1) for k in range(complete)]
    for k in range(complete):
        assert curve["lower"][k] - 1e-12 <= exact[k] <= curve["upper"][k] + 1e-12
        if values[k].abs() - values[k + 1].abs() > 0.005:  # else the vectors of float32 are turned into one another
            assert curve["upper"][k] - curve["lower"][k] <= 1e-4

    assert curvscope("report", "run").status == 0
    assert "certified in float64" in (tmp_path / "run" / "report.html").read_text()
    assert json.loads(curvscope("info", "run", "--json").output)["certified"] == f"{complete} of 6 are the largest, in float64"


def test_what_a_run_keeps(curvscope, target, tmp_path):
    """A certificate in the run's own precision stays beside it; a solve that goes on removes it."""
    solved(curvscope, target, "pair", k=4)
    assert "certified" not in json.loads(curvscope("info", "run", "--json").output)
    assert curvscope("certify", "run", "--precision", "float64").status == 0
    own = curvscope("certify", "run")
    assert own.status == 0
    assert "report take the pairs in run/certified" in own.output
    assert cs.open(tmp_path / "run").eigenvectors.dtype == torch.float32
    first = cs.open(tmp_path / "run" / "certified")
    assert curvscope("certify", "run", "--precision", "float64", "--steps", 70).status == 0  # in the place of the first
    again = cs.open(tmp_path / "run" / "certified")
    assert again.certificate.tail.products > first.certificate.tail.products
    torch.testing.assert_close(again.eigenvalues, first.eigenvalues, rtol=1e-13, atol=0)  # maybe multiplied another way
    assert sorted(file.name for file in (tmp_path / "run").glob(".*")) == []
    solved(curvscope, target, "pair", k=5)
    assert not (tmp_path / "run" / "certified").exists()
    assert "lower" not in json.loads(curvscope("overlap", "run", "--json").output)


def test_a_run_in_bfloat16_is_certified_in_float32_and_float64(curvscope, target, tmp_path):
    solved(curvscope, target, "coarse", "--tol", 0.1, k=3)
    values = dense(target)[0]
    for precision in ("float32", "float64"):
        made = curvscope("certify", "run", "--precision", precision, "--json")
        assert made.status == 0, made.output
        answer = json.loads(made.output)
        assert answer["dtype"] == precision
        low, high = torch.tensor(answer["intervals"], dtype=torch.float64).T
        assert bool(((low - 1e-6 <= values[:3]) & (values[:3] <= high + 1e-6)).all())


def test_a_run_of_a_problem(curvscope, tmp_path):
    solved_problem = ("-k", 5, "--problem", "mnist16", "--step", 2, "--method", "krylov", "--tol", 1e-6, "--out", "run")
    assert curvscope("eigs", *solved_problem).status == 0
    answer = json.loads(curvscope("certify", "run", "--precision", "float64", "--json").output)
    assert (answer["failed"], answer["dtype"]) == ([], "float64")
    problem, options = cs.problems.get("mnist16"), json.loads((tmp_path / "run" / "manifest.json").read_text())["options"]
    model = problem.model()
    from curvscope.training import Recorder, train

    recorder = Recorder(model, [2])
    train(problem, model, recorder)
    H = cs.hessian(recorder.load(2, model), problem.criterion, problem.curvature_batches("train"), dtype=torch.float64)
    assert options["step"] == 2
    exact = cs.eigsh(H, 5, tol=1e-10, progress=False)
    low, high = torch.tensor(answer["intervals"], dtype=torch.float64).T
    rounding = 1e-13 * exact.eigenvalues[0].abs()  # of the other solve
    assert bool(((low <= exact.eigenvalues + rounding) & (exact.eigenvalues - rounding <= high)).all())
    assert bool((high - low <= 1e-9).all())


def test_a_false_claim_is_found(curvscope, target, tmp_path):
    """Two vectors that were turned into one another: their span is right, so are the improved pairs, the claim is not."""
    solved(curvscope, target, "pair", "--tol", 1e-6, k=4)
    stored = OnDisk(tmp_path / "run" / "solution" / "eigenvectors.zarr")
    vectors = stored.to_tensor()
    vectors[:, :2] = vectors[:, :2] @ torch.tensor([[0.8, -0.6], [0.6, 0.8]])
    for panel in stored.panels():
        stored.write_rows(panel, vectors[panel])
    made = curvscope("certify", "run", "--precision", "float64")
    assert made.status == 1
    assert "pair 1: residual " in made.output
    assert "pair 2: residual " in made.output
    assert "pair 3: residual " not in made.output


def test_claims_of_residuals_that_are_too_small_are_found(curvscope, target, tmp_path):
    """Of pairs that are Ritz pairs of a poor span."""
    assert curvscope("eigs", "-k", 6, "--target", target("pair"), "--method", "hmt", "--out", "run").status == 0
    folder = tmp_path / "run" / "solution"
    table, _ = storage.read_result(folder, storage.EIGEN)
    assert curvscope("certify", "run", "--precision", "float64").status == 0
    assert max(table["residual_norms"]) > 1e-3
    table["residual_norms"] = [0.1 * norm for norm in table["residual_norms"]]
    storage.rewrite_table(folder, storage.EIGEN, table)
    made = curvscope("certify", "run", "--precision", "float64")
    assert made.status == 1
    assert "all residuals together: " in made.output
    assert "pair 1: residual" not in made.output


def test_refused_before_any_work(curvscope, target, tmp_path, monkeypatch):
    solved(curvscope, target, "pair", k=2)
    monkeypatch.setattr("curvscope.solvers.certify", lambda *_, **__: pytest.fail("certified"))
    for options, message in (
        (("--precision", "float16"), "choose one of float64, float32"),
        (("--precision", "float64", "--workers", 2), "in its own precision: leave them or --precision out"),
    ):
        refused = curvscope("certify", "run", *options)
        assert isinstance(refused.error, InvalidArgument)
        assert message in str(refused.error)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 100})())
    assert "100 B are free" in str(curvscope("certify", "run", "--precision", "float64").error)
    module = sys.modules[target("pair").split(":")[0]]
    monkeypatch.setattr(module, "pair", lambda pair=module.pair: pair(shift=0.1))
    assert isinstance(curvscope("certify", "run", "--precision", "float64").error, RunConflict)
    assert not (tmp_path / "run" / "certified").exists()


@pytest.mark.parametrize(
    ("function", "precision", "message"),
    [
        ("double", "float32", "is lower than that of run (float64)"),
        ("matrix", "float64", "cannot be built in another precision"),
    ],
)
def test_operators_that_cannot_be_built_in_that_precision(curvscope, target, function, precision, message):
    assert curvscope("eigs", "-k", 2, "--target", target(function), "--out", "run").status == 0
    refused = curvscope("certify", "run", "--precision", precision)
    assert isinstance(refused.error, InvalidArgument)
    assert message in str(refused.error)


def test_the_own_precision_is_the_own_certificate(curvscope, target, tmp_path):
    solved(curvscope, target, "double", k=2)
    assert curvscope("certify", "run", "--precision", "float64").status == 0
    assert cs.open(tmp_path / "run").certificate.complete == 2
    assert not (tmp_path / "run" / "certified").exists()
