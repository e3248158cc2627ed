"""``curvscope``: the commands, and how their errors reach a person."""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

import curvscope
from curvscope.cli import (
    _certify as certify,
    _compare as compare,
    _demo as demo,
    _density as density,
    _diagonal as diagonal,
    _eigs as eigs,
    _export as export,
    _info as info,
    _overlap as overlap,
    _plan as plan,
    _population as population,
    _probes as probes,
    _report as report,
    _show as show,
    _study as study,
    _trace as trace,
    _track as track,
    _train as train,
)
from curvscope.cli._hints import in_options, instead_of_command, instead_of_option
from curvscope.cli._launched import is_launched, run_in_all
from curvscope.cli._output import reserved_stdout, terminal
from curvscope.errors import CurvscopeError, InvalidArgument

__all__ = ["Commands", "run"]

GONE = 141
"""Exit status of a command whose output nobody reads any more, as shells have it for SIGPIPE."""


DEBUG = "--debug"


# ``ctx`` is click's context. Newer versions of Typer carry click as a private module of their own, so no one type fits all.
class Commands(TyperGroup):
    """All commands: one that is stopped says how to resume, and ``--json`` has stdout for itself."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take ``--debug`` from wherever it stands: :func:`run` looks for it."""
        return super().parse_args(ctx, [word for word in args if word != DEBUG])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that is named.

        Raises:
            InvalidArgument: there is none of this name.
        """
        if len(args) > 1 and args[0] == "help":
            args = [args[1], "-h"]
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            raise InvalidArgument(instead_of_command(args[0], self.commands))
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> object:
        """Run the command that was asked for; Ctrl-C ends it with exit status 130 and a message.

        Raises:
            InvalidArgument: the current directory was removed: then not even PyTorch can be imported.
        """
        try:
            Path.cwd()
        except FileNotFoundError:
            raise InvalidArgument("the current directory was removed: change to another one (cd) and repeat") from None
        try:
            with reserved_stdout() if "--json" in ctx.args else nullcontext():
                return super().invoke(ctx)
        except CurvscopeError as error:
            command = self.commands.get(ctx.invoked_subcommand or "")
            if error.args and isinstance(error.args[0], str) and isinstance(command, Command):
                error.args = (in_options(error.args[0], command.options()), *error.args[1:])
            raise
        except OSError as error:
            from curvscope.store import raise_if_full

            raise_if_full(error, Path(error.filename or "what was being written"))
            raise
        except KeyboardInterrupt as stopped:
            terminal(stderr=True).print(str(stopped) or "interrupted", style="yellow", highlight=False, soft_wrap=True)
            raise typer.Exit(130) from stopped


class Command(TyperCommand):
    """One command: an option that it does not have leads to the one that is meant."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words of the command line.

        Raises:
            InvalidArgument: an option that there is not.
        """
        known = {name for option in self.get_params(ctx) for name in (*option.opts, *option.secondary_opts)}
        for word in args:
            name = word.partition("=")[0]
            if word == "--":
                break
            if re.fullmatch(r"--[A-Za-z][\w-]*|-[A-Za-z]", name) and name not in known:
                raise InvalidArgument(instead_of_option(name, str(ctx.info_name), sorted(known)))
        return super().parse_args(ctx, [part for word in args for part in _parted(word)])

    def options(self) -> dict[str, str]:
        """Return the option by the name of its argument, as a person would type it."""
        return {str(option.name): option.opts[0] for option in self.params if option.opts and option.opts[0].startswith("-")}


def _parted(word: str) -> list[str]:
    """Return ``-k=3`` as ``-k`` and ``3``, as long options are read; any other word as it is.

    >>> _parted("-k=3"), _parted("--arg=width=3")
    (['-k', '3'], ['--arg=width=3'])
    """
    return [word[:2], word[3:]] if re.match(r"-[A-Za-z]=", word) else [word]


app = typer.Typer(
    cls=Commands,
    help="Loss curvature of neural networks at scale, with error bars.",
    epilog="Begin with `curvscope demo`. For a network of yours: `curvscope eigs MODULE:FUNCTION -k 10 -o RUN`, "
    "then certify, overlap, density or report with that RUN.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS = {
    "demo": demo,
    "eigs": eigs,
    "certify": certify,
    "density": density,
    "trace": trace,
    "diagonal": diagonal,
    "track": track,
    "train": train,
    "overlap": overlap,
    "compare": compare,
    "population": population,
    "report": report,
    "show": show,
    "probes": probes,
    "study": study,
    "plan": plan,
    "export": export,
    "info": info,
}
for name, module in COMMANDS.items():
    app.command(name, cls=Command)(module.command)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"curvscope {curvscope.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option(DEBUG, help="Show the traceback of an error; may stand anywhere.")] = False,
) -> None:
    """Loss curvature of neural networks at scale, with error bars."""


def run() -> None:
    """Entry point: 0 on success, 1 when a check fails, 2 on bad input, 130 when interrupted.

    Under torchrun process 0 runs the command, and all of them multiply.
    """
    if is_launched():
        sys.exit(run_in_all(_run))
    _run()


def _run() -> None:
    console = terminal(stderr=True)
    try:
        app()
        sys.stdout.flush()
    except CurvscopeError as error:
        if DEBUG in sys.argv:
            traceback.print_exc()
        console.print(Text("error:", style="bold red"), str(error), highlight=False, soft_wrap=True)
        for note in getattr(error, "__notes__", ()):
            console.print(note, highlight=False, soft_wrap=True)
        sys.exit(2)
    except BrokenPipeError:
        _end_silently()
    except OSError as error:
        if error.errno == errno.EIO and not _can_be_seen():
            _end_silently()
        what = f"{error.filename}: {error.strerror}" if error.filename is not None else str(error)
        console.print(Text("error:", style="bold red"), what, highlight=False, soft_wrap=True)
        sys.exit(2)


def _can_be_seen() -> bool:
    """Return whether standard output still leads somewhere."""
    try:
        return os.write(1, b"") == 0
    except OSError:
        return False


def _end_silently() -> None:
    """Whoever read the output is gone, as in ``| head``, or the terminal was closed: what was computed is kept."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nothing, stream)
    sys.exit(GONE)
