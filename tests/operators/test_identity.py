"""What tells operators apart: every change of what is computed is seen and named; rounding and comments are not."""

import copy
import types

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import curvscope as cs
from curvscope.errors import InvalidArgument, RunConflict
from curvscope.operators import operator_differences, recorded
from curvscope.operators._code import code_digest
from curvscope.store import Run

GENERATOR = torch.Generator().manual_seed(0)
X, Y = torch.randn(40, 6, generator=GENERATOR), torch.randint(3, (40,), generator=GENERATOR)
DATA = [(X[:25], Y[:25]), (X[25:], Y[25:])]
CE = nn.CrossEntropyLoss()
SCALE = {"factor": 1.0}


def net(*acts, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), acts[0], nn.Linear(8, 8), acts[-1], nn.Linear(8, 3))


class Own(nn.Module):
    """A network of the user's: what it does depends on what is not a parameter."""

    def __init__(self, act=torch.tanh, scale=1.0, options=None):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)
        self.act, self.scale, self.options, self.calls = act, scale, options or {"power": 1}, 0

    def forward(self, x):
        self.calls += 1
        return self.b(self.act(self.scale * self.a(x)) ** self.options["power"])


def named(first, second):
    """The differences between two operators, as one text."""
    return "; ".join(operator_differences(recorded(first), second))


CHANGES = {
    "an activation": (lambda: net(nn.Tanh()), lambda: net(nn.ReLU()), CE, CE, "module 1 is Tanh"),
    "an option of an activation": (lambda: net(nn.Softplus()), lambda: net(nn.Softplus(beta=2)), CE, CE, "beta=2"),
    "a function that a module holds": (lambda: Own(), lambda: Own(functional.relu), CE, CE, "act=relu"),
    "a number that a module holds": (lambda: Own(), lambda: Own(scale=1.1), CE, CE, "scale=1.1"),
    "an entry of a dictionary": (lambda: Own(), lambda: Own(options={"power": 2}), CE, CE, "the product with a fixed vector"),
    "a lambda": (net_tanh := lambda: net(nn.Tanh()), net_tanh, lambda o, y: CE(o, y), lambda o, y: 2 * CE(o, y), "the loss is"),
    "a smoothed criterion": (net_tanh, net_tanh, CE, nn.CrossEntropyLoss(label_smoothing=0.1), "the code of the loss"),
    "weights of classes": (net_tanh, net_tanh, CE, nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 3.0])), "the loss is"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("matrix", [cs.hessian, cs.ggn])
def test_changes_of_what_is_computed_are_named(change, matrix):
    one, other, loss, new_loss, text = CHANGES[change]
    first, second = matrix(one(), loss, DATA), matrix(other(), new_loss, DATA)
    assert text in named(first, second)
    assert first.fingerprint != second.fingerprint
    assert named(first, matrix(one(), loss, DATA)) == ""  # built again it is the same


def test_a_captured_number_and_a_function_that_is_called_by_name_belong_to_a_loss():
    def made(factor):
        return lambda output, target: factor * CE(output, target)

    assert code_digest(made(1.0)) == code_digest(made(1.0)) != code_digest(made(1.5))
    text = "def inner(o): return {}\ndef loss(o, y): return (inner(o)).square().mean()\n"
    losses = []
    for body in ("o", "o  # the output itself", "3 * o"):
        module = types.ModuleType("experiment")
        exec(text.format(body), module.__dict__)
        losses.append(module.loss)
    digests = [code_digest(loss) for loss in losses]
    assert digests[0] == digests[1] != digests[2]
    matrices = [cs.hessian(net(nn.Tanh()), loss, DATA) for loss in losses]
    assert named(matrices[0], matrices[1]) == ""
    assert "the code of the loss" in named(matrices[0], matrices[2])


def test_a_constant_of_another_file_is_seen_by_values():
    def loss(output, target):
        return SCALE["factor"] * CE(output, target)

    first = cs.hessian(net(nn.Tanh()), loss, DATA)
    before = copy.deepcopy(recorded(first))
    try:
        SCALE["factor"] = 1.05
        differing = operator_differences(before, cs.hessian(net(nn.Tanh()), loss, DATA))
    finally:
        SCALE["factor"] = 1.0
    assert [text.split(" is ")[0].split(" with ")[0] for text in differing] == ["the loss", "the product"]


def test_counters_and_ways_of_computing_are_no_difference():
    model = Own()
    first = cs.hessian(model, CE, DATA, strategy="double_backward")
    one = recorded(first)
    _ = first @ torch.ones(first.shape[0])  # counts its calls
    for other in (cs.hessian(model, CE, DATA, strategy="linearize"), cs.hessian(model, CE, DATA, microbatch=7)):
        assert operator_differences(one, other) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_that_differ_by_rounding_are_the_same(dtype):
    model = net(nn.Tanh())
    H = cs.hessian(model, CE, DATA, dtype=dtype)
    known = copy.deepcopy(recorded(H))
    identity = known["identity"]
    unit = H.rounding
    identity["values"]["loss"] *= 1 + unit
    identity["values"]["product"] = [number * (1 + unit) for number in identity["values"]["product"]]
    assert operator_differences(known, H) == []
    identity["values"]["product"] = [2 * number for number in identity["values"]["product"]]
    assert "the product with a fixed vector" in "; ".join(operator_differences(known, H))


def test_another_version_of_python_or_torch_compares_values_alone():
    H = cs.hessian(net(nn.Tanh()), CE, DATA)
    known = copy.deepcopy(recorded(H))
    known["identity"] |= {"versions": {"python": "2.7", "torch": "0.4"}, "code": {"the loss": "0", "the network": "1"}}
    known["identity"]["modules"]["1"] = "Tanh(described otherwise)"
    assert operator_differences(known, H) == []
    assert "the loss is" in named_from(known, cs.hessian(net(nn.ReLU()), CE, DATA))


def named_from(known, operator):
    return "; ".join(operator_differences(known, operator))


def test_sums_squares_submatrices_and_fishers_know_their_parts():
    def composed(act):
        H, G = cs.hessian(net(act), CE, DATA), cs.ggn(net(act), CE, DATA)
        fishers = [cs.empirical_fisher(net(act), CE, DATA), cs.monte_carlo_fisher(net(act), CE, DATA)]
        return [H + 2 * G, H.square(), H.submatrix("2.*"), *fishers, cs.gradient_second_moment(net(act), CE, DATA)]

    for first, second, again in zip(composed(nn.Tanh()), composed(nn.ReLU()), composed(nn.Tanh()), strict=True):
        assert "module 1 is Tanh() in the run and ReLU() here" in named(first, second)
        assert named(first, again) == ""


class Elsewhere:
    """A matrix of another library, whose products round differently every time."""

    def __init__(self, matrix, noise=0.0):
        self.matrix, self.noise, self.shape, self.dtype = matrix, noise, matrix.shape, matrix.dtype

    def __matmul__(self, block):
        return (self.matrix @ block) * (1 + self.noise)


def test_operators_of_other_libraries_are_compared_within_rounding():
    A = np.diag(np.arange(1.0, 8.0)).astype(np.float32)
    first = cs.as_operator(Elsewhere(A))
    assert named(first, cs.as_operator(Elsewhere(A, noise=3e-7))) == ""
    B = A.copy()
    B[2, 2] *= 1.01
    assert "product with a fixed vector" in named(first, cs.as_operator(Elsewhere(B)))


def test_runs_certificates_and_deflation_refuse_another_network(tmp_path):
    tanh, relu = (cs.hessian(net(act), CE, DATA) for act in (nn.Tanh(), nn.ReLU()))
    options = {"method": "krylov", "block_size": 2, "tol": 1e-2, "progress": False}
    solution = cs.eigsh(tanh, 2, run=tmp_path / "run", **options)
    for k in (2, 3):
        with pytest.raises(RunConflict, match=r"module 1 is Tanh\(\) in the run and ReLU\(\) here"):
            cs.eigsh(relu, k, run=tmp_path / "run", **options)
    with pytest.raises(InvalidArgument, match=r"Tanh\(\) in the solution and ReLU\(\) here"):
        cs.certify(relu, solution, progress=False)
    with pytest.raises(InvalidArgument, match="deflate is not a solution of this operator: module 1"):
        cs.density(relu, deflate=solution, progress=False)
    again = cs.eigsh(cs.hessian(net(nn.Tanh()), CE, DATA), 2, run=tmp_path / "run", **options)
    assert torch.equal(again.eigenvalues, solution.eigenvalues)


def test_a_run_of_an_earlier_version_is_opened_but_not_continued(tmp_path):
    H = cs.hessian(net(nn.Tanh()), CE, DATA)
    options = {"method": "krylov", "block_size": 2, "tol": 1e-2, "progress": False}
    solution = cs.eigsh(H, 2, run=tmp_path / "run", **options)
    manifest = tmp_path / "run" / "manifest.json"
    cs_run = Run.open(tmp_path / "run")
    cs_run.manifest["operator"].pop("identity")
    cs_run.manifest["operator"]["fingerprint"] = "0" * 32
    cs_run.save()
    assert manifest.exists()
    assert torch.equal(cs.open(tmp_path / "run").eigenvalues, solution.eigenvalues)
    with pytest.raises(RunConflict, match="earlier version of curvscope"):
        cs.eigsh(H, 2, run=tmp_path / "run", **options)
