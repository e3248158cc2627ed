"""The Python blocks of the pages that promise to run, in order, as a reader would type them."""

import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch

PAGES = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", ["index.md"])
def test_a_page_runs_from_top_to_bottom(name, capsys):
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    namespace = {}
    for number, block in enumerate(BLOCK.findall((PAGES / name).read_text()), start=1):
        exec(compile(block, f"{name}, block {number}", "exec"), namespace)
    plt.close("all")
    assert "eigenpairs" in capsys.readouterr().out
