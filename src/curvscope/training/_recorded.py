"""Training of a problem that is recorded in a folder, and resumes from it."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import nn

from curvscope.errors import InvalidArgument, RunConflict
from curvscope.operators.fingerprint import fingerprint
from curvscope.problems import Problem
from curvscope.store import write_text
from curvscope.system import Progress, checked
from curvscope.training._recorder import Recorder
from curvscope.training._sgd import train

SETTINGS, LOSSES = "training.json", "losses.json"


@checked
def train_recorded(
    problem: Problem,
    path: str | os.PathLike[str],
    *,
    steps: int,
    every: int = 100,
    seed: int | None = None,
    model: nn.Module | None = None,
    progress: Progress = None,
) -> list[float]:
    """Train a problem to step ``steps`` and record it every ``every`` steps; the same call resumes what was interrupted.

    The folder holds ``step_000100.safetensors`` and so on, see :class:`.Recorder`, and the loss of every step. Plain SGD has no
    state beside the parameters: a resumed training has the bits of one that was not interrupted, on the same number of threads.
    Data are known by their first batch: a change that does not reach it is not noticed.

    Args:
        problem: gives network, batches, criterion and learning rate.
        path: the folder.
        steps: where training ends; a larger number continues it, a smaller one leaves what was recorded beyond it.
        every: steps between two recordings, which an interruption may cost.
        seed: of initialisation and training; default the problem's.
        model: trained in place, on its device; default ``problem.model(seed)``.
        progress: see :data:`.progress.Progress`.

    Returns:
        The batch loss before each update, the one at the last step included.

    Raises:
        InvalidArgument: ``steps`` or ``every`` is not positive. RunConflict: another problem, seed, learning rate
            or data was trained there.
        NotFinite: training diverged.

    >>> import curvscope as cs, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     losses = train_recorded(cs.problems.get("mnist16"), folder, steps=2)
    >>> len(losses)
    3
    """
    for name, number in (("steps", steps), ("every", every)):
        if number < 1:
            raise InvalidArgument(f"{name}={number}: choose at least 1")
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    _check_settings(
        folder,
        {
            "problem": problem.name,
            "seed": problem.defaults.seed if seed is None else seed,
            "learning rate": problem.defaults.learning_rate,
            "data": fingerprint(*next(problem.train_batches(seed))),
        },
    )
    network = problem.model(seed) if model is None else model
    marks = sorted({0, *range(0, steps, every), steps})
    recorder = Recorder(network, marks, path=folder, resume=True)
    recorder.step(0)
    losses = json.loads((folder / LOSSES).read_text()) if (folder / LOSSES).exists() else []
    # A step counts as reached when the losses up to it are there: they are written after its parameters.
    start = max(step for step in recorder.recorded if step == 0 or step < len(losses))
    recorder.load(start, network)
    for first, last in pairwise(mark for mark in marks if mark >= start):
        segment = Recorder(network, [first, last], path=folder, resume=True)
        # A training with fewer steps than before leaves the losses of later steps, whose parameters are there.
        losses[first : last + 1] = train(problem, network, segment, seed=seed, start=first, progress=progress)
        write_text(folder / LOSSES, json.dumps(losses) + "\n")
    return losses[: steps + 1]


def _check_settings(folder: Path, settings: dict[str, Any]) -> None:
    file = folder / SETTINGS
    if not file.exists():
        if taken := sorted(folder.glob("step_*.safetensors")):
            raise RunConflict(f"{taken[0]} is of another recording: choose an empty folder")
        write_text(file, json.dumps(settings) + "\n")
        return
    found = json.loads(file.read_text())
    # Folders of earlier versions do not tell the learning rate and the data.
    differing = [name for name, value in settings.items() if name in found and found[name] != value]
    if differing:
        name = differing[0]
        raise RunConflict(
            f"{folder} holds a training with {name} {found.get(name)!r}, not {settings[name]!r}: choose another folder, or the "
            f"same {name}"
        )
