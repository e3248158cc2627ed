"""Bad arguments: every parameter of every public function and command with values that cannot work.

Held: refused by name (a CurvscopeError, or the TypeError of a call that does not fit its signature; commands: exit status 2).
Fell: any other exception, or a result.
"""

import inspect
import itertools
import math
import tempfile
from pathlib import Path

import numpy as np
import torch
from typer.testing import CliRunner

import curvscope as cs
from curvscope.cli.main import COMMANDS, app
from curvscope.errors import CurvscopeError

from . import findings
from .face import functions

NAN, INF = math.nan, math.inf
NO_NUMBER = (NAN, "3", [1], {}, 1j, object(), True, False)
BAD = {
    "int": (*NO_NUMBER, 1.5, INF, -INF),
    "float": (*NO_NUMBER, INF, -INF),
    "bool": (NAN, 2, "yes", [True], 0.0),
    "str": (3, 1.5, ["LM"], b"LM", object(), "nonsense"),
    "Solution": (3, "run", torch.ones(3), object()),
    "Tensor": (3, "x", object(), [1.0]),
    "Recipe": (3, "module:function", object()),
    "Ranking": (3, "magnitude", object()),
    "Place": (3, 1.5, b"x\0", "", object()),
    "memory": (NAN, -1, 0, "much", "-3GiB", 1.5, True, [1]),
    "progress": (3, "yes", NAN, [1]),
    "executor": (3, "dask", object(), [1]),
    "anything": (1j, object(), NAN, b"x\0", [None], {}),
    "operator": (3, "x", None, object(), [1.0], torch.ones(3), torch.ones(2, 2, 2), np.ones(3)),
}
SOLVERS = ("k", "rank", "block_size", "ncv", "max_products", "num_outer", "num_inner", "num_left", "num_products")
ESTIMATORS = ("steps", "num_steps", "num_probes", "num_samples", "num_draws", "points", "most", "samples", "products")
AT_LEAST_ONE = (*SOLVERS, *ESTIMATORS, "num_shards", "workers", "every", "size")
NEGATIVE = dict.fromkeys(AT_LEAST_ONE, (0, -1, -(10**20))) | {
    **dict.fromkeys(("failure", "confidence", "target"), (0, 1, -0.5, 2.0)),
    **dict.fromkeys(("tol",), (-0.001, 1.0, 7)),
    **dict.fromkeys(("rtol",), (0, -1.0)),
    **dict.fromkeys(("trace_products", "density_probes", "columns"), (-1,)),
}
MAY_BE_EMPTY = ("others",)
FREE_TEXT = ("name", "path")  # any text is one


OPTIONS = {"microbatch": "int", "dropout": "int", "width": "int", "memory": "memory", "reduction": "str", "batchnorm": "str"}
"""Options of curvature operators, which their signatures leave to typed dictionaries."""
SOLVER_OPTIONS = {"max_products": "int", "block_size": "int", "memory": "memory", "microbatch": "int"}
"""Of eigsh, for the solves of layers; the last one it has not."""


def kinds(function):
    """The kind of value of each parameter that can be asked, by name."""
    for name, parameter in inspect.signature(function).parameters.items():
        text = str(parameter.annotation).replace(" | None", "").replace("'", "").replace("nn.", "").strip()
        if name in ("memory", "progress", "executor", "operator"):
            yield name, name, parameter
        elif text in BAD:
            yield name, text, parameter
        elif parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            yield name, "anything", parameter
        elif name == "options":
            further = SOLVER_OPTIONS if function is cs.eigsh_by_layer else OPTIONS
            yield from ((option, kind, None) for option, kind in further.items())


def calls():
    """(what is tried, function, arguments) for one bad argument each."""
    for function, good in functions():
        for name, kind, parameter in kinds(function):
            optional = parameter is None or parameter.default is None or "None" in str(parameter.annotation)
            values = [*BAD[kind], *NEGATIVE.get(name, ())]
            if kind in ("int", "float", "bool", "str") and not optional:
                values.append(None)
            if name in FREE_TEXT and "nonsense" in values:
                values.remove("nonsense")
            if name in MAY_BE_EMPTY:
                values.remove({})
            if function.__name__ in ("mass", "count") or name in ("patience", "grace"):
                values = [value for value in values if value not in (INF, -INF)]  # an interval without an end, for ever
            for value in values:
                label = getattr(function, "__qualname__", str(function))
                yield f"{label}({name}={_short(value)})", function, {**good, name: value}


def refusal(function, arguments):
    """None if the call is refused by name, else what came instead."""
    result, fell = findings.outcome(lambda: (function(**arguments),), _does_not_fit)
    return fell if result is None else f"gave a {type(result[0]).__name__}"


def _does_not_fit(error):
    """Whether an error is that of a call that does not fit a signature."""
    return isinstance(error, TypeError) and "argument" in str(error) and "unexpected" in str(error)


def accepted(function, arguments):
    """None if a call with good arguments is not refused, else the refusal."""
    try:
        function(**arguments)
    except CurvscopeError as error:
        return f"{type(error).__name__}: {error}"
    return None


def commands():
    """(what is tried, command line) for one bad option each."""
    bad = {"int": ("nan", "1.5", "x", "", "-1"), "float": ("nan", "inf", "x", "", "-1")}
    good = {
        "eigs": ["--target", "nothing:here", "-k", "2", "--out", "run"],
        "plan": ["--target", "nothing:here", "-k", "2"],
        "density": ["--target", "nothing:here"],
        "trace": ["--target", "nothing:here"],
    }
    for name, module in COMMANDS.items():
        for parameter in inspect.signature(module.command, eval_str=True).parameters.values():
            base = getattr(parameter.annotation, "__origin__", parameter.annotation)
            kind = "int" if base in (int, int | None) else "float" if base in (float, float | None) else None
            if kind is None:
                continue
            flags = [flag for item in parameter.annotation.__metadata__ for flag in getattr(item, "param_decls", ())]
            flag = flags[0] if flags else f"--{parameter.name.replace('_', '-')}"
            for value in bad[kind]:
                if parameter.name in ("seed", "step") and value == "-1":
                    continue
                line = [name, *good.get(name, []), f"{flag}={value}" if flag.startswith("--") else f"{flag}{value}"]
                yield f"curvscope {' '.join(line)}", line


def status(line):
    """None if a command ends with exit status 2 or names what is wrong, else what came instead."""
    result = CliRunner().invoke(app, line)
    if isinstance(result.exception, CurvscopeError) or result.exit_code == 2:
        return None
    return f"exit status {result.exit_code}, {type(result.exception).__name__}: {result.exception}"


def tried(whole):
    """(what was tried, None or what came instead of a refusal)."""
    step = 1 if whole else 23
    for function, good in functions():
        if function not in (cs.open, cs.problems.get, cs.splitting, cs.plan):  # no such file, or long
            yield f"{function.__qualname__} with good arguments", accepted(function, good)
    for label, function, arguments in itertools.islice(calls(), 0, None, step):
        yield label, refusal(function, arguments)
    with tempfile.TemporaryDirectory() as folder:
        for label, line in itertools.islice(commands(), 0, None, step):
            line = [str(Path(folder) / "run") if part == "run" else part for part in line]
            yield label, status(line)


def cases(whole=False):
    """(name, held) for each call with one bad argument."""
    return findings.as_cases(tried(whole))


def _short(value):
    return repr(value)[:30]
