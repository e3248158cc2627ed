"""How often intervals over the data hold the population's eigenvalues, where these are known in closed form.

    python benchmarks/population.py [--seeds 500] [--only linear] [--minutes 7] [--out benchmarks/results]
    python benchmarks/population.py mnist16 --data FOLDER [--draws 40] [--minutes 7]

Samples of linear, logistic and softmax regression with Gaussian inputs, and of linear regression with heavy-tailed ones
(Student's t, five degrees of freedom), as in ``cs.population`` with 20 folds and k = 5, on dense matrices. Spectra of the
inputs: with gaps, without (1/j), five close ones, and copies. Cases that the file of results has are not computed again:
``--minutes`` ends a run after the case in which they are over, and the same command resumes it.

An eigenvalue counts as separated where the gaps to both neighbours are above two standard deviations of the sample's.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.linalg import eigh

sys.path.insert(0, str(Path(__file__).parent))
import curvscope as cs
from curvscope.sampling import End, Folded, Pairs, end_of
from estimators import table

K, MORE, FOLDS, DEGREES = 5, 2, 20, 5
SEPARATED = 2.0
MNIST_K, MASK_SIZES = 20, (5, 10, 20)
TARGETS = {"bracket": 0.93, "estimate": 0.92, "estimate at most": 0.98, "valid": 0.8, "width": 2.0}


@dataclass(frozen=True)
class Case:
    """Samples of one model.

    Attributes:
        model: "linear", "logistic", "softmax" or "heavy".
        spectrum: of the inputs.
        size: number of inputs.
        n: samples.
    """

    model: str
    spectrum: str
    size: int
    n: int

    @property
    def name(self) -> str:
        """For the files."""
        return f"{self.model} {self.spectrum} D={self.size} n={self.n}"


def inputs(spectrum: str, size: int) -> np.ndarray:
    """Variances of the inputs."""
    heads = {"gaps": [100, 50, 25, 12, 6], "close": [10, 9.5, 9, 8.5, 8], "copies": [10, 5, 5, 5, 2]}
    if spectrum == "1/j":
        return 1 / np.arange(1, size + 1)
    return np.r_[np.asarray(heads[spectrum], float), np.full(size - 5, 0.1)]


def cases() -> Iterator[Case]:
    """All cases."""
    for spectrum in ("gaps", "1/j", "close", "copies"):
        for n in (50, 200, 2000):
            yield Case("linear", spectrum, 50, n)
            yield Case("heavy", spectrum, 50, n)
        for n in (200, 2000):
            yield Case("logistic", spectrum, 50, n)
        yield Case("softmax", spectrum, 50, 500)
    for spectrum in ("gaps", "1/j"):
        for n in (200, 2000):
            yield Case("linear", spectrum, 500, n)


def probabilities(z: np.ndarray) -> np.ndarray:
    """Of three classes with the logits (z, 0, -z)."""
    logits = np.stack([z, np.zeros_like(z), -z], axis=-1)
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def softmax_hessian(p: np.ndarray) -> np.ndarray:
    """diag(p) - p p'."""
    return p[..., :, None] * np.eye(3) - p[..., :, None] * p[..., None, :]


def draw(case: Case, rng: np.random.Generator) -> np.ndarray:
    """(n, r, D) factors F_i: the matrix of sample i is F_i' F_i. Logits depend on the first input, scaled to variance one."""
    variances = inputs(case.spectrum, case.size)
    if case.model == "heavy":
        z = rng.standard_t(DEGREES, (case.n, case.size)) / np.sqrt(DEGREES / (DEGREES - 2))
    else:
        z = rng.standard_normal((case.n, case.size))
    x = z * np.sqrt(variances)
    if case.model == "logistic":
        slope = 1 / (1 + np.exp(-z[:, 0]))
        x = x * np.sqrt(slope * (1 - slope))[:, None]
    if case.model != "softmax":
        return x[:, None, :]
    values, vectors = np.linalg.eigh(softmax_hessian(probabilities(z[:, 0])))
    roots = vectors[:, :, 1:] * np.sqrt(np.maximum(values[:, None, 1:], 0))
    return np.einsum("ncr,nd->nrcd", roots, x).reshape(case.n, 2, -1)


def truth(case: Case) -> np.ndarray:
    """The six largest eigenvalues of the population's matrix: closed forms, with quadrature over the input in the logits."""
    variances = inputs(case.spectrum, case.size)
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = weights / weights.sum()
    match case.model:
        case "logistic":
            slope = 1 / (1 + np.exp(-nodes))
            slope = slope * (1 - slope)
            values = np.r_[variances[0] * (weights * slope * nodes**2).sum(), variances[1:] * (weights * slope).sum()]
        case "softmax":
            local = softmax_hessian(probabilities(nodes))
            first = np.linalg.eigvalsh(np.einsum("q,qij->ij", weights * nodes**2, local))
            others = np.linalg.eigvalsh(np.einsum("q,qij->ij", weights, local))
            values = np.r_[variances[0] * first, np.outer(variances[1:], others).ravel()]
        case _:
            values = variances
    return np.sort(values)[::-1][: K + 1]


def pairs_of(rows: np.ndarray, n: int) -> Pairs:
    """The K + MORE largest pairs of rows' rows / n."""
    count, size = rows.shape
    wanted = min(K + MORE, count)
    if count < size:
        values, left = eigh(rows @ rows.T / n, subset_by_index=[count - wanted, count - 1])
        vectors = np.linalg.qr(rows.T @ left)[0]
    else:
        values, vectors = eigh(rows.T @ rows / n, subset_by_index=[size - wanted, size - 1])
    return Pairs(torch.from_numpy(values[::-1].copy()), torch.from_numpy(vectors[:, ::-1].copy()), float(values[0]))


def folded_of(factors: np.ndarray) -> Folded:
    """The folds of a sample, in the span of the pairs of the whole and of both halves."""
    n, size = len(factors), factors.shape[2]
    fold = np.arange(n) * FOLDS // n
    half = int((fold < FOLDS // 2).sum())
    parts = [pairs_of(part.reshape(-1, size), len(part)) for part in (factors, factors[:half], factors[half:])]
    basis = np.linalg.qr(np.hstack([pairs.vectors.numpy() for pairs in parts]))[0]
    inside = factors @ basis
    cores = [np.tensordot(inside[fold == g], inside[fold == g], ([0, 1], [0, 1])) / (fold == g).sum() for g in range(FOLDS)]
    shares = torch.from_numpy(np.bincount(fold) / n)
    small = [Pairs(pairs.values, torch.from_numpy(basis.T @ pairs.vectors.numpy()), pairs.rest) for pairs in parts]
    return Folded(shares, torch.from_numpy(np.array(cores)), small[0], (small[1], small[2]))


def held(end: End, values: np.ndarray) -> dict[str, list[float]]:
    """Return which of one sample's intervals hold their eigenvalues, and how wide they are."""
    true = torch.from_numpy(values[:K].copy())

    def inside(found: Any) -> list[float]:
        """Return 1 for each eigenvalue between its limits, 0 for the others."""
        return ((found.lower <= true) & (true <= found.upper)).double().tolist()

    means = [group.lower <= float(true[list(group.members)].mean()) <= group.upper for group in end.close]
    return {
        "bracket": inside(end.limits),
        "estimate": inside(end.found),
        "valid": end.valid.double().tolist(),
        "width": (end.limits.upper - end.limits.lower).tolist(),
        "groups": [float(sum(means)), float(len(means))],
    }


def summary(case: Case, seeds: int) -> dict[str, Any]:
    """Coverage, validity and widths of one case."""
    values, found, samples = truth(case), [], []
    for seed in range(seeds):
        folded = folded_of(draw(case, np.random.default_rng(seed)))
        samples.append(folded.whole.values[:K].numpy())
        found.append(held(end_of(folded, K), values))
    columns = {name: np.array([one[name] for one in found]) for name in found[0]}
    deviation = np.std(samples, axis=0)
    gaps = -np.diff(values)
    separation = np.minimum(np.r_[np.inf, gaps[: K - 1]], gaps) / deviation
    valid = columns["valid"]
    counts = valid.sum(0)
    where_valid = (columns["estimate"] * valid).sum(0) / np.maximum(counts, 1)
    held_means, means = columns["groups"].sum(0)
    return {
        "case": case.name,
        "seeds": seeds,
        "separation": separation.tolist(),
        "bracket": columns["bracket"].mean(0).tolist(),
        "width": (columns["width"].mean(0) / (4 * deviation)).tolist(),
        "valid": valid.mean(0).tolist(),
        "estimate where valid": [float(x) if count else None for x, count in zip(where_valid, counts, strict=True)],
        "estimate anywhere": columns["estimate"].mean(0).tolist(),
        "group means held": [held_means, means],
    }


def shown(row: dict[str, Any]) -> dict[str, str]:
    """One row of the table."""

    def numbers(name: str, form: str = ".2f") -> str:
        """All eigenvalues of one column."""
        return " ".join("-" if x is None else format(x, form) for x in row[name])

    of_means = row["group means held"]
    return {
        "case": row["case"],
        "samples": str(row["seeds"]),
        "gap / s.d.": numbers("separation", ".1f"),
        "bracket holds": numbers("bracket"),
        "width / 4 s.d.": numbers("width", ".1f"),
        "valid": numbers("valid"),
        "estimate holds where valid": numbers("estimate where valid"),
        "means of close groups hold": f"{of_means[0]:.0f} of {of_means[1]:.0f}" if of_means[1] else "-",
    }


def overall(rows: list[dict[str, Any]]) -> list[str]:
    """Sum the table up beside the targets, in sentences."""
    flat = [
        (row["case"], int(row["case"].rsplit("n=")[-1]), *numbers)
        for row in rows
        for numbers in zip(
            row["separation"], row["bracket"], row["width"], row["valid"], row["estimate where valid"], strict=True
        )
    ]
    apart = [one for one in flat if one[2] > SEPARATED and one[1] >= 200]
    counted = [one for one in flat if one[6] is not None and one[5] > 0.1]
    worst = min(flat, key=lambda one: one[3])
    said = [
        f"Bracket: {min(one[3] for one in flat):.3f} at least ({worst[0]}), {np.mean([one[3] for one in flat]):.3f} on average."
    ]
    if apart:
        wide, sure = [one for one in apart if one[4] > TARGETS["width"]], [one[6] for one in apart if one[6] is not None]
        said += [
            f"Separated eigenvalues at n >= 200 ({len(apart)}): width / 4 s.d. {np.mean([one[4] for one in apart]):.2f} on "
            f"average, above {TARGETS['width']:g} for {len(wide)}.",
            f"Their estimates: valid for {np.mean([one[5] for one in apart]):.3f}, holding where valid {np.mean(sure):.3f} on "
            f"average, {min(sure):.3f} to {max(sure):.3f}.",
        ]
    close = [one for one in flat if one[2] <= SEPARATED and one[6] is not None and one[5] > 0]
    if close:
        share = np.mean([one[5] for one in flat if one[2] <= SEPARATED])
        mean = np.average([one[6] for one in close], weights=[one[5] for one in close])
        said += [f"Eigenvalues that are not separated: estimates valid for {share:.3f}, holding there in {mean:.3f}."]
    outside = [one for one in counted if not TARGETS["estimate"] <= one[6] <= TARGETS["estimate at most"]]
    said += [f"Estimates outside of 0.92 to 0.98 where valid in a tenth of the samples: {len(outside)} of {len(counted)}."]
    return said


def write(rows: list[dict[str, Any]], out: Path, name: str, head: str) -> None:
    """Write both files."""
    (out / f"{name}.json").write_text(json.dumps(rows, indent=1) + "\n")
    (out / f"{name}.md").write_text(head + table([shown(row) for row in rows]) + "\n")


def simulate(arguments: argparse.Namespace) -> None:
    """Compute what the results do not have, and write the table."""
    file = arguments.out / "population.json"
    known = {row["case"]: row for row in json.loads(file.read_text())} if file.exists() else {}
    end = time.monotonic() + 60 * arguments.minutes
    for case in cases():
        if arguments.only and arguments.only not in case.name:
            continue
        if known.get(case.name, {}).get("seeds", 0) >= arguments.seeds:
            continue
        if time.monotonic() > end:
            print("stopped: the same command resumes it", flush=True)
            return
        known[case.name] = summary(case, arguments.seeds)
        print(shown(known[case.name]), flush=True)
        rows = [known[one.name] for one in cases() if one.name in known]
        said = "\n".join(f"- {line}" for line in overall(rows))
        head = "# Intervals over the data where the population is known\n\nWritten by `python benchmarks/population.py "
        seeds = sorted({row["seeds"] for row in rows})
        head += (
            f"--seeds {arguments.seeds}`; {' to '.join(map(str, sorted({seeds[0], seeds[-1]})))} samples a case, level 0.95, "
        )
        head += f"20 folds; columns hold the {K} largest eigenvalues.\n\n{said}\n\n"
        if len(seeds) > 1:
            head += "Rows of fewer samples are of an earlier version, whose upper limits were narrower (60 % of the error "
            head += "probability, now 30 %).\n\n"
        write(rows, arguments.out, "population", head)


def mnist16(arguments: argparse.Namespace) -> None:
    """Draws of 500 test images against all of them, at steps 100 and 1000 of training."""
    problem = cs.problems.get("mnist16", data=arguments.data)
    file = arguments.out / "population-mnist16-draws.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    end = time.monotonic() + 60 * arguments.minutes
    model = problem.model()
    optimizer = torch.optim.SGD(model.parameters(), lr=problem.defaults.learning_rate)
    batches = problem.train_batches()
    for step in range(1, 1001):
        a, b = next(batches)
        optimizer.zero_grad()
        problem.criterion(model(a), b).backward()
        optimizer.step()
        if step in (100, 1000):
            done = known.setdefault(str(step), [])
            population = (
                Images(problem.criterion, model, *problem.digits.split("test")) if len(done) < arguments.draws else None
            )
            while population is not None and len(done) < arguments.draws and time.monotonic() < end:
                done.append(population.draw(len(done)))
                print(step, len(done), flush=True)
                file.write_text(json.dumps(known))
    rows = [summary_of_draws(int(step), done) for step, done in known.items() if done]
    (arguments.out / "population-mnist16.json").write_text(json.dumps(rows, indent=1) + "\n")


class Images:
    """All test images as the population, of which samples are drawn.

    Args:
        criterion: loss.
        model: network.
        x: images.
        y: labels.
    """

    def __init__(self, criterion: Callable[..., Any], model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
        self.criterion, self.model, self.x, self.y = criterion, model, x, y
        whole = cs.hessian(model, criterion, list(zip(x.split(1000), y.split(1000), strict=True)))
        solution = cs.eigsh(whole, k=MNIST_K, which="LA", progress=False)
        self.true, self.mask = solution.eigenvalues, cs.masks.by_magnitude(model)
        self.overlaps = cs.overlap(solution, self.mask).value

    def draw(self, number: int, size: int = 500) -> dict[str, list[float]]:
        """Return which intervals of one sample hold the values of all images, for eigenvalues and for overlaps with a mask."""
        chosen = torch.from_numpy(np.random.default_rng(number).permutation(len(self.y))[:size])
        operator = cs.hessian(self.model, self.criterion, [(self.x[chosen], self.y[chosen])])
        solution = cs.eigsh(operator, k=MNIST_K, which="LA", progress=False)
        found = cs.population(operator, solution, masks=self.mask, seed=number, progress=False)
        (curve,) = found.overlaps.values()
        assert curve.sampling_lower is not None, "of cs.population"
        assert curve.sampling_upper is not None, "of cs.population"

        def inside(low: torch.Tensor, high: torch.Tensor, true: torch.Tensor) -> list[float]:
            """Return 1 for each true value between the limits."""
            return ((low <= true) & (true <= high)).double().tolist()

        return {
            "bracket": inside(*found.sampling_bracket.T, self.true),
            "estimate": inside(*found.sampling_interval.T, self.true),
            "valid": found.valid.double().tolist(),
            "overlap": inside(curve.sampling_lower, curve.sampling_upper, self.overlaps),
            "overlap width": (curve.sampling_upper - curve.sampling_lower).tolist(),
        }


def summary_of_draws(step: int, draws: list[dict[str, list[float]]]) -> dict[str, Any]:
    """Coverage of the values of all images."""
    columns = {name: np.array([one[name] for one in draws]) for name in draws[0]}
    valid, estimated = columns["valid"], columns["estimate"]
    return {
        "step": step,
        "draws": len(draws),
        "bracket": float(columns["bracket"].mean()),
        "bracket by eigenvalue": columns["bracket"].mean(0).tolist(),
        "estimate anywhere": float(estimated.mean()),
        "estimate where valid": float((estimated * valid).sum() / valid.sum()) if valid.any() else None,
        "valid": float(valid.mean()),
        "overlap with the magnitude mask": {k: float(columns["overlap"][:, k - 1].mean()) for k in MASK_SIZES},
        "width of its interval": {k: float(columns["overlap width"][:, k - 1].mean()) for k in MASK_SIZES},
    }


def main() -> None:
    """Run one of both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("known", "mnist16"), default="known")
    parser.add_argument("--seeds", type=int, default=500)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="end after the case in which they are over")
    parser.add_argument("--only", help="cases with this in their name")
    parser.add_argument("--draws", type=int, default=40)
    parser.add_argument("--data", type=Path, help="of mnist16: folder with MNIST/raw")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    (mnist16 if arguments.what == "mnist16" else simulate)(arguments)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
