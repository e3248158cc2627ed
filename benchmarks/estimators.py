"""Densities and traces of the mnist16 Hessian beside PyHessian's and curvlinops', against the exact spectrum.

``python benchmarks/estimators.py exact density trace masses --cache DIR --out benchmarks/results`` needs pyhessian and
curvlinops; all with as many products. exact: trains the packaged problem, dense float64 spectra at steps 0, 100, 1,000 (kept
in DIR, which must lie outside the repository; two minutes); density: Wasserstein-1 distance over the range, 10 x 100 products,
and outlier counts; trace: relative errors at 60, 120 and 240 products, root mean squares over 100 seeds (25 minutes); plain:
what plain sampling would have there, exactly (a minute); masses: how often 13 intervals lie within 3 standard errors, 200
seeds; calibration: six spectra, D = 400, errors of our trace over Hutchinson's, whether its standard errors are right, and how
often its 95 % intervals hold the truth.
Seconds are CPU seconds, which other load changes little: run with OMP_NUM_THREADS=1 MKL_NUM_THREADS=1.
"""

import argparse
import json
import math
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import curvscope as cs
from curvscope.estimators import Density
from curvscope.operators.base import Operator
from curvscope.system import long_work
from curvscope.training import train
from machine import environment

STEPS = (0, 100, 1000)
PROBES, LANCZOS_STEPS, SEEDS = 10, 100, 3
INTERVALS = [
    *((3, 99), (1, 99), (0.3, 99), (0.1, 0.3), (0.03, 0.1), (0.01, 0.03), (0.003, 0.01), (-0.003, 0.003), (-0.001, 0.001)),
    *((-0.03, -0.01), (-0.1, -0.03), (-99, -0.01), (-99, -0.1)),
]


class Case:
    """The network at one step, its data, and the exact spectrum."""

    def __init__(self, step: int, cache: Path) -> None:
        self.step, self.problem = step, cs.problems.get("mnist16")
        model = self.problem.model()
        self.model = cs.Recorder(model, STEPS, path=cache / "parameters", resume=True).load(step, model).double()
        (batch,) = self.problem.curvature_batches("train")
        self.x, self.y = batch[0].double(), batch[1]
        self.H = cs.hessian(self.model, self.problem.criterion, [(self.x, self.y)])
        self.values = None
        if (cache / f"exact-{step}.pt").exists():
            self.values = torch.load(cache / f"exact-{step}.pt", weights_only=True)["eigenvalues"]

    @property
    def range(self) -> float:
        """Largest less smallest eigenvalue."""
        return float(self.values.max() - self.values.min())

    def pyhessian(self) -> object:
        """PyHessian's object; its use of ``torch.eig``, which PyTorch has dropped, is served by ``torch.linalg.eigh``."""
        from pyhessian import hessian

        torch.eig = lambda matrix, eigenvectors: _eig(matrix.double())
        return hessian(self.model, self.problem.criterion, data=(self.x, self.y), cuda=False)

    def curvlinops(self) -> object:
        """Curvlinops' Hessian."""
        from curvlinops import HessianLinearOperator

        parameters = dict(self.model.named_parameters())
        try:
            return HessianLinearOperator(self.model, self.problem.criterion, parameters, [(self.x, self.y)])
        except (TypeError, ValueError, AttributeError):
            return HessianLinearOperator(self.model, self.problem.criterion, list(parameters.values()), [(self.x, self.y)])


def _eig(matrix: Tensor) -> tuple[Tensor, Tensor]:
    values, vectors = torch.linalg.eigh(matrix)
    return values[:, None], vectors


def exact(cache: Path) -> None:
    """Train, and keep the dense spectra."""
    problem = cs.problems.get("mnist16")
    recorder = cs.Recorder(problem.model(), STEPS, path=cache / "parameters", resume=True)
    if recorder.recorded != list(STEPS):
        train(problem, recorder.model, recorder)
    for step in STEPS:
        if not (cache / f"exact-{step}.pt").exists():
            values = cs.density(Case(step, cache).H, method="exact").exact
            torch.save({"eigenvalues": values}, cache / f"exact-{step}.pt")


def timed(action: Callable[[], object]) -> tuple[object, float]:
    """Return the result, and its CPU seconds."""
    start = time.process_time()
    return action(), time.process_time() - start


def atoms(nodes: Tensor, weights: Tensor, values: Tensor) -> float:
    """W1 distance of atoms to a spectrum."""
    from scipy.stats import wasserstein_distance

    keep = weights.abs() > 0
    return float(wasserstein_distance(nodes[keep], values, weights[keep].clamp(min=0), torch.ones_like(values)))


def density(cache: Path) -> list[dict]:
    """One row a step and library."""
    rows = []
    for case in (Case(step, cache) for step in STEPS):
        methods = {
            "curvscope": lambda seed, case=case: cs.density(
                case.H, num_probes=PROBES, num_steps=LANCZOS_STEPS, seed=seed, method="lanczos"
            ),
            "PyHessian (its nodes and weights)": lambda seed, case=case: _pyhessian_density(case, seed),
            "curvlinops (its nodes and weights)": lambda seed, case=case: _curvlinops_nodes(case, seed),
            "curvlinops (its curve)": lambda seed, case=case: _curvlinops_curve(case, seed),
        }
        with long_work():  # traced once, before the clock
            case.H @ torch.randn(case.H.shape[0], PROBES, dtype=torch.float64)
        for name, method in methods.items():
            errors, seconds = [], []
            for seed in range(SEEDS):
                found, spent = timed(lambda method=method, seed=seed: method(seed))
                if isinstance(found, Density):
                    errors.append(found.distance(case.values) / case.range)
                    last = found
                else:
                    errors.append(atoms(*found, case.values) / case.range)
                seconds.append(spent)
            row = {"step": case.step, "library": name, "W1 / range": statistics.median(errors), "worst": max(errors)}
            row["CPU s"] = statistics.median(seconds)
            if name == "curvscope":
                row["outliers"] = {r: [last.outliers(r), cs.count_outliers(case.values, r)] for r in ("gap", "ratio", "elbow")}
                row["counted exactly"] = len(last.exact)
            rows.append(row)
            print(row, flush=True)
    return rows


def _pyhessian_density(case: Case, seed: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    nodes, weights = case.pyhessian().density(iter=LANCZOS_STEPS, n_v=PROBES)
    return torch.tensor(nodes).double().flatten(), torch.tensor(weights).double().flatten() / PROBES


def _curvlinops_nodes(case: Case, seed: int) -> tuple[Tensor, Tensor]:
    from curvlinops.papyan2020traces.spectrum import fast_lanczos

    torch.manual_seed(seed)
    runs = [fast_lanczos(case.curvlinops(), LANCZOS_STEPS) for _ in range(PROBES)]
    weights = torch.cat([vectors[0].square() for _, vectors in runs]) / PROBES
    return torch.cat([nodes for nodes, _ in runs]), weights


def _curvlinops_curve(case: Case, seed: int) -> tuple[Tensor, Tensor]:
    from curvlinops import lanczos_approximate_spectrum

    torch.manual_seed(seed)
    ends = (float(case.values.min()), float(case.values.max()))  # given, so that no product goes into finding them
    grid, curve = lanczos_approximate_spectrum(case.curvlinops(), LANCZOS_STEPS, num_repeats=PROBES, boundaries=ends)
    return grid, curve


def trace(cache: Path, seeds: int = 100) -> list[dict]:
    """Relative errors of the trace, root mean square over seeds.

    PyHessian's own stop is off: it ends at once where its running mean is negative.
    """
    from curvlinops import hutchinson_trace, hutchpp_trace, xtrace

    rows = []
    for case in (Case(step, cache) for step in STEPS):
        truth = float(case.values.sum())
        known, spent_known = timed(lambda case=case: cs.eigsh(case.H, 10, method="krylov", tol=1e-3))
        before = known.cost.products + known.cost.certificate_products
        peer, hers = case.curvlinops(), case.pyhessian()
        for count in (60, 120, 240):
            methods = {
                "curvscope": lambda seed, case=case, count=count: cs.trace(case.H, max_products=count, seed=seed),
                "curvscope (10 pairs deflated)": lambda seed, case=case, left=count - before, known=known: cs.trace(
                    case.H, max_products=max(6, left), deflate=known, seed=seed
                ),
                "curvlinops xtrace": lambda seed, peer=peer, count=count: _seeded(seed, lambda: xtrace(peer, count)),
                "curvlinops hutch++": lambda seed, peer=peer, count=count: _seeded(seed, lambda: hutchpp_trace(peer, count)),
                "curvlinops hutchinson": lambda seed, peer=peer, count=count: _seeded(
                    seed, lambda: hutchinson_trace(peer, count)
                ),
                "PyHessian": lambda seed, hers=hers, count=count: _seeded(
                    seed, lambda: statistics.fmean(hers.trace(maxIter=count, tol=-math.inf))
                ),
            }
            if before > count - 20:
                del methods["curvscope (10 pairs deflated)"]
            runs = {name: [] for name in methods}
            for seed in range(seeds):  # in turn, so that other load is the same for all
                for name, method in methods.items():
                    runs[name].append(timed(lambda method=method, seed=seed: method(seed)))
            for name, found in runs.items():
                error = statistics.fmean(((float(value) - truth) / truth) ** 2 for value, _ in found) ** 0.5
                told = statistics.median(getattr(value, "stderr", float("nan")) / abs(truth) for value, _ in found)
                seconds = statistics.median(spent for _, spent in found) + (spent_known if "deflated" in name else 0)
                row = {"step": case.step, "products": count, "seeds": seeds, "method": name, "relative error": error}
                rows.append(row | {"told": told, "CPU s": seconds})
                print(rows[-1], flush=True)
    return rows


def plain(cache: Path) -> list[dict]:
    """The exact relative error of plain (Hutchinson) sampling by random signs, from the exact spectrum and diagonal."""
    rows = []
    for case in (Case(step, cache) for step in STEPS):
        size, truth = case.H.shape[0], float(case.values.sum())
        diagonal = cs.diagonal(case.H, method="exact", max_products=size, progress=False).value
        one = 2 * float(case.values.square().sum() - diagonal.square().sum())
        rows += [{"step": case.step, "products": n, "relative error": (one / n) ** 0.5 / truth} for n in (60, 120, 240)]
    return rows


def spectra(size: int) -> dict[str, Tensor]:
    """Eigenvalues of many kinds, a third of them negative except where said."""
    random = torch.Generator().manual_seed(0)
    i = torch.arange(1, size + 1, dtype=torch.float64)
    signs = torch.where(torch.rand(size, generator=random, dtype=torch.float64) < 0.35, -1.0, 1.0).double()
    noise = 0.1 * torch.randn(size, generator=random, dtype=torch.float64)
    noise[:10] = torch.linspace(10, 3, 10, dtype=torch.float64)
    slow, fast = signs * i**-0.5, signs / i
    bulk = 1e-4 * torch.randn(size, generator=random, dtype=torch.float64)
    outliers, copies, signed, below = (bulk.clone() for _ in range(4))
    outliers[:50], copies[:50] = torch.linspace(1, 2, 50, dtype=torch.float64), 1.0
    signed[:25], signed[25:50] = 1.0, -1.0
    below[:5], below[5:55] = 100.0, 1.0
    return {
        "50 outliers": outliers,
        "50 copies": copies,
        "25 copies of both signs": signed,
        "5 and 50 copies": below,
        "+-1": signs,
        "i^-1/2": slow,
        "1/i": fast,
        "1/i > 0": 1 / i,
        "e^(-i/20)": signs * (-i / 20).exp(),
        "10 + noise": noise,
    }


def calibration(cache: Path, size: int = 400, seeds: int = 100) -> list[dict]:
    """Errors of the trace over the Hutchinson error, the standard error told over the true one, how often intervals hold."""
    random, rows = torch.Generator().manual_seed(1), []
    U = torch.linalg.qr(torch.randn(size, size, generator=random, dtype=torch.float64)).Q
    for name, values in spectra(size).items():
        A = (U * values) @ U.T
        A, plain = (A + A.T) / 2, float(values.norm()) * 2**0.5
        for count in (12, 30, 100, 120):
            row = {"spectrum": name, "products": count, "seeds": seeds}
            for method in ("auto", "hutch++", "hutchinson"):
                found = [cs.trace(A, method=method, max_products=count, seed=seed) for seed in range(seeds)]
                off = torch.tensor([estimate.value for estimate in found], dtype=torch.float64) - values.sum()
                told = torch.tensor([estimate.stderr for estimate in found], dtype=torch.float64)
                error = float(off.square().mean().sqrt())
                row[f"{method}: error"] = error / plain * count**0.5
                row[f"{method}: told / true"] = float(told.square().mean().sqrt()) / error
                row[f"{method}: mean / its s.e."] = float(off.mean() / off.std()) * seeds**0.5
                widths = torch.tensor([estimate.half_width for estimate in found], dtype=torch.float64)
                row[f"{method}: held"] = float((off.abs() <= widths).double().mean())
            rows.append(row)
            print(row, flush=True)
    return rows


def _seeded(seed: int, action: Callable[[], object]) -> float:
    torch.manual_seed(seed)
    return float(action())


class Diagonal(Operator):
    """The exact eigenvalues on a diagonal: uniformly random probes do not see the eigenvectors, the statistics are the same."""

    hermitian, dtype, device = True, torch.float64, torch.device("cpu")

    def __init__(self, values: Tensor) -> None:
        self.values, self.shape = values, (len(values), len(values))

    def _apply(self, block: Tensor) -> Tensor:
        return self.values[:, None] * block

    def _fingerprint(self) -> str:
        return "diagonal"


def masses(cache: Path, seeds: int = 200) -> list[dict]:
    """For each interval the share of seeds whose mass lies within 3 standard errors."""
    rows = []
    for step in (100, 1000):
        values = Case(step, cache).values
        operator = Diagonal(values)
        inside, errors = [0] * len(INTERVALS), [0.0] * len(INTERVALS)
        for seed in range(seeds):
            found = cs.density(operator, num_probes=PROBES, num_steps=LANCZOS_STEPS, seed=seed, method="lanczos")
            for i, (low, high) in enumerate(INTERVALS):
                mass, truth = found.mass(low, high), float(((values >= low) & (values <= high)).double().mean())
                inside[i] += abs(mass.value - truth) <= 3 * mass.stderr + 1e-12
                errors[i] += abs(mass.value - truth) / seeds
        for (low, high), good, error in zip(INTERVALS, inside, errors, strict=True):
            count = int(((values >= low) & (values <= high)).sum())
            row = {"step": step, "interval": f"[{low}, {high}]", "eigenvalues": count, "seeds": seeds}
            rows.append(row | {"within 3 s.e.": good / seeds, "mean error (eigenvalues)": error * len(values)})
            print(rows[-1], flush=True)
    return rows


def table(rows: list[dict]) -> str:
    """Markdown."""
    heads = list(dict.fromkeys(key for row in rows for key in row))
    lines = [f"| {' | '.join(heads)} |", "|" + " --- |" * len(heads)]
    for row in rows:
        cells = [f"{row.get(h, ''):.3g}" if isinstance(row.get(h), float) else str(row.get(h, "")) for h in heads]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run the parts and write them."""
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="+", choices=("exact", "density", "trace", "plain", "masses", "calibration"))
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--seeds", type=int, help="of trace (default 100) and masses (default 200)")
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    for part in arguments.parts:
        if part == "exact":
            exact(arguments.cache)
            continue
        seeds = {"seeds": arguments.seeds} if part in ("trace", "masses") and arguments.seeds else {}
        rows = globals()[part](arguments.cache, **seeds)
        record = {"environment": environment(("pyhessian", "curvlinops-for-pytorch")), "rows": rows}
        (arguments.out / f"estimators-{part}.json").write_text(json.dumps(record, indent=1) + "\n")
        made = ", ".join(f"{name} {number}" for name, number in record["environment"]["versions"].items())
        what = "D = 400" if part == "calibration" else "mnist16, D = 7,030"
        head = f"# Estimators: {part}\n\nWritten by `python benchmarks/estimators.py {part}`; {what}, float64, "
        head += f"{record['environment']['cpu']}, {record['environment']['threads']} thread(s); {made}.\n\n"
        (arguments.out / f"estimators-{part}.md").write_text(head + table(rows) + "\n")


if __name__ == "__main__":
    main()
