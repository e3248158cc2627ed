"""What a study is, and how it is run: stage by stage, each stage's result kept, figures and a page made from the results."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from torch import Tensor

from curvscope.errors import CurvscopeError, Interrupted, InvalidArgument
from curvscope.report import Document, render, save_figures
from curvscope.store import LOCK, MANIFEST, Run, read_sealed_tensors, remove, write_tensors
from curvscope.system import Progress

KIND = "study"
NUMBERS, PAGE, FIGURES, STAGES = "numbers.json", "report.html", "figures", "stages"
Config = Any
"""A frozen dataclass of plain values."""


class Stages:
    """The results of a study's stages in its run's directory; what is there is not computed again.

    Args:
        run: where.
        progress: for the stages' work.
    """

    def __init__(self, run: Run, progress: Progress = None) -> None:
        self.run, self.progress = run, progress
        (run.path / STAGES).mkdir(exist_ok=True)

    def numbers(self, name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The stage's numbers, computed or read back; plain JSON either way."""
        file = f"{STAGES}/{name}.json"
        if (found := self.run.read_json(file)) is None:
            self.run.write_sealed(file, compute())
            found = self.run.read_json(file)
        return dict(found)

    def tensors(self, name: str, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """The stage's tensors, computed or read back."""
        file = self.run.path / STAGES / f"{name}.safetensors"
        if not file.exists():
            write_tensors(file, compute(), self.run.mark)
        return read_sealed_tensors(file, self.run.mark)


@dataclass(frozen=True)
class Study:
    """An experiment of a paper: configuration in; numbers, figures and a page out.

    Attributes:
        name: as in ``curvscope study NAME``.
        title: one line.
        shows: which of the paper's figures and tables; the page contains each of them, see :func:`.items`.
        presets: configurations by name; "quick" and "paper".
        takes: how long each takes on two cores, as measured, by preset.
        measure: does the work: (stages, config, data directory or None) to plain numbers.
        document: makes the page from the numbers alone.
    """

    name: str
    title: str
    shows: str
    presets: Mapping[str, Config]
    takes: Mapping[str, str]
    measure: Callable[[Stages, Config, Path | None], dict[str, Any]]
    document: Callable[[dict[str, Any]], Document]

    def config(self, preset: str) -> Config:
        """A preset's configuration.

        Raises:
            InvalidArgument: there is no such preset.
        """
        if preset not in self.presets:
            raise InvalidArgument(f"preset={preset!r}: {self.name} has {', '.join(self.presets)}")
        return self.presets[preset]


def run_study(
    study: Study,
    out: str | os.PathLike[str],
    *,
    preset: str = "quick",
    data: str | os.PathLike[str] | None = None,
    config: Config | None = None,
    progress: Progress = None,
) -> Document:
    """Run a study in a directory, or resume it there; stages that are done are not done again.

    Writes the numbers as ``numbers.json``, the figures as PNG, SVG and PDF into ``figures``, and the page as ``report.html``.

    Args:
        study: which.
        out: the directory, new, empty, or of an interrupted run of the same study with the same options.
        preset: "quick" or "paper".
        data: directory with the full data set, for studies on data; None: the packaged part.
        config: instead of the preset's.
        progress: see :data:`.progress.Progress`.

    Raises:
        RunConflict: the directory holds something else, which is named, or another process works there.
        Interrupted: by Ctrl-C; says how to resume.
    """
    chosen = study.config(preset) if config is None else config
    place = None if data is None else Path(data).resolve()
    options = {"study": study.name, "preset": preset, "data": place and str(place), "config": asdict(chosen)}
    run = Run.resume(out, kind=KIND, options=json.loads(json.dumps(options)))
    is_new, begun = not (run.path / MANIFEST).exists(), False
    try:
        with run.session(KIND, at_once=True):  # what a stage gives is written whole: Ctrl-C need not wait for its end
            begun = True
            numbers = {"study": study.name, "preset": preset, **study.measure(Stages(run, progress), chosen, place)}
            run.write_json(NUMBERS, numbers)
            document = study.document(numbers)
            save_figures(document, run.path / FIGURES, dpi=300, vector=True)
            run.write_text(PAGE, render(document))
            return document
    except KeyboardInterrupt as stopped:
        raise Interrupted(
            f"stopped; the stages that are done are in {run.path}: the same command resumes after them"
        ) from stopped
    except CurvscopeError:
        if begun and is_new and not any((run.path / STAGES).iterdir()):  # refused before any work: the folder is free again
            for name in (STAGES, MANIFEST, LOCK):
                remove(run.path / name)
        raise


def published(name: str) -> dict[str, Any]:
    """Numbers of the paper, packaged: "mnist16" or "table2"."""
    return dict(json.loads((files("curvscope.studies") / "published" / f"{name}.json").read_text()))
