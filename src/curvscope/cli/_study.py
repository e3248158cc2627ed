"""``curvscope study list`` and ``curvscope study NAME``: the paper's experiments, repeated."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from curvscope.cli._names import AsJson, DataFolder
from curvscope.cli._output import print_json, terminal
from curvscope.errors import InvalidArgument

TABLE_WIDTH = 110
"""Columns that a table "paper, measured, difference" needs; on a narrower terminal its lines are folded, not cut."""


def command(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME [RUN]...", help="A study, `list` for all of them, or `compare` and the folders of finished studies."
        ),
    ] = None,
    preset: Annotated[str, typer.Option("--preset", help="quick: minutes, small; paper: its sizes; some have more.")] = "quick",
    data: DataFolder = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for the results; an interrupted study resumes there.")
    ] = None,
    checkpoints: Annotated[
        Path | None,
        typer.Option("--checkpoints", help="Folder of recorded steps (step_000100.safetensors) to use instead of training."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Change a setting of the preset, such as k=100 or steps=0,2000; may be repeated. `curvscope study list "
            "--json` has the names.",
        ),
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the studies; the same as `curvscope study list`.")] = False,
    as_json: AsJson = False,
) -> None:
    """Repeat an experiment of a paper: numbers, figures and a page. `curvscope study list` names them.

    `curvscope study compare RUN RUN --out DIR` puts the overlaps of several finished studies on one page.
    """
    name, *runs = words or ["list"]
    if listed or name == "list":
        _list(as_json)
        return
    if name == "compare":
        _compare([Path(run) for run in runs], out, as_json)
        return
    if runs:
        raise InvalidArgument(f"{runs[0]}: only `curvscope study compare` takes folders of runs; leave it out")
    from curvscope.cli._tables import as_rich
    from curvscope.studies import get_study
    from curvscope.studies.engine import NUMBERS, PAGE, run_study, with_settings

    study = get_study(name)
    config = study.config(preset)
    changes = list(settings or ())
    if checkpoints is not None:
        if not hasattr(config, "checkpoints"):
            raise InvalidArgument(f"--checkpoints: {name} trains for itself, leave it out")
        changes.append(f"checkpoints={checkpoints.resolve()}")
    config = with_settings(config, changes)
    if out is None:
        raise InvalidArgument(f"--out DIR is missing: say where the results of {name} shall go")
    console = terminal(stderr=as_json)
    if not console.is_terminal:
        console.width = max(console.width, TABLE_WIDTH)
    changed = "; the settings change that" if changes else ""
    console.print(
        f"{study.title}: {study.shows}. The preset takes about {study.takes[preset]} on two cores{changed}.", highlight=False
    )
    document = run_study(study, out, preset=preset, data=data, config=config)
    if as_json:
        print_json(json.loads((out / NUMBERS).read_text()))
        return
    for section in document.sections:
        if section.table is not None:
            console.print(f"\n{section.title}", style="bold")
            console.print(as_rich(section.table))
    for what, value in document.highlights:
        console.print(f"{what}: {value}", highlight=False)
    console.print(f"Page: {out / PAGE}", soft_wrap=True, highlight=False)


def _compare(runs: list[Path], out: Path | None, as_json: bool) -> None:
    from curvscope.cli._tables import as_rich
    from curvscope.studies import compare_studies
    from curvscope.studies.engine import PAGE

    if out is None:
        raise InvalidArgument("--out DIR is missing: say where the page shall go")
    document = compare_studies(runs, out)
    table = next(section.table for section in document.sections if section.table is not None)
    if as_json:
        heads = [head.replace("\n", " ") for head in table.heads]
        print_json([dict(zip(heads, row, strict=True)) for row in table.rows])
        return
    console = terminal()
    if not console.is_terminal:
        console.width = max(console.width, TABLE_WIDTH)
    console.print(as_rich(table))
    console.print(f"Page: {out / PAGE}", soft_wrap=True, highlight=False)


def _list(as_json: bool) -> None:
    from curvscope.studies import STUDIES

    if as_json:
        listed = [
            {
                "name": s.name,
                "title": s.title,
                "shows": s.shows,
                "takes": dict(s.takes),
                "settings": {name: asdict(config) for name, config in s.presets.items()},
            }
            for s in STUDIES.values()
        ]
        print_json(listed)
        return
    for study in STUDIES.values():
        takes = ", ".join(f"--preset {preset}: {time}" for preset, time in study.takes.items())
        typer.echo(f"{study.name}\n    {study.title}\n    {study.shows}; {takes}")
