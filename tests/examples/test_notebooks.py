"""The notebooks are the examples, and run from top to bottom without a screen."""

import importlib.util
from pathlib import Path

import nbclient
import nbformat
import pytest

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("make_notebooks", ROOT / "docs" / "make_notebooks.py")
notebooks = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(notebooks)
QUICK = {"low_rank_laplace"}


def test_every_example_is_a_notebook():
    kept = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "examples" / "notebooks").glob("*.ipynb")}
    assert kept == {path.stem: notebooks.text(path) for path in notebooks.scripts()}, "run python docs/make_notebooks.py"


@pytest.mark.parametrize(
    "script",
    [pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * (path.stem not in QUICK)) for path in notebooks.scripts()],
)
def test_a_notebook_runs(script, tmp_path):
    notebook = notebooks.notebook(script)
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert any(output.output_type == "stream" and output.name == "stdout" for output in outputs)
    drawn = any("image/png" in output.get("data", {}) for output in outputs)
    assert drawn == ("savefig" in script.read_text())
    nbformat.validate(notebook)
