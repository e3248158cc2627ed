"""Claims and products on matrices of known provenance, against dense float64 spectra and ARPACK.

``python benchmarks/known_matrices.py --out RESULT.json`` solves every matrix of ``benchmarks/matrices`` for every order, k in
1, 5, 20, 100 and two tolerances with ``eigsh`` and ARPACK, the rectangular ones with ``svds``, certifies each solution, and
counts false claims, products and CPU seconds. ``--only NAME`` takes matrices with that name or family, ``--pairs``,
``--tols`` and ``--orders`` fewer cases, ``--largest`` leaves out larger matrices; ``--table RESULT.json`` prints the table of
an earlier result. ``--seconds`` ends the run after a time, and the same command resumes it: cases that ``--out`` has are not
solved again. SciPy is needed; run with OMP_NUM_THREADS=1 MKL_NUM_THREADS=1.
"""

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse.linalg as scipy_linalg
import torch

import curvscope as cs
from curvscope.solvers.planning._forecast import KRYLOV_SPREAD
from curvscope.solvers.sizing import default_width, expected_products
from machine import cpu
from matrices import MATRICES, KnownMatrix

ORDERS, PAIRS, TOLERANCES = ("LM", "LA", "SA", "BE"), (1, 5, 20, 100), (1e-3, 1e-8)
MOST_PRODUCTS = 10_000
"""Products after which ARPACK gives up; ``curvscope`` does after 5,000 to 10,000."""
ROUNDING = 50 * np.finfo(float).eps


class Counted:
    """A matrix whose products are counted, for both libraries."""

    def __init__(self, matrix: Any) -> None:
        self.matrix, self.shape, self.dtype, self.count = matrix, matrix.shape, np.dtype(np.float64), 0

    def __matmul__(self, block: Any) -> np.ndarray:
        block = np.asarray(block)
        self.count += 1 if block.ndim == 1 else block.shape[1]
        return np.asarray(self.matrix @ block)

    def adjoint(self) -> "Counted":
        """The transpose, counted by itself."""
        return Counted(self.matrix.T)

    def scipy(self) -> scipy_linalg.LinearOperator:
        """As SciPy takes it."""
        return scipy_linalg.LinearOperator(self.shape, matvec=lambda x: self @ x, dtype=self.dtype)


def wanted(values: np.ndarray, k: int, which: str) -> np.ndarray:
    """The k first of ascending eigenvalues in an order; magnitudes for LM."""
    match which:
        case "LM":
            return np.sort(np.abs(values))[::-1][:k]
        case "LA":
            return values[::-1][:k]
        case "SA":
            return values[:k]
    return np.concatenate([values[::-1][: k - k // 2], values[: k // 2]])


def misses(found: np.ndarray, exact: np.ndarray, which: str, tol: float) -> bool:
    """Return whether sorted values differ from the exact ones by more than the tolerance, so that one is missing or wrong."""
    k, norm = len(found), float(np.abs(exact).max())
    true, ours = np.sort(wanted(exact, k, which)), np.sort(np.abs(found) if which == "LM" else found)
    allowed = 1.05 * np.maximum(tol * np.abs(true), 10 * np.finfo(float).eps * norm) + ROUNDING * norm
    return bool((np.abs(true - ours) > allowed).any())


def false_certificate(solution: cs.Solution, exact: np.ndarray) -> bool:
    """Return whether an interval holds no eigenvalue, or pairs that are certified complete are not the first ones."""
    norm = float(np.abs(exact).max())
    lower, upper = solution.intervals.numpy().T
    slack, certificate = 150 * np.finfo(float).eps * norm, solution.certificate
    distance = np.maximum(0, np.maximum(lower[:, None] - exact, exact - upper[:, None])).min(axis=1)
    wrong = bool((distance > slack).any())
    if (j := certificate.complete) and solution.order != "BE":
        found = solution.eigenvalues.numpy()[:j]
        found = np.abs(found) if solution.order == "LM" else found
        wrong |= bool((np.abs(found - wanted(exact, j, solution.order)) > float(certificate.rho[j - 1]) + slack).any())
    return wrong


def arpack(matrix: KnownMatrix, k: int, which: str, tol: float) -> dict[str, Any]:
    """SciPy's eigsh with its defaults, but for the number of restarts."""
    counted, start = Counted(matrix.matrix), time.process_time()
    v0 = np.random.default_rng(0).standard_normal(counted.shape[0])
    try:
        rounds = MOST_PRODUCTS // (max(2 * k + 1, 20) - k)  # SciPy's default of 10 D restarts may take hours
        values, vectors = scipy_linalg.eigsh(counted.scipy(), k=k, which=which, tol=tol, v0=v0, maxiter=rounds)
    except scipy_linalg.ArpackNoConvergence:
        return {"arpack products": counted.count, "arpack converged": False}
    seconds, norm = time.process_time() - start, float(np.abs(matrix.eigenvalues).max())
    residuals = np.linalg.norm(matrix.matrix @ vectors - vectors * values, axis=0)
    relative = float((residuals / np.maximum(np.abs(values), np.finfo(float).eps * norm)).max())
    false = misses(values, matrix.eigenvalues, which, tol)
    return {
        "arpack products": counted.count,
        "arpack seconds": seconds,
        "arpack residual": relative,
        "arpack converged": True,
        "arpack false": false,
    }


def eigenpairs(matrix: KnownMatrix, k: int, which: str, tol: float) -> dict[str, Any]:
    """One solve, its certificate, and ARPACK's."""
    counted, start = Counted(matrix.matrix), time.process_time()
    solution = cs.eigsh(counted, k, which=which, tol=tol, method="krylov", progress=False)
    seconds = time.process_time() - start
    certified = cs.certify(counted, solution, progress=False)
    converged = solution.status.converged
    return {
        "matrix": matrix.name,
        "family": matrix.family,
        "k": k,
        "which": which,
        "tol": tol,
        "status": solution.status.code,
        "text": solution.status.text,
        "false": converged and misses(solution.eigenvalues.numpy(), matrix.eigenvalues, which, tol),
        "complete": certified.certificate.complete,
        "false certificate": false_certificate(certified, matrix.eigenvalues),
        "products": solution.cost.products,
        "completeness": solution.cost.completeness_products,
        "seconds": seconds,
        "residual": float(solution.relative_residuals.max()),
        **arpack(matrix, k, which, tol),
    }


def triplets(matrix: KnownMatrix, k: int, tol: float) -> dict[str, Any]:
    """One solve for singular triplets."""
    start = time.process_time()
    solution = cs.svds(matrix.matrix, k, tol=tol, progress=False)
    seconds, exact = time.process_time() - start, matrix.singular_values
    wrong = misses(solution.S.numpy(), np.sort(exact), "LA", tol)
    return {
        "matrix": matrix.name,
        "family": matrix.family,
        "k": k,
        "which": "singular",
        "tol": tol,
        "status": solution.status.code,
        "text": solution.status.text,
        "false": solution.status.converged and wrong,
        "products": solution.cost.products,
        "completeness": solution.cost.completeness_products,
        "seconds": seconds,
    }


Case = tuple[str, int, str, float]


def case_of(row: dict[str, Any]) -> Case:
    """Return the key of a row."""
    return row["matrix"], row["k"], row["which"], row["tol"]


def cases(matrix: KnownMatrix, arguments: argparse.Namespace) -> Iterator[Case]:
    """The cases of one matrix that were asked for."""
    orders = [order for order in ORDERS if not arguments.orders or order in arguments.orders]
    for k in (k for k in arguments.pairs if k < min(matrix.matrix.shape)):
        for tol in arguments.tols:
            for which in orders if matrix.symmetric else ("singular",):
                if which != "BE" or k > 1:
                    yield matrix.name, k, which, tol


def solve(matrix: KnownMatrix, case: Case) -> dict[str, Any]:
    """The row of one case; what fails is a row too."""
    name, k, which, tol = case
    try:
        return triplets(matrix, k, tol) if which == "singular" else eigenpairs(matrix, k, which, tol)
    except (cs.CurvscopeError, RuntimeError, ArithmeticError) as error:
        return {"matrix": name, "k": k, "which": which, "tol": tol, "status": f"error: {error}"}


def run(arguments: argparse.Namespace, rows: list[dict[str, Any]], save: Callable[[], None]) -> None:
    """Solve all cases that ``rows`` lacks, one matrix after the other, and save after each matrix."""
    done, begun = {case_of(row) for row in rows}, time.monotonic()
    for matrix in MATRICES.values():
        chosen = not arguments.only or any(word in (matrix.name, matrix.family) for word in arguments.only)
        if not chosen or max(matrix.matrix.shape) > arguments.largest:
            continue
        for case in (case for case in cases(matrix, arguments) if case not in done):
            if time.monotonic() - begun > arguments.seconds:
                return
            rows.append(solve(matrix, case))
            if arguments.verbose:
                print(*case, rows[-1]["status"][:200], rows[-1].get("false"), flush=True)
            save()
        matrix.release()


def written(where: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """The result as JSON: the summary, and a table of one line for each case."""
    names = list(dict.fromkeys(name for row in rows for name in row if name not in ("text", "family")))
    short = lambda value: float(f"{value:.3g}") if isinstance(value, float) else value  # noqa: E731
    lines = ",\n".join(json.dumps([short(row.get(name)) for name in names]) for row in rows)
    head = json.dumps({"where": where, "summary": summary(rows), "columns": names}, indent=1)
    return f'{head[:-2]},\n "rows": [\n{lines}\n]}}\n'


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of an earlier result."""
    found = json.loads(path.read_text())
    return [
        {name: value for name, value in zip(found["columns"], row, strict=True) if value is not None} for row in found["rows"]
    ]


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A line for each number of pairs, and one for singular triplets."""
    lines = []
    for k in sorted({row["k"] for row in rows}):
        for kind in ("eigenpairs", "triplets"):
            group = [row for row in rows if row["k"] == k and (row["which"] == "singular") == (kind == "triplets")]
            if not group:
                continue
            claimed = [row for row in group if row["status"] == "converged"]
            both = [row for row in claimed if row.get("arpack converged") and not row["arpack false"] and not row["false"]]
            ratios = sorted(row["products"] / row["arpack products"] for row in both)
            whole = [(row["products"] + row["completeness"]) / row["arpack products"] for row in both]
            seconds = [row["seconds"] / row["arpack seconds"] for row in both]
            lines.append(
                {
                    "k": k,
                    "what": kind,
                    "solves": len(group),
                    "converged": len(claimed),
                    "false": sum(bool(row["false"]) for row in claimed),
                    "ARPACK converged": sum(row.get("arpack converged", False) for row in group),
                    "ARPACK false": sum(row.get("arpack false", False) for row in group),
                    "false certificates": sum(row.get("false certificate", False) for row in group),
                    "products / ARPACK, median": statistics.median(ratios) if ratios else None,
                    "95 %": ratios[int(0.95 * (len(ratios) - 1))] if ratios else None,
                    "with completeness, median": statistics.median(whole) if whole else None,
                    "seconds / ARPACK, median": statistics.median(seconds) if seconds else None,
                }
            )
    return lines


def plan_claim(rows: list[dict[str, Any]]) -> str:
    """Return the share of the solves that took as many products as a plan without a spectrum says."""
    few, many, shares = *KRYLOV_SPREAD, []
    for orders in (("LM",), ORDERS):
        chosen = [row for row in rows if row["which"] in orders and row["status"] == "converged" and row["tol"] == 1e-3]
        expected = [expected_products(row["k"], default_width(row["k"])) - row["k"] for row in chosen]
        held = [
            max(row["k"], round(few * usual)) <= row["products"] <= round(many * usual)
            for row, usual in zip(chosen, expected, strict=True)
        ]
        shares.append(f"{sum(held)} of {len(held)} solves ({', '.join(orders)})")
    return f"Products within {few:g} to {many:g} of the expected ones, tol 1e-3: {', '.join(shares)}."


def table(lines: list[dict[str, Any]]) -> str:
    """The lines as Markdown."""
    names = list(lines[0])
    shown = lambda value: "-" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)  # noqa: E731
    rows = [" | ".join(shown(line[name]) for name in names) for line in lines]
    return "\n".join([f"| {' | '.join(names)} |", f"|{' --- |' * len(names)}", *(f"| {row} |" for row in rows)])


def main() -> None:
    """Read the command line, solve, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="names or families of matrices")
    parser.add_argument("--pairs", nargs="*", type=int, default=list(PAIRS), metavar="K")
    parser.add_argument("--tols", nargs="*", type=float, default=list(TOLERANCES), metavar="TOL")
    parser.add_argument("--orders", nargs="*", default=[], choices=ORDERS)
    parser.add_argument("--largest", type=int, default=10**9, metavar="D", help="leave out larger matrices")
    parser.add_argument("--out", type=Path, help="write all rows and the summary there")
    parser.add_argument("--table", type=Path, metavar="RESULT", help="print the table of an earlier result")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no case after this time")
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(json.loads(arguments.table.read_text())["summary"]), plan_claim(read(arguments.table)), sep="\n\n")
        return
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = read(arguments.out) if arguments.out and arguments.out.exists() else []

    def save() -> None:
        """Write what there is."""
        if arguments.out:
            versions = {name: version(name) for name in ("curvscope", "torch", "scipy", "numpy")}
            where = {"machine": cpu(), "threads": 1, "versions": versions}
            arguments.out.write_text(written(where, rows))

    run(arguments, rows, save)
    print(table(summary(rows)))
    for row in rows:
        if row.get("false") or row.get("false certificate") or row["status"] not in ("converged", "partly"):
            print(row["matrix"], row["k"], row["which"], row["tol"], row["status"])


if __name__ == "__main__":
    main()
