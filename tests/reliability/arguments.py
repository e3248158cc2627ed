"""Bad arguments: every parameter of every public function and command with values that cannot work.

Held: refused by name (a CurvscopeError, or the TypeError of a call that does not fit its signature; commands: exit status 2).
Fell: any other exception, or a result.
"""

import inspect
import itertools
import math
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn
from typer.testing import CliRunner

import curvscope as cs
from curvscope.cli.main import COMMANDS, app
from curvscope.errors import CurvscopeError
from curvscope.solvers import hmt, nystrom, singlepass

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
FREE_TEXT = ("name", "path")  # any text is one


def operator():
    return torch.diag(torch.arange(1.0, 13.0, dtype=torch.float64))


def functions():
    """(function, good arguments) for the public face."""
    A = operator()
    solution = cs.eigsh(A, 3, progress=False)
    model, data = nn.Sequential(nn.Linear(2, 3)), [(torch.ones(4, 2), torch.tensor([0, 1, 2, 0]))]
    H = cs.hessian(model, nn.CrossEntropyLoss(), data)
    ranking = cs.masks.random(12)
    made = cs.density(A, num_probes=2, num_steps=4, progress=False)
    yield cs.eigsh, {"operator": A, "k": 2}
    yield cs.svds, {"operator": A, "k": 2}
    yield cs.seigh, {"operator": A, "num_outer": 4}
    yield cs.ssvd, {"operator": A, "num_outer": 4}
    yield hmt, {"operator": A, "num_outer": 4}
    yield nystrom, {"operator": A, "num_outer": 4}
    yield singlepass, {"operator": A, "num_outer": 4}
    yield cs.adaptive_seigh, {"operator": A}
    yield cs.certify, {"operator": A, "solution": solution}
    yield cs.posterior_error, {"operator": A, "solution": solution}
    yield cs.scree, {"operator": A, "solution": solution}
    yield cs.plan, {"operator": A, "k": 2}
    yield cs.density, {"operator": A}
    yield cs.trace, {"operator": A}
    yield cs.diagonal, {"operator": A}
    yield cs.frobenius_norm, {"operator": A}
    yield cs.spectral_norm, {"operator": A}
    yield cs.count_outliers, {"values": torch.arange(5.0)}
    yield cs.probes_needed, {"confidence": 0.9, "relative_error": 0.5}
    yield cs.sizes_for_rank, {"rank": 3}
    yield cs.sizes_for_products, {"products": 30}
    yield cs.sizes_for_memory, {"numbers": 10**6, "rows": 100, "columns": 100}
    yield cs.overlap_without_vectors, {"operator": A, "chosen": ranking, "k": 2}
    yield cs.gradient_fraction, {"gradient": torch.ones(12, dtype=torch.float64), "basis": solution}
    yield cs.kappa, {"vector": torch.ones(12), "rho": 0.5}
    yield cs.splitting, {"hessian": H, "ggn": H, "k": 2}
    yield cs.eigsh_by_layer, {"operator": H, "k": 1}
    yield cs.loss_along, {"operator": H, "direction": torch.ones(9)}
    yield cs.preflight, {"operator": H}
    yield cs.hessian, {"model": model, "loss": nn.CrossEntropyLoss(), "data": data}
    yield cs.ggn, {"model": model, "loss": nn.CrossEntropyLoss(), "data": data}
    yield cs.monte_carlo_fisher, {"model": model, "loss": nn.CrossEntropyLoss(), "data": data}
    yield cs.gradient_second_moment, {"model": model, "loss": nn.CrossEntropyLoss(), "data": data}
    yield cs.Objective, {"model": model, "loss": nn.CrossEntropyLoss(), "data": data}
    yield cs.Tracker, {"objective": H, "k": 2}
    yield cs.masks.random, {"size": 12}
    yield cs.masks.from_indices, {"index": [1, 2], "size": 12}
    yield cs.masks.best, {"basis": solution}
    yield cs.grassmann.distance, {"first": torch.eye(4)[:, :2], "second": torch.eye(4)[:, 1:3]}
    yield cs.grassmann.similarity, {"first": torch.eye(4)[:, :2], "second": torch.eye(4)[:, 1:3]}
    yield cs.grassmann.baseline, {"size": 12, "first": 2, "samples": 3}
    yield cs.problems.spectrum, {"kind": "power", "size": 12}
    yield cs.open, {"path": "nowhere"}
    yield cs.problems.get, {"name": "digits"}
    yield cs.eigsh(H, 2, progress=False).vector, {"i": 0}
    yield solution.low_rank, {}
    yield made.quantile, {"share": 0.5}
    yield made.mass, {}
    yield made.count, {}
    yield made.outliers, {}
    yield made.linear, {}
    yield made.logarithmic, {}


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
            if name in FREE_TEXT:
                values.remove("nonsense")
            if function.__name__ in ("mass", "count"):
                values = [value for value in values if value not in (INF, -INF)]  # an interval without an end
            for value in values:
                label = getattr(function, "__qualname__", str(function))
                yield f"{label}({name}={_short(value)})", function, {**good, name: value}


def refusal(function, arguments):
    """None if the call is refused by name, else what came instead."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = function(**arguments)
    except CurvscopeError:
        return None
    except TypeError as error:
        return None if "argument" in str(error) and "unexpected" in str(error) else f"TypeError: {error}"
    except Exception as error:  # noqa: BLE001 -- anything else is what is looked for
        return f"{type(error).__name__}: {error}"
    return f"gave a {type(result).__name__}"


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


def findings(whole):
    """(what was tried, None or what came instead of a refusal)."""
    step = 1 if whole else 11
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
    for label, found in findings(whole):
        yield label, found is None


def _short(value):
    return repr(value)[:30]
