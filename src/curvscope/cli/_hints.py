"""What to write instead of an option, a command or an argument that does not exist."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

COMMANDS = {
    "eigsh": "eigs",
    "eig": "eigs",
    "eigenvalues": "eigs",
    "top": "eigs",
    "topk": "eigs",
    "lanczos": "eigs",
    "solve": "eigs",
    "run": "eigs",
    "compute": "eigs",
    "hessian": "eigs --matrix hessian",
    "ggn": "eigs --matrix ggn",
    "fisher": "eigs --matrix empirical_fisher",
    "resume": "eigs, with the same words as before: it resumes",
    "continue": "eigs, with the same words as before: it resumes",
    "spectrum": "density",
    "slq": "density",
    "esd": "density",
    "hutchinson": "trace",
    "norm": "trace --norms",
    "diag": "diagonal",
    "diff": "compare",
    "view": "show",
    "print": "show",
    "cat": "show",
    "open": "show",
    "head": "show",
    "ls": "info",
    "list": "info, for the problems, or study list",
    "problems": "info",
    "status": "info",
    "plot": "report",
    "html": "report",
    "verify": "certify",
    "check": "certify",
    "validate": "certify",
    "estimate": "plan",
    "dry-run": "plan",
    "save": "export",
    "convert": "export",
    "mask": "overlap",
    "prune": "overlap",
    "watch": "track",
    "monitor": "track",
    "example": "demo",
    "tutorial": "demo",
    "quickstart": "demo",
    "help": "-h, or COMMAND -h",
    "version": "--version",
}
"""Words that people try as commands; each leads to the one there is."""

ANYWHERE = "MODULE:FUNCTION without an option, such as experiment:make"
RESUMES = "nothing: the same command resumes by itself"
QUIET = "> /dev/null after the command; progress is shown on terminals alone"
OPTIONS = {
    "-k": ("-n", "--num", "--n", "--top", "--topk", "--top-k", "--num-eigs", "--num-eigenvalues", "--rank", "--nev", "--neigs"),
    "--out": (
        "--output",
        "--outdir",
        "--out-dir",
        "--output-dir",
        "--save",
        "--save-to",
        "--dir",
        "--folder",
        "--file",
        "--name",
    ),
    "--matrix": ("--operator", "--curvature", "--kind", "--type"),
    "--matrix ggn": ("--ggn", "--gauss-newton"),
    "--matrix empirical_fisher": ("--fisher", "--ef"),
    "--tol": ("--tolerance", "--eps", "--atol", "--rtol", "--precision-goal"),
    "--max-products": ("--maxiter", "--max-iter", "--iters", "--iterations", "--max-iterations", "--max-matvecs", "--budget"),
    "--device cuda": ("--cuda", "--gpu"),
    "--device cpu": ("--cpu",),
    "--precision float64": ("--fp64", "--double", "--float64"),
    "--precision bfloat16": ("--bf16", "--half", "--fp16"),
    "--params": ("--param", "--layers", "--layer", "--parameters", "--only", "--filter", "--modules"),
    "--checkpoint": ("--ckpt", "--weights", "--load", "--state-dict", "--model-path"),
    "--arg NAME=VALUE": ("--args", "--kwargs", "--kw", "--set", "-a"),
    "--config": ("--config-file", "--yaml", "--cfg"),
    "--data": ("--dataset", "--data-dir", "--data-path"),
    ANYWHERE: ("--model", "--function", "--fn", "--module", "--script", "-t"),
    "--probes": ("--num-probes", "--samples", "--num-samples", "--nv", "--num-vecs"),
    "--steps": ("--num-steps", "--lanczos-steps"),
    "--method": ("--solver", "--algorithm", "--algo"),
    "--which": ("--order", "--sort"),
    "--which LA": ("--largest",),
    "--which SA": ("--smallest",),
    "--seed": ("--rng", "--random-state", "--random-seed", "-s"),
    "--workers": ("--num-workers", "--nproc", "--processes", "-j"),
    "--overwrite": ("-f", "--exist-ok", "--replace"),
    "--trust": ("--yes", "-y"),
    "--preset paper": ("--paper", "--full"),
    "a second RUN without an option": ("--with", "--other", "--against", "--run2", "--compare"),
    "--out FILE.png": ("--plot", "--figure", "--png", "--fig"),
    "--out FILE.csv": ("--csv",),
    RESUMES: ("--resume", "--continue", "--restart"),
    "curvscope plan, with the same words": ("--dry-run",),
    QUIET: ("--quiet", "-q", "--silent", "--no-progress"),
    "nothing: progress is shown on terminals, and `curvscope info RUN` says how far a run is": (
        "--verbose",
        "-v",
        "--progress",
    ),
    "--debug, for the traceback of an error": ("--traceback", "--pdb"),
    "curvscope --version": ("--version", "-V"),
    "the batches in your function: the mean does not depend on their size": ("--batch-size", "--batch", "--bs"),
}
"""What to write, and the options of other tools that mean it."""

NAMES = {"num_probes": "--probes", "num_steps": "--steps", "deflate": "RUN"}
"""Arguments of the library whose options have other names."""

METHODS = {
    "lanczos": "krylov, which is block Lanczos",
    "block-lanczos": "krylov",
    "arpack": "krylov",
    "lobpcg": "krylov",
    "power": "krylov",
    "davidson": "krylov",
    "randomized": "hmt",
    "rsvd": "hmt",
    "sketch": "seigh",
    "dense": "exact",
    "eigh": "exact",
    "full": "exact",
}
"""Names of methods elsewhere, and those here."""


def instead_of_command(word: str, known: Iterable[str]) -> str:
    """Return a sentence about a command that does not exist.

    >>> instead_of_command("diff", ["compare", "eigs"])
    "there is no command 'diff': write curvscope compare"
    >>> instead_of_command("experiment:make", ["eigs"])
    "there is no command 'experiment:make': write curvscope eigs experiment:make"
    """
    told = f"there is no command {word!r}"
    if ":" in word or word.endswith(".py"):
        return f"{told}: write curvscope eigs {word}"
    if (other := COMMANDS.get(word.lower().lstrip("-"))) is not None:
        return f"{told}: write curvscope {other}"
    close = get_close_matches(word, list(known), 1, 0.7)
    return f"{told}: did you mean {close[0]}?" if close else f"{told}: choose one of {', '.join(known)}"


def instead_of_option(option: str, command: str, known: Iterable[str]) -> str:
    """Return a sentence about an option that a command does not have; only options that it has are suggested.

    >>> instead_of_option("--topk", "eigs", ["-k", "--out"])
    'eigs has no option --topk: write -k'
    >>> instead_of_option("--max_products", "eigs", ["--max-products"])
    'eigs has no option --max_products: write --max-products'
    >>> instead_of_option("--quiet", "eigs", ["--out"])
    'eigs has no option --quiet: write > /dev/null after the command; progress is shown on terminals alone'
    """
    told, known = f"{command} has no option {option}", [*known, "--debug"]  # which every command takes
    if (dashed := option.replace("_", "-")) in known:
        return f"{told}: write {dashed}"
    for written, others in OPTIONS.items():
        name = written.split()[0].rstrip(",")
        if dashed.lower() in others and (name in known or not name.startswith("-")):
            return f"{told}: write {written}"
    close = get_close_matches(option, [name for name in known if name.startswith("--")], 1, 0.75)
    return f"{told}: did you mean {close[0]}?" if close else f"{told}: `curvscope {command} -h` lists them"


def in_options(message: str, options: Mapping[str, str]) -> str:
    """Return a message of the library in the words of a command: options in the place of Python's arguments.

    Args:
        message: of an error or a status.
        options: option of the command by the name of the argument.

    >>> in_options("which='XX': choose LM; raise max_products", {"which": "--which", "max_products": "--max-products"})
    "--which 'XX': choose LM; raise --max-products"
    """
    for name, option in (NAMES | dict(options)).items():
        if option in options.values():
            message = re.sub(rf"(?<![\w.\-]){name}\s?=\s?(?=['\"\d-])", f"{option} ", message)
            if "_" in name:
                message = re.sub(rf"(?<![\w.\-'\"`]){name}(?![\w(='\"`])", option, message)
    found = re.match(r"--method '([\w-]+)': ", message)
    if found is not None and found[1].lower() in METHODS:
        message += f"; for {found[1]} write {METHODS[found[1].lower()]}"
    return message
