"""The README shows what its first example prints."""

import contextlib
import io
import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text()
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def test_the_first_example_prints_what_is_shown():
    code, shown = re.search(r"```python\n(.*?)```\n```text\n(.*?)```", README, re.DOTALL).groups()
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    assert NUMBER.sub("#", printed.getvalue().strip()) == NUMBER.sub("#", shown.strip())
    pairs = [line for line in shown.splitlines() if re.match(r" +\d+ ", line)]
    values = [float(line.split()[1]) for line in pairs]
    found = [float(line.split()[1]) for line in printed.getvalue().splitlines() if re.match(r" +\d+ ", line)]
    assert found == pytest.approx(values, rel=1e-3)  # tol of the solve: processors round differently
    assert len(values) == 5


def test_set_up_takes_one_command_each():
    commands = re.findall(r"^python3 -m venv .*", README, re.MULTILINE)
    assert len(commands) == 2
    assert [command.split()[-1] for command in commands] == ["demo", "2"]
