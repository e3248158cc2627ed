"""Densities, traces and norms of matrices of known provenance against their exact spectra: false claims and intervals.

    python benchmarks/known_estimators.py [--seeds 3] [--family graph] [--out benchmarks/results]

For every matrix of ``matrices``: the density by quadrature (counts in five intervals, trace, norm), ``trace`` at 30, 60 and 120
products by four methods, the Frobenius norm and the spectral norm. A claim is false where the truth is more than 4 standard
errors off, or above an upper bound.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
import curvscope as cs
from curvscope.estimators import Estimate
from estimators import table
from machine import environment
from matrices import SYMMETRIC, KnownMatrix

CUTS = (0.02, 0.2, 0.5, 0.8, 0.98)
COUNTS, METHODS = (30, 60, 120), ("auto", "xtrace", "hutch++", "hutchinson")
MOST = 4.0
ROUNDING = 1e-8


def density_claims(matrix: KnownMatrix, seed: int) -> Iterator[tuple[str, Estimate, float]]:
    """(name, estimate, truth) of a density with 8 probes of 50 steps."""
    values = matrix.eigenvalues
    found = cs.density(matrix.matrix, num_steps=50, method="lanczos", seed=seed, progress=False)
    low, high = values[0], values[-1]
    yield "density: all", found.count(), float(len(values))
    yield "density: trace", found.trace, float(values.sum())
    yield "density: norm", found.frobenius_norm, float(np.linalg.norm(values))
    for share in CUTS:
        cut = low + share * (high - low) + 1e-7 * (high - low)
        yield "density: counts", found.count(high=cut), float((values <= cut).sum())


def false_claims(matrix: KnownMatrix, seed: int) -> list[str]:
    """All claims of densities and norms that are wrong."""
    wrong = []
    values = matrix.eigenvalues
    scale = len(values) * max(abs(values[0]), abs(values[-1]))
    norm = cs.frobenius_norm(matrix.matrix, max_products=30, seed=seed, progress=False)
    claims = [*density_claims(matrix, seed), ("frobenius_norm", norm, float(np.linalg.norm(values)))]
    for name, estimate, truth in claims:
        slack = ROUNDING * (len(values) if "counts" in name else scale)
        if not abs(estimate.value - truth) <= MOST * estimate.stderr + slack:
            wrong.append(f"{name}: {estimate.value:.6g} +- {estimate.stderr:.2g} for {truth:.6g}")
    top = max(abs(values[0]), abs(values[-1]))
    found = cs.spectral_norm(matrix.matrix, seed=seed, progress=False)
    if not found.value * (1 - 1e-10) <= top <= found.upper * (1 + 1e-10):
        wrong.append(f"spectral_norm: [{found.value:.6g}, {found.upper:.6g}] for {top:.6g}")
    return wrong


def trace_errors(matrix: KnownMatrix, count: int, seeds: int) -> dict[str, tuple[float, int, int]]:
    """Root mean square error, intervals that held, claims beyond 4 standard errors, for each method."""
    truth, result = float(matrix.eigenvalues.sum()), {}
    slack = 1e-12 * float(np.abs(matrix.eigenvalues).sum())
    for method in METHODS:
        found = [cs.trace(matrix.matrix, method=method, max_products=count, seed=s, progress=False) for s in range(seeds)]
        off = np.array([estimate.value - truth for estimate in found])
        half = np.array([estimate.half_width for estimate in found])
        told = np.array([estimate.stderr for estimate in found])
        result[method] = (
            float(np.sqrt((off**2).mean())),
            int((np.abs(off) <= half + slack).sum()),
            int((np.abs(off) > MOST * told + slack).sum()),
        )
    return result


def main() -> None:
    """Run it and write the table."""
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--family", action="append", help="only these families")
    parser.add_argument("--largest", type=int, default=2100, help="D up to which matrices are taken")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    rows = []
    for matrix in SYMMETRIC:
        if arguments.family and matrix.family not in arguments.family:
            continue
        if matrix.matrix.shape[0] > arguments.largest:
            matrix.release()
            continue
        start = time.perf_counter()
        wrong = [text for seed in range(arguments.seeds) for text in false_claims(matrix, seed)]
        row = {"matrix": matrix.name, "family": matrix.family, "D": matrix.matrix.shape[0], "false claims": len(wrong)}
        worst, held, beyond = 0.0, 0, 0
        for count in COUNTS:
            found = trace_errors(matrix, count, arguments.seeds)
            floor = 1e-12 * float(np.abs(matrix.eigenvalues).sum()) or 1e-300
            best = min(error for method, (error, _, _) in found.items() if method != "auto")
            worst = max(worst, found["auto"][0] / max(best, floor))
            held += sum(inside for _, inside, _ in found.values())
            beyond += sum(outside for _, _, outside in found.values())
        total = len(COUNTS) * len(METHODS) * arguments.seeds
        row |= {"auto / best, worst": worst, "trace intervals held": f"{held}/{total}", "beyond 4 s.e.": beyond}
        rows.append(row | {"seconds": round(time.perf_counter() - start, 1)})
        print(rows[-1], *wrong, flush=True)
        matrix.release()
    false, inside = sum(row["false claims"] for row in rows), [row["trace intervals held"].split("/") for row in rows]
    claims = len(rows) * arguments.seeds * (len(CUTS) + 5)
    shares = f"{sum(int(a) for a, _ in inside)} of {sum(int(b) for _, b in inside)}"
    summary = f"{false} of {claims} claims of densities and norms were false; trace intervals held the truth in {shares}."
    print(summary)
    record = {"environment": environment(("numpy", "scipy")), "summary": summary, "rows": rows}
    (arguments.out / "known-estimators.json").write_text(json.dumps(record, indent=1) + "\n")
    versions = ", ".join(f"{name} {number}" for name, number in record["environment"]["versions"].items())
    head = f"# Estimators on matrices of known provenance\n\nWritten by `python benchmarks/{Path(__file__).name} --seeds "
    head += f"{arguments.seeds} --largest {arguments.largest}`; float64, {record['environment']['cpu']}, "
    head += f"{record['environment']['threads']} thread(s); {versions}.\n\n{summary}\n\n"
    (arguments.out / "known-estimators.md").write_text(head + table(rows) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
