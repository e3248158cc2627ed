"""The Python blocks of every page and of the README run in order, in one namespace, as a reader would type them.

What a page takes as given is in :func:`given`; a page that needs more has it in a comment that begins ``<!-- for the test``.
A block that begins with ``# NAME.py`` is that file. A block that imports another library runs where that is installed.
"""

import re
import sys
import textwrap
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import nn

import curvscope as cs

ROOT = Path(__file__).parents[2]
FENCED = r"^(?P<indent> *)```python\n(?P<code>.*?)^(?P=indent)```$"
HIDDEN = r"^<!-- for the test[^\n]*\n(?P<hidden>.*?)^-->$"
BLOCK = re.compile(f"{FENCED}|{HIDDEN}", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"# (\w+\.py)\b")
OTHERS = {"scipy", "curvlinops", "pyhessian", "hessian_eigenthings", "skerch"}  # their warnings are theirs
OPTIONAL = {"transformers", "distributed", *OTHERS}
PAGES = [page for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))] if "```python" in page.read_text()]


def blocks(page):
    """The code of a page in order, hidden code among it; and whether it is one of several tabs."""
    return [
        (textwrap.dedent(found["code"] or found["hidden"]), bool(found["indent"])) for found in BLOCK.finditer(page.read_text())
    ]


def given():
    """A network of the reader's with its data, and the names that every page uses."""
    model = nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 4))
    loader = [(torch.randn(50, 12), torch.randint(4, (50,))) for _ in range(2)]
    criterion = nn.CrossEntropyLoss()
    H = cs.hessian(model, criterion, loader)
    names = {"torch": torch, "np": np, "nn": nn, "plt": plt, "cs": cs, "model": model, "criterion": criterion, "loader": loader}
    return {"__name__": "__main__", **names, "H": H, "solution": cs.eigsh(H, k=12, method="krylov", tol=1e-5)}


def test_pages_were_found():
    assert len(PAGES) >= 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with ThreadPoolExecutor(1) as pool:  # in the place of processes, which would cost seconds each
        monkeypatch.setattr(cs.Workers, "processes", lambda count, **options: cs.Workers(pool, count=1))
        namespace = given()
        for number, (code, in_tab) in enumerate(blocks(page), start=1):
            if named := NAMED.match(code):
                (tmp_path / named[1]).write_text(code)
                monkeypatch.delitem(sys.modules, Path(named[1]).stem, raising=False)  # another page's of that name
                continue
            try:
                with warnings.catch_warnings():
                    if OTHERS & set(re.findall(r"^import (\w+)", code, re.MULTILINE)):
                        warnings.simplefilter("ignore")
                    exec(compile(code, f"{page.name}, block {number}", "exec"), dict(namespace) if in_tab else namespace)
            except ModuleNotFoundError as missing:
                if missing.name not in OPTIONAL:
                    raise
            except TypeError as error:  # skerch 1.2 with real tensors and torch 2.15
                if "skerch" not in code or "imag" not in str(error):
                    raise
    plt.close("all")
