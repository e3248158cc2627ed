"""Wrong values of the commands' path, choice, text and list options: refused in one line, exit status 2.

Held: refused in one line, no traceback, and nothing was written. Fell: anything else.
"""

import contextlib
import inspect
import itertools
import os
import sys
import tempfile
from pathlib import Path

from typer.testing import CliRunner

from curvscope.cli.main import COMMANDS, app
from curvscope.errors import CurvscopeError

TARGET = "import torch\n\ndef matrix():\n    return torch.diag(torch.arange(1.0, 9.0))\n"
GOOD = {
    "demo": ["--out", "new"],
    "eigs": ["--target", "experiment:matrix", "-k", "2", "--out", "new"],
    "plan": ["--target", "experiment:matrix", "-k", "2"],
    "density": ["--target", "experiment:matrix"],
    "trace": ["--target", "experiment:matrix"],
    "track": ["--problem", "mnist16", "--steps", "1", "--out", "new"],
    "study": ["mnist16", "--out", "new"],
    "export": ["run", "--format", "numpy"],
    "certify": ["run"],
    "overlap": ["run"],
    "report": ["run"],
    "info": ["run"],
}
LONG = "a" * 300  # file systems allow 255
PATHS = {
    "run": ("missing", "file", "folder", "", LONG),
    "out": ("file", "file/below", "/proc/nothing", LONG),
    "": ("missing", "file/below", LONG),
}
TEXTS = ("nonsense", "", "\x1b[31m", LONG)
PAIRS = (["x", "1"], ["2", "1"], ["nan", "1"])


def options(command):
    """(name, flag or "" for an argument, kind) of each path, text or list option."""
    for parameter in inspect.signature(COMMANDS[command].command, eval_str=True).parameters.values():
        base = getattr(parameter.annotation, "__origin__", parameter.annotation)
        items = getattr(parameter.annotation, "__metadata__", ())
        # Typer keeps the first name of an annotated option as its "default".
        names = [(getattr(item, "default", None), *(getattr(item, "param_decls", None) or ())) for item in items]
        flags = [flag for flag in itertools.chain(*names) if isinstance(flag, str) and flag.startswith("-")]
        argument = any(type(item).__name__ == "ArgumentInfo" for item in items)
        long = [flag for flag in flags if flag.startswith("--")]  # good lines have the long forms
        flag = "" if argument else [*long, *flags][0] if flags else f"--{parameter.name.replace('_', '-')}"
        text = str(base)
        kind = (
            "path"
            if "Path" in text
            else "pair"
            if "tuple" in text
            else "list"
            if "list" in text
            else "text"
            if "str" in text
            else ""
        )
        if kind:
            yield parameter.name, flag, kind


def lines():
    """(name of the option, its wrong value, command line), for each option of each command."""
    for command in COMMANDS:
        for name, flag, kind in options(command):
            good = list(GOOD.get(command, []))
            if flag in good:
                del good[good.index(flag) : good.index(flag) + 2]
            if flag == "" and good and not good[0].startswith("-"):
                good.pop(0)
            if flag == "--problem" and "--target" in good:
                del good[good.index("--target") : good.index("--target") + 2]
            for value in PAIRS if kind == "pair" else PATHS.get(name, PATHS[""]) if kind == "path" else TEXTS:
                given = value if isinstance(value, list) else [value]
                yield flag or name, given, [command, *([flag] if flag else []), *given, *good]


def told(line):
    """What a command says: None if it is as it should be, else what is not."""
    result = CliRunner().invoke(app, line)
    error = result.exception
    if result.exit_code == 0:
        return "exit status 0"
    if isinstance(error, CurvscopeError | OSError):
        text = str(error)
    elif isinstance(error, SystemExit) and result.exit_code == 2:
        return None  # click's own: usage, then one line in a box
    else:
        return f"{type(error).__name__}: {str(error)[:200]}"
    return None if "\n" not in text and len(text) < 1000 and "\x1b" not in text else f"message: {text[:300]!r}"


@contextlib.contextmanager
def place():
    """A folder to work in, with a target, a file and a folder that is no run."""
    before, modules = Path.cwd(), sys.modules.pop("experiment", None)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("experiment.py").write_text(TARGET)
        Path("file").write_text("text")
        Path("folder").mkdir()
        Path("folder/thesis.txt").write_text("mine")
        try:
            yield Path(folder)
        finally:
            os.chdir(before)
            sys.modules.pop("experiment", None)
            if modules is not None:
                sys.modules["experiment"] = modules


def files():
    return sorted(str(path) for path in Path().rglob("*") if "__pycache__" not in str(path))


def findings(whole):
    """(command line, None or what came instead)."""
    with place():
        CliRunner().invoke(app, ["eigs", "--target", "experiment:matrix", "-k", "2", "--out", "run"])
        before = files()
        for _, _, line in itertools.islice(lines(), 0, None, 1 if whole else 5):
            found = told(line)
            if found is None and files() != before:
                found = f"wrote {set(files()) - set(before)}"
                before = files()
            yield " ".join(part[:60] for part in line), found


def cases(whole=False):
    """(name, held) for each wrong value."""
    for label, found in findings(whole):
        yield label, found is None
