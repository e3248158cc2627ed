import pytest
from typer.testing import CliRunner

from curvscope.cli.main import app
from curvscope.errors import CurvscopeError


class Outcome:
    """What a person at the terminal would see of one command."""

    def __init__(self, result):
        self.output, self.error = result.output, result.exception if isinstance(result.exception, CurvscopeError) else None
        self.status = 2 if self.error else result.exit_code
        if result.exception and not self.error and not isinstance(result.exception, SystemExit):
            raise result.exception


@pytest.fixture
def curvscope(tmp_path, monkeypatch):
    """Run a command in an empty directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def run(*arguments):
        return Outcome(CliRunner().invoke(app, [str(argument) for argument in arguments]))

    return run
