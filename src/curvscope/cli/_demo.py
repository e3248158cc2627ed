"""``curvscope demo``: the whole way, on packaged digits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from curvscope.cli._folders import free_folder
from curvscope.cli._names import DataFolder
from curvscope.cli._output import terminal

DEFAULT_FOLDER = "curvscope-demo"


def command(
    out: Annotated[Path | None, typer.Option("--out", "-o", help=f"Folder for the report; default ./{DEFAULT_FOLDER}.")] = None,
    data: DataFolder = None,
) -> None:
    """A real network on real digits, end to end: about half a minute, then open report.html."""
    from curvscope.cli._tables import as_rich
    from curvscope.problems import get
    from curvscope.report import render, save_figures
    from curvscope.store import Run
    from curvscope.studies import demo as study

    config = study.DemoConfig()
    problem = get("mnist16", data=data)  # before anything is written
    run = Run.create(out or free_folder(DEFAULT_FOLDER), kind="demo", options={"data": None if data is None else str(data)})
    console = terminal()
    console.print("Training a small network on MNIST digits, then its Hessian's top eigenpairs, two ways ...")
    checkpoints = study.run_demo(problem, config)
    run.write_json("demo.json", study.numbers(checkpoints, config))
    document = study.document(problem, checkpoints, config)
    report = run.write_text("report.html", render(document))
    save_figures(document, run.path / "figures")
    console.print(as_rich(study.table(checkpoints, config)))
    console.print("Residuals are relative to |eigenvalue|; overlap is between the top-k eigenspace and the k largest weights.")
    console.print(f"Report: {report}", soft_wrap=True, highlight=False)
