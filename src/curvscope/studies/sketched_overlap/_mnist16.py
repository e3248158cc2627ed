"""What the studies on 16 x 16 MNIST share: recorded training, certified top eigenpairs, what is read off them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from curvscope.operators import hessian
from curvscope.problems import Problem, as_split, get
from curvscope.solvers import Solution, certify, eigsh
from curvscope.studies.engine import Stages
from curvscope.training import Recorder, train

PROBLEM = "mnist16"
PARAMETERS = "parameters"
TOL = 1e-8
SPARE = 40
"""Pairs beyond the last that is used, so that all that are used can be proven complete."""


def problem(data: Path | None) -> Problem:
    """The network and its data."""
    return get(PROBLEM, data=data)


def trained(stages: Stages, problem: Problem, steps: Sequence[int], seed: int) -> tuple[Recorder, list[float]]:
    """The recorded run and its batch losses; trained where a step is missing. Cost: seconds a thousand steps."""
    recorder = Recorder(problem.model(seed), steps, path=stages.run.path / PARAMETERS, resume=True)

    def run() -> dict[str, Any]:
        return {"losses": train(problem, recorder.model, recorder, seed=seed, progress=stages.progress)}

    # the losses are written when training has ended: an interrupted run trains again, and records only what is missing
    return recorder, stages.numbers("training", run)["losses"]


def model_at(problem: Problem, recorder: Recorder, step: int) -> nn.Module:
    """The network with the parameters of a step."""
    return recorder.load(step, problem.model())


def top_pairs(problem: Problem, model: nn.Module, split: str, k: int, *, seed: int = 0, progress: Any = None) -> Solution:
    """The k + 40 pairs of largest magnitude of the float64 Hessian on the curvature samples, with a certificate.

    Block Krylov to relative residuals of 1e-8: on these matrices the values, spaces and overlaps agree with the dense float64
    eigenproblem to rounding, at a small part of its time, and the certificate proves that no pair is missing.
    """
    H = hessian(model, problem.criterion, problem.curvature_batches(as_split(split)), dtype=torch.float64)
    wanted = min(H.shape[0], k + SPARE)
    solution = eigsh(H, wanted, method="krylov", tol=TOL, block_size=None if k < 600 else 32, seed=seed, progress=progress)
    return certify(H, solution, progress=progress)
