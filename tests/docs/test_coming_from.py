"""The tabs of docs/coming-from.md beside each other: the same task gives the same numbers in every library."""

import re
import textwrap
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import curvscope as cs

PAGE = (Path(__file__).parents[2] / "docs" / "coming-from.md").read_text()
TAB = re.compile(r'^=== "(?P<library>[^"]+)"\n\n    ```python\n(?P<code>.*?)^    ```$', re.MULTILINE | re.DOTALL)


OTHERS = {"pyhessian", "hessian_eigenthings", "skerch"}
"""Libraries that the tests do without."""


def tabs(heading):
    """The code of a section's tabs, by library."""
    section = PAGE[PAGE.index(f"## {heading}") :].split("\n## ")[0]
    return {found["library"]: textwrap.dedent(found["code"]) for found in TAB.finditer(section)}


@pytest.fixture
def setting():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))
    loader = [(torch.randn(30, 6), torch.randint(3, (30,))) for _ in range(2)]
    criterion = nn.CrossEntropyLoss()
    H = cs.hessian(model, criterion, loader)
    return {"model": model, "loader": loader, "criterion": criterion, "cs": cs, "torch": torch, "H": H}


def run(code, setting):
    names = dict(setting)
    missing = [
        name
        for name in re.findall(r"^import (\w+)", code, re.MULTILINE)
        if name in ("pyhessian", "hessian_eigenthings", "skerch")
    ]
    for name in missing:
        pytest.importorskip(name)
    with warnings.catch_warnings():
        if "import " in code:
            warnings.simplefilter("ignore")
        exec(compile(code, "coming-from.md", "exec"), names)
    return names


SLOW = pytest.param("PyHessian", marks=pytest.mark.slow)


@pytest.mark.parametrize("library", [SLOW, "curvlinops and SciPy", "hessian-eigenthings"])
def test_the_same_eigenvalues(library, setting):
    ours = run(tabs("Top eigenpairs of the Hessian")["curvscope"], setting)["values"]
    theirs = run(tabs("Top eigenpairs of the Hessian")[library], setting)["values"]
    theirs = np.sort(np.abs(np.asarray(theirs, dtype=float)))[::-1]
    # power iteration stops on the change of the value, and Lanczos without restart misses pairs (from the sixth on, here)
    few = 10 if "SciPy" in library else 3
    np.testing.assert_allclose(theirs[:few], np.abs(ours.numpy())[:few], rtol=2e-2 if few == 3 else 1e-3)


def test_the_same_eigenvalues_by_a_sketch(setting):
    """A sketch of a Hessian of 163 parameters is off by its bulk: here the matrix is one that sketches are for."""
    A = cs.problems.spectrum("power", 300, rank=20, decay=3.0, dtype=torch.float32)
    theirs = run(tabs("Top eigenpairs of the Hessian")["skerch"], setting | {"H": A})["values"]
    np.testing.assert_allclose(np.asarray(theirs)[:8], cs.eigsh(A, k=8).eigenvalues.numpy(), rtol=1e-2)


@pytest.mark.parametrize("library", [SLOW, "curvlinops"])
def test_the_same_trace(library, setting):
    ours = run(tabs("Trace and density")["curvscope"], setting)["value"]
    theirs = float(run(tabs("Trace and density")[library], setting)["value"])
    assert theirs == pytest.approx(float(ours), abs=1.0)
    exact = float(setting["H"].to_dense().trace())
    assert abs(float(ours) - exact) <= 4 * ours.stderr


def test_the_page_has_these_tabs():
    assert next(iter(tabs("Top eigenpairs of the Hessian"))) == "curvscope"
    assert {"PyHessian", "curvlinops"} < set(tabs("Trace and density"))
