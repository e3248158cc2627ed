"""Options that several commands share, and the names that every command's function must bear."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SOURCE = "What is measured"
ProblemName = Annotated[
    str | None,
    typer.Option(
        "--problem", rich_help_panel=SOURCE, help="A problem of ours, such as mnist16 (see `curvscope info`), or hf:NAME."
    ),
]
TargetName = Annotated[
    str | None,
    typer.Option(
        "--target",
        metavar="MODULE:FUNCTION",
        rich_help_panel=SOURCE,
        help="Your function; returns an operator or (model, loss, data).",
    ),
]
DataFolder = Annotated[
    Path | None,
    typer.Option("--data", rich_help_panel=SOURCE, help="Folder with the full data set (images need torchvision), or a text."),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Import and call the function that a RUN from elsewhere names, without asking. It can do anything that you can.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print machine-readable results.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder that `curvscope eigs --out` wrote.")]
Memory = Annotated[
    str | None,
    typer.Option("--memory", help="Bound for the memory of the whole process, such as 8GiB; default: 0.8 of what is free."),
]
LanczosMemory = Annotated[
    str | None,
    typer.Option("--memory", help="Bound for the Lanczos vectors, beside what the process has, such as 8GiB."),
]
OptionalRun = Annotated[
    Path | None, typer.Argument(metavar="RUN", help="Folder that `curvscope eigs --out` wrote: its pairs are deflated.")
]
Step = Annotated[
    int, typer.Option("--step", rich_help_panel=SOURCE, help="Of a problem: train its network to this step first.")
]
Split = Annotated[str, typer.Option("--split", rich_help_panel=SOURCE, help="Of a problem: its train or test samples.")]
Matrix = Annotated[
    str, typer.Option("--matrix", rich_help_panel=SOURCE, help="hessian or ggn, of a problem or of (model, loss, data).")
]
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision",
        rich_help_panel=SOURCE,
        help="Compute in float64, float32, bfloat16, float16, or tf32 on a GPU.",
    ),
]
