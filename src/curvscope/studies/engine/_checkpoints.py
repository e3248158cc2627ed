"""Checkpoints of a study: recorded along training that resumes where it was interrupted, or taken from an earlier recording."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

from curvscope.errors import RunNotFound
from curvscope.problems import Problem
from curvscope.studies.engine._study import Stages
from curvscope.training import Recorder, train

PARAMETERS = "parameters"


def recorded(
    stages: Stages, problem: Problem, steps: Sequence[int], *, seed: int | None, every: int, checkpoints: str | None = None
) -> tuple[Recorder, list[float]]:
    """The parameters and buffers at each of the steps, and the batch losses on the way.

    Training is cut into stages that end at the steps and every ``every`` others, each kept: plain SGD has no other state, so an
    interrupted study resumes from the last one and gets the same bits.

    Args:
        stages: of the study.
        problem: which.
        steps: which to record.
        seed: of initialisation and training; None: the problem's.
        every: most steps that an interruption may cost.
        checkpoints: folder with ``step_000100.safetensors`` and so on, as a :class:`.Recorder` writes them, to be used instead
            of training; no losses then.

    Raises:
        RunNotFound: ``checkpoints`` lacks a step.
    """
    if checkpoints is not None:
        recorder = Recorder(problem.model(seed), steps, path=checkpoints, resume=True)
        if missing := sorted(set(steps) - set(recorder.recorded)):
            raise RunNotFound(f"{checkpoints} has no step {missing[0]}: there are {recorder.recorded} of {sorted(steps)}")
        return recorder, []
    place = stages.run.path / PARAMETERS
    marks = sorted({0, *steps, *range(0, max(steps), every)})
    Recorder(problem.model(seed), [0], path=place, resume=True).step(0)
    losses: list[float] = []
    for start, stop in pairwise(marks):
        segment = stages.numbers(f"training-{start:06d}", partial(_segment, stages, problem, seed, start, stop))
        losses[start:] = segment["losses"]  # the last loss of a segment is the first of the next
    return Recorder(problem.model(seed), marks, path=place, resume=True), losses


def _segment(stages: Stages, problem: Problem, seed: int | None, start: int, stop: int) -> dict[str, Any]:
    recorder = Recorder(problem.model(seed), [start, stop], path=stages.run.path / PARAMETERS, resume=True)
    model = recorder.load(start, recorder.model)
    return {"losses": train(problem, model, recorder, seed=seed, start=start, progress=stages.progress)}
