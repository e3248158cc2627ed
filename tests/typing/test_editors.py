"""What an editor and a type checker show in a user's own project: the README's lines pass, wrong choices do not."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from curvscope.estimators import RULES
from curvscope.sketches import KINDS, SketchKind

HERE = Path(__file__).parent
README = (HERE.parents[1] / "README.md").read_text()


@pytest.fixture
def project(tmp_path):
    """A folder with the README's lines as a script, and our files of choices and results."""
    (tmp_path / "readme.py").write_text("\n".join(re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)))
    for name in ("choices.py", "public_face.py"):
        (tmp_path / name).write_text((HERE / name).read_text())
    (tmp_path / "pyrightconfig.json").write_text('{"typeCheckingMode": "standard"}')
    return tmp_path


def wrong_lines(file):
    return {number for number, line in enumerate(file.read_text().splitlines(), 1) if line.endswith("# wrong")}


def by_pyright(project):
    """Line numbers with errors, by file."""
    command = [sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable, "--outputjson", "--level", "error"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=300)
    found = {}
    for error in json.loads(done.stdout)["generalDiagnostics"]:
        found.setdefault(Path(error["file"]).name, set()).add(error["range"]["start"]["line"] + 1)
    return found


def by_mypy(project):
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--no-error-summary",
        *sorted(path.name for path in project.glob("*.py")),
    ]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=500)
    found = {}
    for file, number in re.findall(r"^(\w+\.py):(\d+): error:", done.stdout, re.MULTILINE):
        found.setdefault(file, set()).add(int(number))
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return found


@pytest.mark.parametrize("checker", [by_pyright, pytest.param(by_mypy, marks=pytest.mark.slow)])
def test_the_readme_passes_and_wrong_choices_do_not(checker, project):
    wrong = wrong_lines(project / "choices.py")
    assert len(wrong) > 30
    assert checker(project) == {"choices.py": wrong}


def test_types_and_tables_have_the_same_choices():
    assert set(get_args(SketchKind)) == set(KINDS)
    assert RULES == ("gap", "ratio", "elbow")
