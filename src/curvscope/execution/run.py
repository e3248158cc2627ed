"""A run is a directory: a readable manifest, the results, the report."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from curvscope.errors import RunConflict, RunNotFound

MANIFEST = "manifest.json"
FORMAT = "curvscope run 1"


class Run:
    """The directory of one run. Files appear in it whole or not at all.

    >>> import tempfile
    >>> run = Run.create(Path(tempfile.mkdtemp()) / "run", kind="example", options={"k": 3})
    >>> Run.open(run.path).manifest["options"]
    {'k': 3}
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path, self.manifest = path, manifest

    @classmethod
    def create(cls, path: str | os.PathLike[str], *, kind: str, options: dict[str, Any]) -> Run:
        """Make the directory and its manifest.

        Raises:
            RunConflict: the path is a file, or a directory with something in it.
        """
        folder = Path(path)
        check_free(folder)
        folder.mkdir(parents=True, exist_ok=True)
        manifest = {
            "format": FORMAT,
            "kind": kind,
            "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
            "options": options,
            "versions": {
                "curvscope": version("curvscope"),
                "torch": version("torch"),
                "numpy": version("numpy"),
                "python": platform.python_version(),
            },
            "system": platform.platform(),
            "cores": os.cpu_count(),
        }
        run = cls(folder, manifest)
        run.write_json(MANIFEST, manifest)
        return run

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Run:
        """An existing run.

        Raises:
            RunNotFound: there is none, or its manifest cannot be read.
        """
        folder = Path(path)
        try:
            manifest = json.loads((folder / MANIFEST).read_text())
        except FileNotFoundError:
            raise RunNotFound(f"{folder} is no run (it has no {MANIFEST}): pass a directory written with --out") from None
        except json.JSONDecodeError as error:
            raise RunNotFound(f"{folder / MANIFEST} is not readable JSON ({error}): the run cannot be used") from error
        if manifest.get("format") != FORMAT:
            raise RunNotFound(f"{folder} has format {manifest.get('format')!r}, this version reads {FORMAT!r}")
        return cls(folder, manifest)

    def write_json(self, name: str, content: Any) -> Path:
        """Write ``content`` as JSON; returns the file."""
        return self.write_text(name, json.dumps(content, indent=1))

    def write_text(self, name: str, content: str) -> Path:
        """Write a text file; returns it."""
        target = self.path / name
        draft = target.with_name(f".{target.name}.{os.getpid()}.partial")
        draft.write_text(content, encoding="utf-8")
        draft.replace(target)
        return target

    def read_json(self, name: str) -> Any:
        """What :meth:`write_json` wrote; None when the run has no such file."""
        file = self.path / name
        return json.loads(file.read_text()) if file.exists() else None


def check_free(path: str | os.PathLike[str]) -> None:
    """Raise RunConflict unless ``path`` does not exist or is an empty directory."""
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise RunConflict(f"{folder} is a file: choose another directory with --out")
    if folder.is_dir() and any(folder.iterdir()):
        what = "holds another run" if (folder / MANIFEST).exists() else "is not empty"
        raise RunConflict(f"{folder} {what}: choose another directory with --out, or remove it first")
