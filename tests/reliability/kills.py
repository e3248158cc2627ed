"""Solves that are killed as by kill -9, again and again, when a file is about to be put in its place."""

import importlib.util
import random
import tempfile
from pathlib import Path

import torch

# By its place: pytest and benchmarks/reliability.py import this package under different names.
_spec = importlib.util.spec_from_file_location("killed", Path(__file__).parents[1] / "runs" / "killed.py")
killed = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(killed)

METHODS = ("krylov", "seigh", "hmt", "nystrom", "singlepass", "ssvd", "exact")


def cases(whole=False):
    """Yield (which kill, whether the run went on and in the end had the bits of a run that nobody killed)."""
    for seed in range(3 if whole else 1):
        generator = random.Random(seed)
        for method in METHODS if whole else ("krylov", "seigh"):
            with tempfile.TemporaryDirectory() as place:
                run, died = Path(place) / "run", 0
                while died < (20 if whole else 5):
                    if not killed.session(method, run, generator.randint(1, killed.MOST_FILES.get(method, 15))):
                        break
                    died += 1
                held = _same(method, run, Path(place) / "whole")
                for number in range(died):
                    yield f"{method}, kill {number + 1}", held


def _same(method, run, whole):
    A = killed.operator(method)
    found, alone = killed.SOLVES[method](A, run), killed.SOLVES[method](A, whole)
    values = "S" if method == "ssvd" else "eigenvalues"
    return torch.equal(getattr(found, values), getattr(alone, values)) and torch.equal(
        found.residual_norms, alone.residual_norms
    )
