"""Overlap without eigenvectors beside the overlap of computed eigenspaces.

``python benchmarks/without_vectors.py PART [--data DIR]`` with PART

- mnist16: 16 x 16 MNIST at steps 0, 100, 1000, k = 50, 100, 350, beside block Krylov in float64 to residuals of 1e-8, certified
  (D = 7,030; with --data the full MNIST, without it the packaged part);
- 3c3d: CIFAR-10 (needs --data), trained --step steps or from --checkpoint, k = 50, 100, 200, beside certified block Krylov;
- large: GPT-2's architecture with random weights (D = 124,439,808; needs transformers): plan, time and peak memory.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import torch

import curvscope as cs
from curvscope.problems import lowest_of_each_class
from curvscope.subspaces import plan_without_vectors
from curvscope.training import train
from machine import environment

RESULTS = Path(__file__).parent / "results"


class Peak:
    """Largest resident memory while it runs, sampled every 20 ms."""

    def __enter__(self) -> Peak:
        self.bytes, self._stop = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        process = psutil.Process()
        while not self._stop.wait(0.02):
            self.bytes = max(self.bytes, process.memory_info().rss)


def compared(H: cs.Operator, ranking: cs.Ranking, ks: tuple[int, ...], solution: cs.Solution, probes: int, steps: int) -> dict:
    """Both ways of setting the thresholds, for each k."""
    exact = cs.overlap(solution, ranking)
    rows: dict[str, Any] = {}
    for way, known in (("known eigenvalues", solution), ("density", None)):
        started = time.perf_counter()
        found = cs.overlap_without_vectors(H, ranking, max(ks), eigenvalues=known, num_probes=probes, num_steps=steps)
        rows[way] = {"products": found.products, "seconds": time.perf_counter() - started, "k": {}}
        for k in ks:
            off = (found.at(k) - exact.at(k)) / float(found.stderr[k - 1])
            rows[way]["k"][k] = {
                "exact": exact.at(k),
                "estimate": found.at(k),
                "stderr": float(found.stderr[k - 1]),
                "half the steps": float(found.coarse[k - 1]),
                "standard errors off": off,
            }
            print(way, k, {name: f"{value:.3g}" for name, value in rows[way]["k"][k].items()}, flush=True)
    return rows


def mnist16(options: argparse.Namespace) -> dict[str, Any]:
    """Three steps of training, in float64."""
    problem, ks, found = cs.problems.get("mnist16", data=options.data), (50, 100, 350), {}
    recorder = cs.Recorder(problem.model(), [0, 100, 1000])
    train(problem, recorder.model, recorder)
    for step in recorder.recorded:
        model = recorder.load(step, problem.model())
        H = cs.hessian(model, problem.criterion, problem.curvature_batches("train"), dtype=torch.float64)
        solution = cs.certify(H, cs.eigsh(H, 390, method="krylov", tol=1e-8))
        print("step", step, "proven complete:", solution.certificate.complete, flush=True)
        found[step] = compared(H, cs.masks.by_magnitude(model), ks, solution, options.probes, options.steps)
    return {"full data": options.data is not None, "steps": found}


def cifar10(options: argparse.Namespace) -> dict[str, Any]:
    """One checkpoint of 3c3d on the training samples."""
    problem = cs.problems.get("cifar10_3c3d", data=options.data)
    model = problem.model()
    if options.checkpoint:
        model.load_state_dict(torch.load(options.checkpoint, weights_only=True))
    else:
        recorder = cs.Recorder(model, [options.step])
        train(problem, model, recorder)
        recorder.load(options.step, model)
    x, y = (torch.cat(part) for part in zip(*problem.curvature_batches("train"), strict=True))
    chosen = lowest_of_each_class(y, options.per_class)
    data = list(zip(x[chosen].split(125), y[chosen].split(125), strict=True))
    H = cs.hessian(model, problem.criterion, data)
    started = time.perf_counter()
    solution = cs.certify(H, cs.eigsh(H, 201, method="krylov", tol=1e-3))
    krylov = {"products": solution.cost.products + solution.cost.certificate_products, "seconds": time.perf_counter() - started}
    print(krylov, "proven complete:", solution.certificate.complete, flush=True)
    rows = compared(H, cs.masks.by_magnitude(model), (50, 100, 200), solution, options.probes, options.steps)
    return {"step": options.step, "krylov": krylov, **rows}


def large(options: argparse.Namespace) -> dict[str, Any]:
    """A plan, and what it took."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(attn_implementation="eager")).eval()
    ids = torch.randint(0, 50257, (1, 16), generator=torch.Generator().manual_seed(0))
    data = [{"input_ids": ids, "labels": ids}]
    H = cs.hessian(model, "model", data, strategy=options.strategy)
    vector = 4 * H.shape[0]
    places = cs.masks.largest(model, 1000)
    before = psutil.Process().memory_info().rss
    with Peak() as peak:
        plan = plan_without_vectors(H, num_probes=options.probes, num_steps=options.steps, block_size=1)
        print(plan, flush=True)
        started = time.perf_counter()
        found = cs.overlap_without_vectors(
            H, places, 1000, num_probes=options.probes, num_steps=options.steps, block_size=1, progress=True
        )
        seconds = time.perf_counter() - started
    return {
        "D": H.shape[0],
        "plan": str(plan),
        "planned vectors beside the model": plan.vectors,
        "seconds": seconds,
        "products": found.products,
        "seconds a product": seconds / found.products,
        "peak bytes over those of model and operator": peak.bytes - before,
        "in parameter vectors": (peak.bytes - before) / vector,
        "with the operator's copy of its parameters": (peak.bytes - before) / vector + 1,
        "k": {k: [found.at(k), float(found.stderr[k - 1])] for k in (10, 100, 1000)},
        "strategy": H.strategy_report.get("strategy"),
    }


PARTS = {"mnist16": mnist16, "3c3d": cifar10, "large": large}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--data")
    parser.add_argument("--checkpoint")
    parser.add_argument("--step", type=int, default=300)
    parser.add_argument("--per-class", type=int, default=50, help="curvature samples of 3c3d")
    parser.add_argument("--probes", type=int, default=10)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--strategy", default="auto")
    parser.add_argument("--out", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    record = {
        "environment": environment(("numpy",)),
        "options": {k: str(v) for k, v in vars(chosen).items() if k in ("part", "probes", "steps", "step", "per_class")},
    }
    record["found"] = PARTS[chosen.part](chosen)
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / f"without-vectors-{chosen.part}.json").write_text(json.dumps(record, indent=1) + "\n")
