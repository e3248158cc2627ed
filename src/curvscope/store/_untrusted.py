"""Files that a stranger may have written: what is checked before anything of them is used.

A run, a recording or a checkpoint is a folder that one downloads. Its files name other files, so a name must never lead out
of the folder; its folders may hold links and pipes, so nothing is followed and nothing waits; its texts reach the terminal, so
control characters do not.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from curvscope.errors import CurvscopeError, DamagedData

LONGEST_NAME = 200
"""Bytes of a file's name in a run, at most: file systems allow 255, and what we add to a name needs some of them."""
LARGEST_TABLE = 1 << 30
"""Bytes of a file that is read as one text, at most: the table of 10^6 pairs has 60 MB."""


def checked_name(name: Any, where: Path) -> str:
    """Return ``name`` if it is a plain file name, such as ``0.zarr``; ``where`` names the file that it was read from.

    Raises:
        DamagedData: it is a path, a reserved name, too long, or no text: a file of that name could lie outside of the run.

    >>> checked_name("0.zarr", Path("state.record"))
    '0.zarr'
    >>> checked_name("../thesis", Path("state.record"))
    Traceback (most recent call last):
    curvscope.errors.DamagedData: state.record names the file '../thesis': expected a plain name. Do not use this run
    """
    plain = (
        isinstance(name, str)
        and name not in ("", ".", "..")
        and not set(name) & set("/\\:\0")
        and name.isprintable()
        and len(name.encode(errors="replace")) <= LONGEST_NAME
    )
    if not plain:
        raise DamagedData(f"{where} names the file {shown(name)}: expected a plain name. Do not use this run")
    return str(name)


def shown(value: Any, most: int = 80) -> str:
    r"""Return a value from a file as it may stand in a message: escaped, and cut where it is long.

    >>> shown("a" * 100, most=10), shown("\x1b[31mred")
    ("'aaaaaaaaa... (102 characters)", "'\\x1b[31mred'")
    """
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"


def printable(text: str) -> str:
    r"""Return a text with its control characters escaped, so that a terminal shows them instead of obeying them.

    Line ends and tabs stay. Escaped as well: characters that change the direction of a line.

    >>> printable("top\x1b]0;title\x07\n"), printable("Übergröße µ")
    ('top\\x1b]0;title\\x07\n', 'Übergröße µ')
    """
    if text.isprintable():
        return text
    return "".join(c if _is_harmless(c) else c.encode("unicode_escape").decode() for c in text)


def _is_harmless(character: str) -> bool:
    return character.isprintable() or character in "\n\t" or unicodedata.category(character) == "Zs"


def check_folder(folder: Path) -> None:
    """Make sure that a folder holds files and folders only, all the way down.

    Raises:
        DamagedData: something in it is a link, a pipe, a socket or a device; the first of them is named.

    Cost: one look at each directory entry, no file is opened. ``folder`` itself may be a link: its owner named it.
    """
    waiting = [str(folder)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif not entry.is_file(follow_symlinks=False):
                    kind = "a link" if entry.is_symlink() else "a pipe, a socket or a device"
                    raise DamagedData(
                        f"{printable(entry.path)} is {kind}: a run holds files and folders alone, nothing is followed out of "
                        "it. Put the file itself in its place, or do not use this run"
                    )


def open_plain(file: Path) -> BinaryIO:
    """Open a regular file for reading, unbuffered; a pipe or a link in its place is refused instead of waited for.

    Raises:
        DamagedData: it is a link, a pipe, a socket or a device. OSError: as usual, such as FileNotFoundError.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0))
    except OSError as error:
        if file.is_symlink():
            raise DamagedData(f"{printable(str(file))} is a link: nothing is followed out of a run") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DamagedData(
            f"{printable(str(file))} is no regular file: put the file itself in its place, or do not use this run"
        )
    return os.fdopen(descriptor, "rb", buffering=0)


def read_plain(file: Path, most: int = LARGEST_TABLE) -> bytes:
    """Return the content of a regular file.

    Raises:
        DamagedData: it is something else, see :func:`open_plain`, or longer than ``most`` bytes.
    """
    with open_plain(file) as stream:
        if (size := os.fstat(stream.fileno()).st_size) > most:
            raise DamagedData(f"{file} has {size} bytes: at most {most} are read of such a file")
        return stream.read() or b""


@contextmanager
def parsing(source: Path | str) -> Iterator[None]:
    """Inside, what fails because a file holds other things than we write is the file's fault, and is said so.

    A checksum does not help against a file that someone made on purpose: keys may be missing, numbers may be texts.

    Raises:
        DamagedData: something was missing, or of another kind.

    >>> with parsing("solution.json"):
    ...     {}["eigenvalues"]
    Traceback (most recent call last):
    curvscope.errors.DamagedData: solution.json holds something else than we write (KeyError: 'eigenvalues'): do not use it
    """
    try:
        yield
    except CurvscopeError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {str(error)[:200]}"
        raise DamagedData(
            f"{printable(str(source))} holds something else than we write ({printable(reason)}): do not use it"
        ) from error
