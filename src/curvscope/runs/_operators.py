"""The operator that a command measures: of a problem's network, or of what the user's own function returns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from curvscope.errors import InvalidArgument
from curvscope.measurement import PARAMETERS
from curvscope.operators import CurvatureOperator, Recipe, ggn, hessian
from curvscope.operators.base import Operator
from curvscope.operators.remote import call_target
from curvscope.problems import Problem, get
from curvscope.store import Run, read_sealed_tensors
from curvscope.system import TF32, preferred
from curvscope.training import Recorder, train

MATRICES: dict[str, Callable[..., CurvatureOperator]] = {"hessian": hessian, "ggn": ggn}
PRECISIONS = ("float64", "float32", "tf32", "bfloat16", "float16")


def operator_at_step(problem: Problem, step: int, split: str, matrix: str, precision: str | None = None) -> CurvatureOperator:
    """The curvature of a problem's network, trained to ``step``, on the samples of ``split``.

    Trained on the CPU, as pinned; measured on a GPU if there is one.
    """
    arithmetic = arithmetic_of(precision)
    batches = problem.curvature_batches(split)
    model = problem.model()
    recorder = Recorder(model, [step])
    train(problem, model, recorder)
    return matrix_of(matrix)(recorder.load(step, model).to(preferred()), problem.criterion, batches, **arithmetic)


def matrix_of(name: str) -> Callable[..., CurvatureOperator]:
    """Return the function that makes a matrix, one of :data:`MATRICES`."""
    if name not in MATRICES:
        raise InvalidArgument(f"matrix {name!r}: choose one of {', '.join(MATRICES)}")
    return MATRICES[name]


def arithmetic_of(precision: str | None) -> dict[str, Any]:
    """The options of an operator whose products are computed in a precision, one of :data:`PRECISIONS`; None: its own.

    >>> arithmetic_of("tf32"), arithmetic_of("bfloat16")
    ({'precision': 'tf32'}, {'dtype': torch.bfloat16})
    """
    if precision not in (None, *PRECISIONS):
        raise InvalidArgument(f"precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
    if precision is None:
        return {}
    return {"precision": precision} if precision == TF32 else {"dtype": getattr(torch, precision)}


def operator_of_problem(run: Run) -> CurvatureOperator:
    """The operator of a run on a problem, at the parameters and buffers that the run keeps: no training."""
    return recipe_of_problem(run.path, run.manifest["options"]).build()


def recipe_of_problem(path: Path, options: dict[str, Any]) -> Recipe:
    """Return how others build the operator of a run on a problem, once the run at ``path`` holds its parameters."""
    source = {name: options.get(name) for name in ("problem", "data", "split", "matrix")}
    if options.get("precision") is not None:
        source["precision"] = options["precision"]
    if source["data"] is not None:
        source["data"] = str(Path(source["data"]).absolute())
    return Recipe(operator_at_checkpoint, checkpoint=str(path.absolute() / PARAMETERS), **source)


def operator_at_checkpoint(
    problem: str, data: str | None, split: str, matrix: str, checkpoint: str, precision: str | None = None
) -> CurvatureOperator:
    """The curvature of a problem's network with the parameters and buffers in a safetensors file; on a GPU if there is one."""
    known = get(problem, data=data)
    model = known.model().to(preferred())
    with torch.no_grad():
        model.load_state_dict(read_sealed_tensors(Path(checkpoint)), strict=False)
    return matrix_of(matrix)(model, known.criterion, known.curvature_batches(split), **arithmetic_of(precision))


def recipe_of_target(target: str, matrix: str = "hessian", precision: str | None = None) -> Recipe:
    """Return how the operator of the user's function is built, here and by workers.

    Without a choice of matrix or precision it is the function itself, which may return any operator.
    """
    chosen = {"matrix": None if matrix == "hessian" else matrix, "precision": precision}
    if not any(chosen.values()):
        return Recipe(target)
    return Recipe(operator_of_target, function=target, **chosen)


def operator_of_target(function: str, matrix: str | None, precision: str | None, **shard: int) -> Operator:
    """Return the chosen matrix of what the user's function returns: (model, loss, data).

    Args:
        function: ``module:function``.
        matrix: one of :data:`MATRICES`; None: the Hessian.
        precision: one of :data:`PRECISIONS`; None: that of the parameters.
        shard: ``shard`` and ``num_shards``, where the function gives the data in parts.

    Raises:
        InvalidArgument: the function returns an operator, which has its matrix and precision already.
    """
    made = call_target(function, shard)
    if not isinstance(made, tuple):
        given = {"--matrix": matrix, "--precision": precision}
        named = " and ".join(f"{flag} {value}" for flag, value in given.items() if value is not None)
        raise InvalidArgument(
            f"{named}: {function} returns an operator ({type(made).__name__}), which has its matrix and precision already: "
            "leave the option out, or return (model, loss, data)"
        )
    return matrix_of(matrix or "hessian")(*made, **arithmetic_of(precision))
