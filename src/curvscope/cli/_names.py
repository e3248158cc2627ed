"""Options that several commands share, and the names that every command's function must bear.

Nothing here imports PyTorch, so that help and completion are there at once; names that the library checks are repeated as text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SOURCE = "What is measured"
WORD = "MODULE:FUNCTION"
SOLVERS = "auto, exact, krylov, seigh, oversampled, hmt, singlepass, nystrom"
ESTIMATORS = "auto, krylov, xtrace, xnystrace, hutch++, hutchinson, exact"
MATRICES = "hessian, ggn, empirical_fisher, monte_carlo_fisher, gradient_second_moment"
PRECISIONS = "float64, float32, tf32, bfloat16, float16"
MASKS = "magnitude, layerwise, random, best"
FORMATS = "hdf5, safetensors, npz"

Named = Annotated[
    str | None,
    typer.Argument(
        metavar=WORD,
        help="Your function, as MODULE:FUNCTION or FILE.py:FUNCTION; it returns (model, loss, data) or an operator. "
        "Or a problem.",
        show_default=False,
    ),
]
NamedOrRun = Annotated[
    str | None,
    typer.Argument(
        metavar=f"RUN|{WORD}",
        help="Folder that `curvscope eigs` wrote: its operator is measured again. Or your function, as MODULE:FUNCTION or "
        "FILE.py:FUNCTION, or a problem.",
        show_default=False,
    ),
]
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
        metavar=WORD,
        rich_help_panel=SOURCE,
        help="Your function; returns an operator or (model, loss, data). The same as the argument.",
    ),
]
Arguments = Annotated[
    list[str] | None,
    typer.Option(
        "--arg", metavar="NAME=VALUE", rich_help_panel=SOURCE, help="Argument of your function, such as width=8; repeatable."
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", rich_help_panel=SOURCE, help="YAML file with arguments of your function; --arg goes before it."),
]
DataFolder = Annotated[
    Path | None,
    typer.Option("--data", rich_help_panel=SOURCE, help="Folder with the full data set (images need torchvision), or a text."),
]
Step = Annotated[
    int, typer.Option("--step", rich_help_panel=SOURCE, help="Of a problem: train its network to this step first.")
]
Split = Annotated[str, typer.Option("--split", rich_help_panel=SOURCE, help="Of a problem: its train or test samples.")]
Matrix = Annotated[
    str, typer.Option("--matrix", rich_help_panel=SOURCE, help=f"Of a problem or of (model, loss, data): {MATRICES}.")
]
Params = Annotated[
    list[str] | None,
    typer.Option(
        "--params",
        metavar="GLOB",
        rich_help_panel=SOURCE,
        help="Parameters that vary, such as 'layer4.*', or a module's name; several with commas or repeated.",
    ),
]
Precision = Annotated[
    str | None,
    typer.Option("--precision", "--dtype", rich_help_panel=SOURCE, help=f"Compute in one of {PRECISIONS} (tf32 on a GPU)."),
]
Device = Annotated[str | None, typer.Option("--device", rich_help_panel=SOURCE, help="Compute on this one, such as cuda:1.")]
Checkpoint = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint",
        rich_help_panel=SOURCE,
        help="Weights of the model: .safetensors, or a state dict that torch.save wrote (.pt).",
    ),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Import and call the function that a RUN from elsewhere names, without asking. It can do anything that you can.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print machine-readable results.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder that `curvscope eigs` wrote.")]
Memory = Annotated[
    str | None,
    typer.Option("--memory", help="Bound for the memory of the whole process, such as 8GiB; default: 0.8 of what is free."),
]
LanczosMemory = Annotated[
    str | None,
    typer.Option("--memory", help="Bound for the Lanczos vectors, beside what the process has, such as 8GiB."),
]
