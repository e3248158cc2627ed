"""The operator that a command measures: of a problem's network, or of what the user's own function returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from curvscope.errors import InvalidArgument
from curvscope.measurement import PARAMETERS
from curvscope.operators import Recipe
from curvscope.operators.base import Operator
from curvscope.operators.remote import call_target
from curvscope.problems import Problem, as_split, get
from curvscope.runs._choices import Choices
from curvscope.runs._everywhere import built, built_by
from curvscope.store import Run, printable, read_sealed_tensors
from curvscope.system import preferred
from curvscope.training import Recorder, train


def operator_at_step(problem: Problem, step: int, split: str, choices: Choices) -> Operator:
    """The curvature of a problem's network, trained to ``step``, on the samples of ``split``.

    Trained on the CPU, as pinned; measured on a GPU if there is one. A checkpoint takes the place of the training. Under
    torchrun every process trains it, and takes its part of the samples.
    """
    return built_by(_trained, problem, step, split, choices)


def _trained(problem: Problem, step: int, split: str, choices: Choices) -> Operator:
    batches = problem.curvature_batches(as_split(split))
    model = problem.model()
    if choices.checkpoint is None:
        recorder = Recorder(model, [step])
        train(problem, model, recorder)
        model = recorder.load(step, model)
    return choices.operator(_placed(model, choices), problem.criterion, batches)


def operator_of_problem(run: Run) -> Operator:
    """The operator of a run on a problem, at the parameters and buffers that the run keeps: no training."""
    return built(recipe_of_problem(run.path, run.manifest["options"]))


def recipe_of_problem(path: Path, options: Mapping[str, Any]) -> Recipe:
    """Return how others build the operator of a run on a problem, once the run at ``path`` holds its parameters."""
    source = {name: options.get(name) for name in ("problem", "data", "split", "matrix")}
    source |= {name: options[name] for name in ("precision", "params", "device") if options.get(name) is not None}
    if options.get("params") is not None:  # the run keeps the chosen parameters alone: the others are made again
        source["step"] = options.get("step", 0)
        if options.get("checkpoint") is not None:
            source["weights"] = str(Path(options["checkpoint"]).absolute())
    if source["data"] is not None:
        source["data"] = str(Path(source["data"]).absolute())
    return Recipe(operator_at_checkpoint, checkpoint=str(path.absolute() / PARAMETERS), **source)


def operator_at_checkpoint(
    problem: str,
    data: str | None,
    split: str,
    checkpoint: str,
    *,
    step: int | None = None,
    weights: str | None = None,
    **chosen: Any,
) -> Operator:
    """The curvature of a problem's network with the parameters and buffers that a run keeps; on a GPU if there is one.

    Args:
        problem: its name.
        data: folder with the full data set.
        split: "train" or "test".
        checkpoint: the safetensors file of the run.
        step: train to this step first, which gives the same bits; None: the run keeps all parameters.
        weights: file with the weights, in the place of the training.
        chosen: fields of :class:`Choices`.
    """
    known, choices = get(problem, data=data), Choices.of(chosen)
    if step is not None:
        return _trained(known, step, split, replace(choices, checkpoint=weights))
    model = _placed(known.model(), choices)
    with torch.no_grad():
        model.load_state_dict(read_sealed_tensors(Path(checkpoint)), strict=False)
    return choices.operator(model, known.criterion, known.curvature_batches(as_split(split)))


def _placed(model: nn.Module, choices: Choices) -> nn.Module:
    """Return the network on the device that was chosen, or on a GPU if there is one."""
    return model.eval().to(preferred() if choices.device is None else choices.device)


def recipe_of_target(options: Mapping[str, Any]) -> Recipe:
    """Return how the operator of the user's function is built, here and by workers.

    Args:
        options: ``target``, ``arguments`` of the function, and fields of :class:`Choices`. Without a choice the operator is
            what the function makes, which may return any operator.
    """
    arguments, made = options.get("arguments") or {}, Choices.of(options).made
    if not made:
        return Recipe(options["target"], **arguments)
    if "checkpoint" in made:
        made["checkpoint"] = str(Path(made["checkpoint"]).absolute())
    return Recipe(operator_of_target, function=options["target"], **({"arguments": arguments} if arguments else {}), **made)


def operator_of_target(function: str, arguments: dict[str, Any] | None = None, **others: Any) -> Operator:
    """Return the operator that was chosen of what the user's function returns, (model, loss, data).

    Args:
        function: ``module:function``.
        arguments: of the function.
        others: fields of :class:`Choices`; ``shard`` and ``num_shards``, where the function gives the data in parts.

    Raises:
        InvalidArgument: the function returns an operator, which is chosen already.
    """
    shard = {name: others[name] for name in ("shard", "num_shards") if name in others}
    choices = Choices.of(others)
    made = call_target(function, (arguments or {}) | shard)
    if not isinstance(made, tuple):
        named = " and ".join(f"--{name} {_written(value)}" for name, value in choices.made.items())
        raise InvalidArgument(
            f"{named}: {function} returns an operator ({type(made).__name__}), which decides this itself: leave the option "
            "out, or return (model, loss, data)"
        )
    return choices.operator(*made)


def _written(value: Any) -> str:
    return printable(",".join(value) if isinstance(value, list) else str(value))
