"""Whether the code that a run names may be executed: of one's own runs it may, of others somebody is asked."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from pathlib import Path

import typer

from curvscope.errors import InvalidArgument
from curvscope.store import Run, printable, shown


def confirm_trust(run: Run, *, trust: bool) -> None:
    """Make sure that the person at the command line wants what a run names to be executed.

    A run names its operator by ``module:function``, which is imported and called, or by a model that is loaded from elsewhere.
    In a run from a stranger both are a stranger's choice. Nobody is asked about a run that ``curvscope eigs`` made in this
    place, from this directory, with this name: see :func:`remember`.

    Why this is safe: the note lies in the user's own state directory and says that this user typed this very name in this
    directory. Code that a stranger names is not noted, and a run that is copied, moved or exchanged has no note. Whoever can
    write a note, or the module in that directory, can run code as the user anyway. Limit: another version of the module in that
    directory is executed, as it would be by ``curvscope eigs``; values that differ are refused afterwards.

    Args:
        run: the run.
        trust: ``--trust`` was given.

    Raises:
        InvalidArgument: nobody said yes.
    """
    name = _executed(run)
    if name is None or trust or _note(run, name).exists():
        return
    kind = "load the model" if run.manifest["options"].get("target") is None else "import and call"
    place = printable(str(run.path))
    asked = f"{place} says: {kind} {shown(name)} (looked for in {Path.cwd()} first). That code can do anything that you can"
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise InvalidArgument(f"{asked}: pass --trust if you know where this run comes from")
    if not typer.confirm(f"{asked}. Go ahead?", err=True):
        raise InvalidArgument("nothing was imported or called")


def remember(run: Run) -> None:
    """Note that this user typed what a run names: an empty file of a telling name, in the user's own state directory.

    It tells path, directory, name and time of the run. A run that was copied, moved or exchanged is another one.
    """
    if (name := _executed(run)) is not None:
        with contextlib.suppress(OSError):  # a home that cannot be written to: the person is asked
            note = _note(run, name)
            note.parent.mkdir(parents=True, exist_ok=True)
            note.touch()


def _executed(run: Run) -> str | None:
    """Return what using a run would execute: a function's name, or a model's; None for the problems of this package."""
    options = run.manifest["options"]
    target, problem = options.get("target"), options.get("problem")
    if target is not None:
        return str(target)
    return problem if isinstance(problem, str) and ":" in problem else None


def _note(run: Run, name: str) -> Path:
    facts = [str(run.path.resolve()), str(Path.cwd()), name, run.manifest["created"]]
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "curvscope" / "runs" / hashlib.sha256(json.dumps(facts).encode()).hexdigest()
