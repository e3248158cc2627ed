"""PyTorch's default device and default dtype are the user's: what we make names its own, and results do not depend on them."""

import ast
import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._device import _device_constructors

import curvscope as cs
from curvscope.solvers import hmt

ROOT = Path(cs.__file__).parent
FACTORIES = {factory.__name__.removeprefix("fft_") for factory in _device_constructors()}


def without_device(source):
    """Calls of a source text that make a tensor on PyTorch's default device."""
    return [
        f"{node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in FACTORIES
        and (ast.unparse(node.func.value) in ("torch", "torch.nested", "torch.fft"))
        and not any(keyword.arg in ("device", None) for keyword in node.keywords)
    ]


def test_every_factory_in_the_package_names_its_device():
    found = {path.relative_to(ROOT): without_device(path.read_text()) for path in ROOT.rglob("*.py")}
    assert {str(path): calls for path, calls in found.items() if calls} == {}


def test_factories_without_a_device_would_be_found():
    assert {"zeros", "eye", "arange", "as_tensor", "randn"} <= FACTORIES
    source = "x = torch.zeros(3)\ny = torch.as_tensor(x, device=d)\nz = torch.eye(2, **o)\nw = torch.fft.fftfreq(4)"
    assert without_device(source) == ["1: torch.zeros(3)", "4: torch.fft.fftfreq(4)"]


@contextlib.contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def default_device(device):
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


CE, Y = nn.CrossEntropyLoss(), torch.arange(20) % 3
V = torch.linspace(-1, 1, 400).cos().reshape(200, 2)
D, Q = torch.diag(torch.arange(1.0, 41.0)), torch.eye(4)
ZERO = torch.zeros(())


def network(kind):
    torch.manual_seed(0)
    if kind == "dense":
        return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)), torch.randn(20, 5)
    if kind == "convolution":
        layers = [nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3)]
        return nn.Sequential(*layers).eval(), torch.randn(20, 1, 6, 6)
    layers = [nn.Embedding(7, 4), nn.LayerNorm(4), nn.Flatten(), nn.Linear(12, 3)]
    return nn.Sequential(*layers), torch.arange(60).reshape(20, 3) % 7


def dense(operator=cs.hessian):
    model, x = MADE["dense"]
    return operator(model, CE, [(x[:10], Y[:10]), (x[10:], Y[10:])])


MADE = {kind: network(kind) for kind in ("dense", "convolution", "embedding")}
PRODUCTS = {
    f"{operator.__name__} of {kind}": lambda made=made, operator=operator: (lambda A: A @ V[: A.shape[1]])(
        operator(made[0], CE, [(made[1], Y)])
    )
    for kind, made in MADE.items()
    for operator in (cs.hessian, cs.ggn, cs.monte_carlo_fisher, cs.gradient_second_moment)
}
IN_THE_DEFAULT_RUN = (
    "hessian of dense",
    "ggn of convolution",
    "gradient_second_moment of dense",
    "monte_carlo_fisher of embedding",
)


def in_a_run(folder):
    options = {"method": "krylov", "block_size": 2, "tol": 1e-4, "progress": False}
    cs.eigsh(D, 2, run=folder / "run", **options)
    cs.eigsh(D, 3, run=folder / "run", **options)
    opened = cs.open(folder / "run")
    return torch.cat([opened.eigenvectors.to_tensor().abs(), opened.eigenvalues[None]])


def pinned():
    problem = cs.problems.get("mnist16")
    tensors = [*problem.model().parameters(), *problem.curvature_batches()[0], *next(problem.train_batches())]
    return torch.cat([tensor.detach().reshape(-1)[:50] for tensor in tensors])


def solved(operator):
    return cs.eigsh(operator, 3, progress=False)


CALLS = PRODUCTS | {
    "to_scipy": lambda: torch.from_numpy(dense().to_scipy() @ V[:57].numpy()),
    "LowRank": lambda: solved(D).low_rank() @ V[:40],
    "spectrum": lambda: cs.eigsh(cs.problems.spectrum("power", 80), 3, progress=False).eigenvalues,
    "exact": lambda: cs.eigsh(D, 3, method="exact", progress=False).eigenvalues,
    "singular": lambda: cs.svds(np.diag(np.arange(1.0, 30.0)), 2, progress=False).S,
    "sketch": lambda: hmt(D, num_outer=8, k=3, progress=False).eigenvalues,
    "single pass": lambda: cs.seigh(D, num_outer=6, progress=False).eigenvalues,
    "certificate": lambda: cs.certify(D, solved(D), progress=False).certificate.residual_norms,
    "density": lambda: cs.density(D, num_probes=3, num_steps=5, progress=False).nodes,
    "diagonal": lambda: cs.diagonal(D, progress=False).value,
    "overlap": lambda: cs.overlap(solved(D), cs.masks.random(40)).value,
    "masks": lambda: cs.masks.from_indices([3, 1], 12).index,
    "distance": lambda: ZERO + cs.grassmann.distance(Q[:, :2], Q[:, 1:3]),
    "preflight": lambda: ZERO + cs.preflight(dense(), short=True).passed,
    "problem": pinned,
}


@pytest.mark.parametrize(
    "name",
    [
        *(pytest.param(name, marks=[] if name in IN_THE_DEFAULT_RUN else [pytest.mark.slow]) for name in PRODUCTS),
        *(name for name in CALLS if name not in PRODUCTS),
        "run",
    ],
)
def test_results_do_not_depend_on_defaults_of_pytorch(name, tmp_path):
    folders = iter([tmp_path / "first", tmp_path / "second"])
    call = CALLS.get(name) or (lambda: in_a_run(next(folders)))
    expected = call()
    with default_device("meta"), default_dtype(torch.float64):
        found = call()
    assert (found.device.type, found.dtype) == ("cpu", expected.dtype)
    torch.testing.assert_close(found, expected)
