"""What a run of ``curvscope eigs`` holds, and its report."""

from __future__ import annotations

from dataclasses import replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Context
from math import ceil, log10
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from curvscope.errors import InvalidArgument, RunNotFound
from curvscope.estimators import RULES, Density
from curvscope.measurement import CERTIFIED, PARAMETERS, TABLE, results_of
from curvscope.report import Document, Section, Table, figures
from curvscope.sampling import LearningCurve, Population
from curvscope.solvers import Plan, Solution
from curvscope.solvers.results import ORDERS, open as open_solution
from curvscope.store import Run, parsing, read_sealed_tensors
from curvscope.subspaces import OverlapCurve, best_overlap, masks, overlap
from curvscope.system import as_text

MASKS = ("magnitude", "layerwise", "random", "best")
DENSITY = "density.json"
"""Where a run keeps the density that `curvscope density RUN` found last."""
POPULATION = "population.json"
"""Where a run keeps what `curvscope population RUN` found last."""

LEARNING_CURVE = "learning-curve.json"
"""File of a run with the curve that `curvscope population RUN --curve` found last."""


def solution_of(run: Run) -> Solution:
    """The run's solution."""
    return Solution.load(results_of(run.path))


def pairs_at(path: Path) -> Solution:
    """The eigenpairs of a run, as they were certified last, or those that ``Solution.save`` wrote to a folder.

    Raises:
        RunNotFound: neither is there. InvalidArgument: singular triplets are.
    """
    if not (path / TABLE).is_file():
        Run.open(path)  # says what is missing
        if (path / CERTIFIED / TABLE).is_file():
            return Solution.load(path / CERTIFIED)
    found = open_solution(path)
    if not isinstance(found, Solution):
        raise InvalidArgument(f"{path} holds singular triplets: this needs eigenpairs")
    return found


def certified_of(run: Run) -> Solution:
    """The run's pairs as they were certified last in higher precision, where that was done; else its solution."""
    place = run.path / CERTIFIED
    return Solution.load(place) if (place / TABLE).is_file() else solution_of(run)


def parameters_of(run: Run, solution: Solution) -> dict[str, Tensor]:
    """The parameters that the run's operator was measured at, in the operator's order.

    Raises:
        RunNotFound: the run's operator was not built from a model.
    """
    file = run.path / PARAMETERS
    if not file.exists() or solution.parameters is None:
        raise RunNotFound(f"{run.path} holds no parameters: its operator was not built from a model, so there is no mask")
    stored = read_sealed_tensors(file, run.mark)
    with parsing(file):
        return {name: stored[name] for name in solution.parameters.names}


def measure_overlap(run: Run, mask: str = "magnitude") -> OverlapCurve:
    """Overlap of the run's eigenvectors with a mask of its parameters; kept in the run."""
    solution = certified_of(run)
    curve = _with_sampling(_overlap_with(mask, solution, run), population_of(run))
    run.write_sealed(f"overlap-{mask}.json", curve.to_dict())
    return curve


def _overlap_with(mask: str, solution: Solution, run: Run) -> OverlapCurve:
    return best_overlap(solution) if mask == "best" else overlap(solution, mask_of(run, solution, mask))


def mask_of(run: Run, solution: Solution, mask: str) -> Any:
    """The mask of a run's parameters that one of :data:`MASKS` names; only those by magnitude need the parameters.

    Raises:
        InvalidArgument: no such name, or "best", which every eigenspace has its own of.
    """
    match mask:
        case "magnitude":
            return masks.by_magnitude(parameters_of(run, solution))
        case "layerwise":
            return masks.layerwise_magnitude(parameters_of(run, solution))
        case "random":
            return masks.random(solution.eigenvectors.shape[0], seed=0)
        case "best":
            raise InvalidArgument("the best mask is another one for every eigenspace: choose a fixed one, such as magnitude")
    raise InvalidArgument(f"mask={mask!r}: choose one of {', '.join(MASKS)}")


def _with_sampling(curve: OverlapCurve, found: Population | None) -> OverlapCurve:
    """The curve with the sampling interval that the run keeps for this mask, if it has one for every k."""
    of_mask = None if found is None else found.overlaps.get(curve.ranking)
    if of_mask is None or len(of_mask.k) != len(curve.k):
        return curve
    return replace(curve, sampling_lower=of_mask.sampling_lower, sampling_upper=of_mask.sampling_upper)


def document(run: Run) -> Document:
    """The report of one run; see :func:`_document`.

    Raises:
        DamagedData: what the run says about itself cannot be read.
    """
    with parsing(run.path):
        return _document(run)


def _document(run: Run) -> Document:
    """The report of one run: its pairs, their residuals, and the overlap with the magnitude mask where there are parameters."""
    population = population_of(run)
    solution = _with_intervals(certified_of(run), population)
    label, asked = _label(run), solution.provenance["options"]
    sections = []
    if (run.path / PARAMETERS).exists():
        sections.append(
            Section(
                "Overlap with the largest weights",
                f"For every k: the share of {_space(solution)} that lies on the k largest weights. Dashed: chance level."
                + (" Shaded: what is certain of the true eigenspace's." if solution.certificate is not None else ""),
                figures.overlaps({label: measure_overlap(run)}),
                alternative="Overlap against k on logarithmic axes, with the chance level k/D",
            )
        )
    sections.append(
        Section(
            "The spectrum",
            f"A bar counts computed eigenvalues, with a tick below each. {_others(solution)}",
            figures.spectra({label: solution}),
            alternative="Histogram of the eigenvalues",
        )
    )
    if (found := density_of(run)) is not None:
        sections.append(_density_section(found))
    if population is not None:
        sections.append(_population_section(population))
    if (curve := learning_curve_of(run)) is not None:
        sections.append(_learning_section(curve))
    sections.append(
        Section(
            "How right are the pairs?",
            "The relative residual of every pair, measured with fresh products.",
            figures.residuals({label: {asked["method"]: solution}}, tol=asked.get("tol") or None),
            alternative="Relative residual of each pair on a logarithmic axis",
        )
    )
    if run.manifest.get("plan"):
        sections.append(
            Section(
                "Plan and fact",
                "What was planned before the work, and what it took.",
                table=plan_table(Plan.from_dict(run.manifest["plan"]), solution),
            )
        )
    held = "up to the rounding of the products"
    if solution.certificate is not None:
        held = f"rounding included{_except(solution)}"
    held += "" if solution.sampling_intervals is None else "; each sampling interval an eigenvalue of the population's matrix"
    sections.append(Section("The pairs", f"Each interval holds an eigenvalue, {held}.", table=pairs_table(solution)))
    return Document(
        title=f"{solution.k} eigenpairs: {label}",
        summary=str(solution.status),
        sections=sections,
        highlights=_highlights(solution),
        provenance=_provenance(run, solution),
    )


def _space(solution: Solution) -> str:
    """Return which space the first k vectors span."""
    if solution.order == "LM":
        return "the top-k eigenspace"
    return f"the span of the first k eigenvectors in the order of this run ({ORDERS[solution.order]})"


def _others(solution: Solution) -> str:
    """Return what is known of the eigenvalues that were not computed, in a sentence."""
    if solution.order != "LM" or solution.k == solution.eigenvectors.shape[0]:
        return ""
    certificate = solution.certificate
    if certificate is None:
        known = "the method looks for the largest, and the command curvscope certify tells which of them certainly are"
    elif certificate.complete == solution.k:
        known = f"certain{_except(solution)}"
    elif certificate.complete:
        proven = f"only the first {certificate.complete} of {solution.k} are proven to be the largest"
        known = f"some may be larger than the last pairs: {proven}"
    else:
        known = f"some may be larger than these: of none of the {solution.k} pairs is it proven to be among the largest"
    return f"Grey: the others, {figures.others(solution)}; {known}."


def _except(solution: Solution) -> str:
    """With which probability the certificate is wrong, after what it says."""
    failure = solution.certificate.tail.failure if solution.certificate is not None else 0.0
    return f", except with probability {failure:g}" if failure else ""


def density_of(run: Run) -> Density | None:
    """The spectral density that the run keeps, if any."""
    plain = run.read_json(DENSITY)
    with parsing(run.path / DENSITY):
        return None if plain is None else Density.from_dict(plain)


def _density_section(found: Density) -> Section:
    counts = ", ".join(f"{found.outliers(rule)} by {rule}" for rule in RULES)
    low, high = found.bulk_edges()
    known, error = ", known exactly (ticks)", ""
    if found.unknown:
        known = f": {len(found.exact):,} known exactly (ticks), the others estimated"
        error = f" ± {found.trace.stderr:.1g}"
    return Section(
        "The whole spectrum",
        f"All {found.size:,} eigenvalues{known} with {found.products:,} products. "
        f"Outliers: {counts}; the bulk, by ratio, lies in [{low:.3g}, {high:.3g}]; the trace is "
        f"{found.trace.value:.4g}{error}.",
        figures.spectral_density(found),
        alternative="Spectral density on a linear axis, and by magnitude",
    )


def population_of(run: Run) -> Population | None:
    """The intervals over the choice of the data that the run keeps, if any."""
    return Population.load(run.path / POPULATION) if (run.path / POPULATION).is_file() else None


def _population_section(found: Population) -> Section:
    figure = Figure(figsize=(9, 4))
    found.plot(figure.subplots(), log=True)
    return Section(
        "Sample and population",
        f"{found.summary()} Bars: where the population's eigenvalues lie (thin: about the estimate, where neighbours are "
        "separated; wide: whatever the gaps). Black: these samples' own, with their numerical intervals.",
        figure,
        alternative="Eigenvalues of the sample with sampling intervals of the population's",
        table=population_table(found),
    )


def learning_curve_of(run: Run) -> LearningCurve | None:
    """The curvature against the number of samples that the run keeps, if any."""
    return LearningCurve.load(run.path / LEARNING_CURVE) if (run.path / LEARNING_CURVE).is_file() else None


def _learning_section(curve: LearningCurve) -> Section:
    figure = Figure(figsize=(9, 4.5))
    curve.plot(figure.subplots())
    return Section(
        "How many samples?",
        f"{curve.summary()} Bars: one standard deviation of a data set of that size. At the right: where the population's "
        "eigenvalues lie, as far as all samples tell.",
        figure,
        alternative="Eigenvalues against the number of samples, on logarithmic axes",
    )


def _with_intervals(solution: Solution, found: Population | None) -> Solution:
    """The solution with the sampling intervals of its run, certified or not: they are about the same number of pairs."""
    if found is None or len(found) != solution.k:
        return solution
    return replace(solution, sampling_intervals=found.best_interval)


def population_table(found: Population) -> Table:
    """Numerical and sampling intervals side by side."""
    rows = []
    for i, value in enumerate(found.eigenvalues.tolist()):
        ends = [
            "[{:.4g}, {:.4g}]".format(*interval[i].tolist()) for interval in (found.sampling_interval, found.sampling_bracket)
        ]
        estimate = (f"{float(found.estimate[i]):.4g}", ends[0]) if found.valid[i] else ("", "")
        rows.append([str(i + 1), f"{value:.4g}", _interval(*found.numerical_interval[i].tolist()), *estimate, ends[1]])
    heads = ["i", "of this sample", "numerical\ninterval", "population,\nestimate", "sampling\ninterval", "sampling\nbracket"]
    return Table(heads, rows)


def pairs_table(solution: Solution) -> Table:
    """All pairs: value, certified interval, residuals."""
    rows = [
        [str(i + 1), f"{value:.6e}", _interval(low, high), f"{residual:.1e}", f"{relative:.1e}"]
        for i, (value, (low, high), residual, relative) in enumerate(
            zip(
                solution.eigenvalues.tolist(),
                solution.intervals.tolist(),
                solution.residual_norms.tolist(),
                solution.relative_residuals.tolist(),
                strict=True,
            )
        )
    ]
    heads = ["i", "eigenvalue", "numerical\ninterval", "residual", "relative\nresidual"]
    if (sampled := solution.sampling_intervals) is None:
        return Table(heads, rows)
    for row, ends in zip(rows, sampled.tolist(), strict=True):
        row.append("[{:.4g}, {:.4g}]".format(*ends))
    return Table([*heads, "sampling\ninterval"], rows)


def _interval(low: float, high: float) -> str:
    """The ends of an interval with as many digits as tell them apart, rounded outwards.

    >>> _interval(-0.5, 0.25), _interval(1 - 1e-9, 1 + 2e-9)
    ('[-5.000000e-01, 2.500000e-01]', '[9.9999999900e-01, 1.0000000020e+00]')
    """
    digits = min(max(7, ceil(log10(max(abs(low), abs(high)) / (high - low))) + 2), 15) if high > low else 15
    ends = [
        Context(prec=digits, rounding=way).create_decimal_from_float(end)
        for end, way in ((low, ROUND_FLOOR), (high, ROUND_CEILING))
    ]
    return "[{}, {}]".format(*(f"{float(end):.{digits - 1}e}" for end in ends))  # 15 digits survive a float


def plan_table(plan: Plan, solution: Solution) -> Table:
    """Planned and actual products, seconds and memory."""
    shown = {"peak memory": as_text}
    rows = [
        [name, *(shown.get(name, "{:.4g}".format)(x) for x in (planned, actual)), f"{actual / planned:.2f}" if planned else ""]
        for name, (planned, actual) in plan.compared(solution).items()
    ]
    return Table(["what", "planned", "actual", "actual / planned"], rows)


def _label(run: Run) -> str:
    options = run.manifest["options"]
    if options.get("problem"):
        return f"{options['problem']}, {options['matrix']}, step {options['step']}, {options['split']}"
    name = str(options.get("target", run.path.name))
    return name if options.get("matrix", "hessian") == "hessian" else f"{name}, {options['matrix']}"


def _highlights(solution: Solution) -> tuple[tuple[str, str], ...]:
    relative, certificate = solution.relative_residuals, solution.certificate
    proven = () if certificate is None else (("certainly the largest", f"{certificate.complete} of {solution.k}"),)
    return (
        ("largest by magnitude", f"{float(solution.eigenvalues[solution.eigenvalues.abs().argmax()]):.4g}"),
        ("median relative residual", f"{float(relative.median()):.0e}"),
        ("worst relative residual", f"{float(relative.max()):.0e}"),
        *proven,
        ("products", f"{solution.cost.products} + {solution.cost.certificate_products}"),
        ("seconds", f"{solution.cost.seconds:.1f}"),
    )


def _arithmetic(made: dict[str, Any]) -> str:
    """In which the pairs were found, and certified if that was a higher one."""
    before = made.get("refined from")
    found = made["products"].get("arithmetic", (before or made)["dtype"])
    return f"{found}; the pairs improved and certified in {made['dtype']}" if before else found


def _provenance(run: Run, solution: Solution) -> dict[str, Any]:
    made = solution.provenance
    return {
        "command": " ".join(run.manifest["command"]),
        "created": run.manifest["created"],
        "operator": f"{made['operator']} {made['shape'][0]:,} x {made['shape'][1]:,}, {made['dtype']}, on {made['device']}",
        "products in": _arithmetic(made),
        "fingerprint": made["fingerprint"],
        "options": ", ".join(f"{name}={value}" for name, value in made["options"].items()),
        "versions": ", ".join(f"{name} {number}" for name, number in run.manifest["versions"].items()),
        "system": f"{run.manifest['system']}, {run.manifest['cores']} cores",
    }
