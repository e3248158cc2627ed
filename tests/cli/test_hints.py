"""Words of other tools lead to the right ones, messages are in the words of the command line, and help is there at once."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from curvscope.cli import _hints as hints, _names as names
from curvscope.cli._workers import CLUSTERS
from curvscope.cli.main import COMMANDS, app, run
from curvscope.errors import CurvscopeError, InvalidArgument
from curvscope.estimators import METHODS as ESTIMATORS
from curvscope.parallel import BATCH_SYSTEMS
from curvscope.runs import MASKS, MATRICES, PRECISIONS
from curvscope.solvers import METHODS as SOLVERS
from curvscope.solvers.results import WRITERS

MODULE = """
import torch
import curvscope as cs

def matrix():
    return torch.diag(torch.tensor([4.0, -3.0, 2.0, 1.0]))

def wrong():
    operator = torch.eye(3)
    return cs.eigsh(operator, k=5)

def broken():
    raise KeyError("lr")
"""


@pytest.mark.parametrize(
    ("written", "known"),
    [
        (names.SOLVERS, SOLVERS),
        (names.ESTIMATORS, ESTIMATORS),
        (names.MATRICES, MATRICES),
        (names.PRECISIONS, PRECISIONS),
        (names.MASKS, MASKS),
        (names.FORMATS, WRITERS),
        (CLUSTERS, BATCH_SYSTEMS),
    ],
)
def test_names_in_the_help_are_those_of_the_library(written, known):
    assert written == ", ".join(known)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("diff", "a", "b"), "there is no command 'diff': write curvscope compare"),
        (("eigsh", "m:f"), "there is no command 'eigsh': write curvscope eigs"),
        (("experiment:make", "-k", 5), "write curvscope eigs experiment:make"),
        (("exprt", "run"), "did you mean export?"),
        (("qwertz",), "choose one of demo, eigs"),
        (("eigs", "m:f", "--topk", 3), "eigs has no option --topk: write -k"),
        (("eigs", "m:f", "-n", 3), "write -k"),
        (("eigs", "m:f", "--max_products=3"), "write --max-products"),
        (("eigs", "m:f", "--maxiter", 3), "write --max-products"),
        (("eigs", "m:f", "--gpu"), "write --device cuda"),
        (("eigs", "m:f", "--quiet"), "> /dev/null"),
        (("eigs", "m:f", "--resume"), "the same command resumes"),
        (("eigs", "m:f", "--see", 3), "did you mean --seed?"),
        (("overlap", "r", "--with", "s"), "a second RUN without an option"),
        (("trace", "m:f", "--num-probes", 3), "trace has no option --num-probes: `curvscope trace -h` lists them"),
        (("density", "m:f", "--num-probes", 3), "density has no option --num-probes: write --probes"),
        (("help", "nothing"), "there is no command 'nothing'"),
        (("info", "--output", "x"), "`curvscope info -h` lists them"),
    ],
)
def test_words_of_other_tools_lead_to_the_right_ones(curvscope, words, told):
    refused = curvscope(*words)
    assert isinstance(refused.error, InvalidArgument)
    assert told in str(refused.error)


def test_every_hint_names_a_command_or_an_option_that_there_is():
    for written in hints.COMMANDS.values():
        assert written.split()[0].rstrip(",") in {*COMMANDS, "-h", "--version"}, written
    from typer.main import get_command

    commands = get_command(app).commands
    known = {name for command in commands.values() for option in command.params for name in option.opts} | {"--debug"}
    for written, others in hints.OPTIONS.items():
        if written.startswith("-"):
            assert written.split()[0].rstrip(",") in known, written
        assert all(other.startswith("-") for other in others)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--which", "XX"), "--which 'XX': choose"),
        (("-k", 0), "-k 0: choose an integer"),
        (("--tol", -1), "--tol -1.0: choose"),
        (("--max-products", 0), "--max-products 0"),
        (("--memory", "much"), "--memory 'much'"),
    ],
)
def test_messages_name_options(curvscope, tmp_path, words, told):
    (tmp_path / "messages.py").write_text(MODULE)
    refused = curvscope("eigs", "messages.py:matrix", *(() if "-k" in words else ("-k", 2)), *words)
    sys.modules.pop("messages", None)
    assert refused.status == 2
    assert told in str(refused.error)


def test_other_spellings_of_what_there_is(curvscope, tmp_path):
    (tmp_path / "spelled.py").write_text(MODULE)
    assert curvscope("eigs", "spelled.py:matrix", "-k=2", "-o=run", "--seed=1").status == 0
    sys.modules.pop("spelled", None)
    assert (tmp_path / "run" / "manifest.json").exists()
    assert curvscope("help", "eigs").output == curvscope("eigs", "--help").output


def test_names_of_other_things_stay():
    known = {"k": "-k", "max_products": "--max-products", "tol": "--tol"}
    for message in ("top_k=3 stays", "cs.eigsh(A, k=n)", "`max_products` of it", "parameter 'tol'", "lock=1"):
        assert hints.in_options(message, known) == message
    assert hints.in_options("tol=0.1: raise max_products", known) == "--tol 0.1: raise --max-products"


@pytest.fixture
def entered(tmp_path, monkeypatch, capsys):
    """Enter the program by its entry point in this process: exit status and what is on standard error."""

    def enter(*words):
        (tmp_path / "shown.py").write_text(MODULE)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["curvscope", *words])
        with pytest.raises(SystemExit) as ended:
            run()
        sys.modules.pop("shown", None)
        return ended.value.code, capsys.readouterr().err

    return enter


def test_tracebacks_are_shown_on_request_alone(entered, tmp_path):
    told = f"error: target 'shown:broken': calling it failed at {tmp_path}/shown.py, line 13: KeyError: 'lr'\n"
    assert entered("eigs", "shown:broken") == (2, told)
    for words in (("--debug", "eigs", "shown:broken"), ("eigs", "shown:broken", "--debug")):
        status, traced = entered(*words)
        assert status == 2
        assert "Traceback (most recent call last)" in traced
        assert 'raise KeyError("lr")' in traced


def test_an_error_of_ours_in_the_users_function_says_where(tmp_path):
    (tmp_path / "shown.py").write_text(MODULE)
    words = [sys.executable, "-m", "curvscope", "eigs", "shown:wrong"]
    told = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert told.returncode == 2
    assert "Traceback" not in told.stderr
    assert "choose an integer from 1 to D = 3" in told.stderr
    assert f"raised by target 'shown:wrong' at {tmp_path}/shown.py, line 10" in told.stderr


def test_help_and_completion_do_not_import_pytorch():
    program = f"""
import sys
from typer.testing import CliRunner
from curvscope.cli.main import app

for words in [["--help"], ["--version"], [], *([name, "--help"] for name in {list(COMMANDS)})]:
    told = CliRunner().invoke(app, words)
    assert told.exit_code in (0, 2), (words, told.output)
asked = {{"_CURVSCOPE_COMPLETE": "complete_bash", "COMP_WORDS": "curvscope eigs --ma", "COMP_CWORD": "2"}}
assert "--matrix" in CliRunner().invoke(app, [], env=asked, prog_name="curvscope").output
heavy = {{"torch", "numpy", "scipy", "matplotlib", "zarr", "omegaconf", "distributed"}} & set(sys.modules)
assert not heavy, heavy
import curvscope
assert curvscope.eigsh and "torch" in sys.modules
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr


def test_the_namespace_is_whole_from_the_start():
    program = """
import curvscope as cs
from curvscope import eigsh, masks
assert cs.training.lightning_callback and cs.operators.Recipe and cs.errors.InvalidArgument and cs.__version__
assert cs.eigsh is eigsh and "eigsh" in vars(cs) and {"hessian", "training", "__doc__"} <= set(dir(cs))
try:
    cs.eigsch
except AttributeError as error:
    assert "eigsh" in str(error)
from curvscope import *
assert hessian is cs.hessian
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr


def test_a_current_directory_that_was_removed_is_told(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    result = CliRunner().invoke(app, ["info", "run"])
    assert isinstance(result.exception, CurvscopeError)
    assert "current directory was removed" in str(result.exception)
