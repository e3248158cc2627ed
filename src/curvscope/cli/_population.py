"""``curvscope population RUN``: what of a run's eigenvalues is the sample's, and what the population's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from curvscope.cli._folders import check_file
from curvscope.cli._groups import grouped
from curvscope.cli._names import MASKS, AsJson, Memory, RunFolder, Trust
from curvscope.cli._output import print_json, terminal
from curvscope.cli._workers import WorkerOptions

FIGURES = (".png",)


@dataclass(frozen=True)
class Folds:
    """Options of the folds and of their intervals: those of :func:`curvscope.population`, and the factor of the answer."""

    folds: Annotated[int, typer.Option("--folds", help="Parts that the samples are dealt to, at least 4.")] = 20
    level: Annotated[float, typer.Option("--level", help="Probability that an interval holds its eigenvalue.")] = 0.95
    factor: Annotated[float, typer.Option("--factor", help="Of the answer: determined to a factor of this.")] = 2.0
    seed: Annotated[int, typer.Option("--seed", help="Of the dealing.")] = 0


@dataclass(frozen=True)
class Beside:
    """Options of what is measured beside the eigenvalues."""

    mask: Annotated[
        list[str] | None,
        typer.Option(
            "--mask",
            help="The overlap with this mask of the parameters, too: magnitude, layerwise, random, or a file (.npy, .npz, "
            ".safetensors, .pt); repeatable.",
        ),
    ] = None
    curve: Annotated[
        bool,
        typer.Option("--curve", help="Curvature against the number of samples, too: they are halved up to four times."),
    ] = False


@grouped
def command(
    run: RunFolder,
    dealt: Folds,
    beside: Beside,
    *,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File for the figure (.png).")] = None,
    memory: Memory = None,
    worker_options: WorkerOptions,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Intervals for the eigenvalues of the population that a run's samples were drawn from, and how many samples are needed.

    Two solves with half of the samples each, and about 3 k products; --curve takes about three solves more. Kept in the run:
    the same command resumes, and the report shows it.
    """
    from curvscope.cli._measured import operator_in_precision
    from curvscope.cli._trust import confirm_trust
    from curvscope.runs import LEARNING_CURVE, POPULATION, mask_of, read_mask, solution_of
    from curvscope.sampling import learning_curve, population
    from curvscope.store import Run

    if out is not None:
        check_file(out, FIGURES)
    opened = Run.open(run)
    confirm_trust(opened, trust=trust)
    solution = solution_of(opened)
    masks = [
        mask_of(opened, solution, name) if name in MASKS.split(", ") else read_mask(Path(name))
        for name in dict.fromkeys(beside.mask or ())
    ]
    operator = operator_in_precision(opened, solution, None, trust=True)
    with worker_options.executor() as executor:
        found = population(
            operator,
            solution,
            folds=dealt.folds,
            level=dealt.level,
            masks=masks,
            seed=dealt.seed,
            memory=memory,
            run=opened.path / f"population-{dealt.folds}-{dealt.seed}",
            executor=executor,
        )
        found.save(opened.path / POPULATION, overwrite=True)
        learned = None
        if beside.curve:
            place = opened.path / f"learning-curve-{dealt.seed}"
            learned = learning_curve(operator, solution, found, seed=dealt.seed, memory=memory, run=place, executor=executor)
            learned.save(opened.path / LEARNING_CURVE, overwrite=True)
    if as_json:
        plain = found.to_dict() | {"summary": found.summary(dealt.factor)}
        print_json(plain if learned is None else plain | {"learning_curve": learned.to_dict()})
    else:
        console = terminal()
        console.print(found.text(dealt.factor), highlight=False, soft_wrap=True, markup=False)
        if learned is not None:
            console.print("\n" + learned.text(dealt.factor), highlight=False, soft_wrap=True, markup=False)
        console.print(f"Kept in {opened.path / POPULATION}", highlight=False, soft_wrap=True)
    if out is not None:
        from matplotlib.figure import Figure

        from curvscope.report import save_figure

        figure = Figure(figsize=(7, 4.5) if learned is None else (12, 4.5))
        axes = [figure.subplots()] if learned is None else list(figure.subplots(1, 2))
        found.plot(axes[0], log=True)
        if learned is not None:
            learned.plot(axes[1])
        save_figure(figure, out)
        if not as_json:
            terminal().print(f"Written: {out}", highlight=False, soft_wrap=True)
