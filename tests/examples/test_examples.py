"""Every example runs as it stands; those that take more than the core dependencies skip themselves without them."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))
OPTIONAL = {"transformers", "distributed", "lightning", "peft", "tensorboard"}


def test_they_were_found():
    assert len(EXAMPLES) >= 10


def test_several_processes_find_what_one_does(tmp_path):
    """Under the real torchrun; the eigenvalues are compared by the example itself."""
    script = str(EXAMPLES[0].with_name("several_processes.py"))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    done = subprocess.run(
        [*launcher, "--nproc-per-node", "2", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "2 processes: converged" in done.stdout
    assert float(re.search(r"differ by (\S+) of", done.stdout)[1]) < 1e-4


LONG = {"dask_cluster", "eigenpairs_of_a_cnn", "lightning_training", "lora_fine_tuning"}
"""Half a minute for starting a cluster, which tests/workers does as well; 10 to 20 seconds for each of the others."""


@pytest.mark.parametrize(
    "path", [pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * (path.stem in LONG)) for path in EXAMPLES]
)
def test_example(path, tmp_path, monkeypatch, capsys):
    text = path.read_text()
    for package in OPTIONAL & set(re.findall(r"^\s*(?:from|import) (\w+)", text, re.MULTILINE)):
        pytest.importorskip(package)
    monkeypatch.setattr(sys, "argv", [str(path), str(tmp_path)])
    monkeypatch.syspath_prepend(path.parent)  # as for any script
    runpy.run_path(str(path), run_name="__main__")
    plt.close("all")
    assert capsys.readouterr().out.strip()
    assert ("savefig" in text) == bool(list(tmp_path.glob("*.png")))
