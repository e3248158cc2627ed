"""Every file of a run altered, exchanged with another file, or with the same file of another run.

Held: the use of the run is refused by name (a CurvscopeError), or gives the same numbers as before, bit by bit: what was
damaged was found and computed again, or does not matter. Fell: other numbers without a word, or any other exception.
"""

import contextlib
import itertools
import json
import logging
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

import curvscope as cs
from curvscope.errors import CurvscopeError
from curvscope.runs import DENSITY, certified_of, keep_certificate
from curvscope.runs._contents import density_of, parameters_of
from curvscope.solvers import hmt
from curvscope.store import Run

X = torch.linspace(-2, 2, 240, dtype=torch.float64).reshape(40, 6).sin()
Y = torch.arange(40) % 3


def operator(seed):
    torch.manual_seed(seed)
    return cs.hessian(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double(), nn.CrossEntropyLoss(), [(X, Y)])


def solve(kind, seed, run):
    """The solve of a kind of run, which the same call repeats."""
    H = operator(seed)
    if kind == "sketch":
        return hmt(H, num_outer=8, k=3, run=run, block_size=4, progress=False)
    return cs.eigsh(H, 3, method="krylov", block_size=2, tol=1e-8, run=run, preflight=False, progress=False)


def make(kind, seed, run):
    """A finished run with everything that a run may hold."""
    solution = solve(kind, seed, run)
    if kind == "krylov":
        H = operator(seed)
        keep_certificate(Run.open(run), cs.certify(H, solution, steps=20, progress=False))
        Run.open(run).write_sealed(DENSITY, cs.density(H, num_probes=1, num_steps=4, progress=False).to_dict())


def pairs(solution):
    return [solution.eigenvalues, solution.eigenvectors.to_tensor(), solution.residual_norms]


def uses(kind, seed, run):
    """(use of a run, function that gives its numbers)."""
    yield "open", lambda: pairs(cs.open(run))
    yield "parameters", lambda: [*parameters_of(Run.open(run), cs.open(run)).values()]
    if kind == "krylov":
        yield "certified", lambda: pairs(certified_of(Run.open(run)))
        yield "density", lambda: [density_of(Run.open(run)).nodes]
    yield "same call", lambda: pairs(solve(kind, seed, run))


def files_of(run):
    return sorted(str(file.relative_to(run)) for file in run.rglob("*") if file.is_file() and file.name != "lock")


def flipped(file, rng):
    content = bytearray(file.read_bytes())
    place = int(rng.integers(len(content)))
    content[place] ^= 1 << int(rng.integers(8))
    file.write_bytes(content)


def truncated(file, rng):
    content = file.read_bytes()
    file.write_bytes(content[: int(rng.integers(len(content)))])


def altered_number(file, rng):
    """Another number in a JSON file, as an editor writes it."""
    places = []

    def walk(node):
        for key in node if isinstance(node, dict) else range(len(node)):
            if isinstance(node[key], dict | list):
                walk(node[key])
            elif isinstance(node[key], int | float) and not isinstance(node[key], bool):
                places.append((node, key))

    content = json.loads(file.read_text())
    walk(content)
    if places:
        node, key = places[int(rng.integers(len(places)))]
        node[key] = node[key] + 1
    file.write_text(json.dumps(content))


def harms(run, other, rng):
    """(name, function that harms a copy of the run), without end: one random harm to each file after the other."""
    names = files_of(run)
    for _ in itertools.count():
        for name in names:
            yield f"a flipped bit of {name}", lambda copy, name=name: flipped(copy / name, rng)
            yield f"a truncated {name}", lambda copy, name=name: truncated(copy / name, rng)
            if name.endswith(".json"):
                yield f"another number in {name}", lambda copy, name=name: altered_number(copy / name, rng)
            if (other / name).exists():
                yield f"{name} of another run", lambda copy, name=name: shutil.copy(other / name, copy / name)
            same = [file for file in names if file != name and Path(file).suffix == Path(name).suffix]
            if same:
                twin = same[int(rng.integers(len(same)))]
                yield f"{name} and {twin} exchanged", lambda copy, name=name, twin=twin: exchanged(copy / name, copy / twin)
        for folder in ("solution", "certified", "solution/eigenvectors.zarr", "records", "measured", "basis"):
            if (run / folder).is_dir() and (other / folder).is_dir():
                yield f"{folder} of another run", lambda copy, folder=folder: replaced(copy / folder, other / folder)


def exchanged(first, second):
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one)


def replaced(folder, other):
    shutil.rmtree(folder)
    shutil.copytree(other, folder)


def same(first, second):
    return len(first) == len(second) and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def findings(whole, tries=None):
    """(what was done and how the run was used, None or what came)."""
    tries = tries or (260 if whole else 24)
    logging.getLogger("curvscope").setLevel(logging.ERROR)  # recoveries are logged
    try:
        for kind in ("krylov", "sketch"):
            with tempfile.TemporaryDirectory() as place:
                yield from _of_kind(kind, Path(place), tries)
    finally:
        logging.getLogger("curvscope").setLevel(logging.NOTSET)


def _of_kind(kind, place, tries):
    run, other, copy = place / "run", place / "other", place / "copy"
    make(kind, 0, run)
    make(kind, 1, other)
    expected = {use: numbers() for use, numbers in uses(kind, 0, run)}
    rng, steps = np.random.default_rng(0), harms(run, other, np.random.default_rng(1))
    for name, harm in itertools.islice(steps, tries):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(run, copy)
        harm(copy)
        listed = list(uses(kind, 0, copy))
        chosen = listed if tries > 100 else [listed[int(rng.integers(len(listed)))]]
        for use, numbers in chosen:
            yield f"{kind}: {name}; {use}", _used(numbers, expected[use])
            if use == "same call":
                break


def _used(numbers, expected):
    try:
        with contextlib.redirect_stderr(None):
            found = numbers()
    except CurvscopeError:
        return None
    except Exception as error:  # noqa: BLE001 -- anything else is what is looked for
        return f"{type(error).__name__}: {str(error)[:150]}"
    return None if same(found, expected) else "other numbers without a word"


def cases(whole=False):
    """(name, held) for each harm and use."""
    for name, found in findings(whole):
        yield name, found is None
