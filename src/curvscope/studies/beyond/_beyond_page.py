"""The page of the study ``beyond``, from its numbers alone."""

from __future__ import annotations

from statistics import mean, stdev
from typing import Any

from curvscope.report import CYCLE, PAGE, Document, Line, Panel, Section, Table, figure, panels


def document(numbers: dict[str, Any]) -> Document:
    """The page."""
    config, sections = numbers["config"], []
    count, k = len(config["seeds"]), config["k"]
    if numbers["transformer"]:
        sections += [
            Section(
                "A transformer, by kind of layer",
                f"tinygpt: the share of each kind of layer in the parameters, in the {k} largest weights and in the top-{k} "
                f"eigenspace. Bars: means over {count} seeds, with standard errors. LayerNorm's gains begin at 1, all other "
                "weights with a deviation of 0.02, so the largest weights are gains; at step 0 they are equal, and which of "
                "them come first says nothing.",
                _figure_kinds(numbers),
                alternative="Bars: shares by kind of layer, a panel a step",
            ),
            Section(
                "Within a kind",
                f"How many times chance the largest {config['largest']:.0%} of a kind's weights hold of that kind's part of "
                "the eigenspace: magnitude without the layers' scales.",
                table=_table_kinds(numbers),
            ),
        ]
    if numbers["ablation"]:
        sections += [
            Section(
                "Width and depth",
                f"Overlap over chance at k = {k} against the number of parameters, the data and the number of steps fixed. "
                f"Bars: standard errors over {count} seeds.",
                _figure_ablation(numbers),
                alternative="Overlap ratio against D for networks of different width and depth, with error bars",
            ),
            Section("Width and depth, the numbers", "Means and standard errors over seeds.", table=_table_ablation(numbers)),
        ]
    for name, seeds in numbers["pruning"].items():
        sections += [
            Section(
                f"Pruning {name}",
                f"Test accuracy and loss after removing parameters, without training on: the smallest weights; those of least "
                f"saliency, with the GGN's diagonal from {config['probes']} products; those of least leverage in the "
                f"top-{k} eigenspace; any. Bands: two standard errors over {count} seeds.",
                _figure_pruning(seeds),
                alternative="Accuracy and loss against the share of parameters removed, for four ways",
            ),
            Section(f"Pruning {name}, the numbers", "Means and standard errors over seeds.", table=_table_pruning(seeds)),
        ]
    return Document(
        title="Transformers, width and depth, pruning",
        summary=(
            f"Three questions that the paper left open, over {count} seeds each; top {k} eigenpairs by block Krylov, "
            f"{_converged(numbers)}."
        ),
        highlights=_highlights(numbers),
        sections=sections,
        provenance={"preset": numbers["preset"], "seeds": ", ".join(map(str, config["seeds"])), "tolerance": config["tol"]},
    )


def _converged(numbers: dict[str, Any]) -> str:
    """Return how many of the solves reached their tolerance, in words."""
    parts = (numbers["transformer"], numbers["ablation"], numbers["pruning"])
    found = [own["status"] == "converged" for part in parts for seeds in part.values() for own in seeds]
    if all(found):
        return f"all {len(found)} solves to relative residuals of {numbers['config']['tol']:g}"
    return (
        f"{sum(found)} of {len(found)} solves to relative residuals of {numbers['config']['tol']:g}, the others to larger ones"
    )


def over_seeds(values: list[float]) -> tuple[float, float]:
    """Mean and its standard error; 0 for one seed."""
    return mean(values), stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0


def _shown(values: list[float], form: str = ".3g") -> str:
    middle, error = over_seeds(values)
    return f"{middle:{form}} ± {error:.2g}"


def _highlights(numbers: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    made = []
    for step, seeds in list(numbers["transformer"].items())[-1:]:
        made.append((f"transformer: overlap over chance, step {step}", _shown([own["ratio"] for own in seeds])))
    for family in dict.fromkeys(name.split()[0] for name in numbers["ablation"]):
        own = [(seeds[0]["size"], name) for name, seeds in numbers["ablation"].items() if name.split()[0] == family]
        ends = [name for _, name in (min(own), max(own))]
        ratios = " to ".join(_shown([each["ratio"] for each in numbers["ablation"][name]]) for name in ends)
        made.append((f"{family} {ends[0].split()[1]} to {ends[1].split()[1]}: overlap over chance", ratios))
    for name, seeds in numbers["pruning"].items():
        for way, points in seeds[0]["ways"].items():
            middle = len(points) // 2  # without the most, all are at chance
            accuracy = _shown([own["ways"][way][middle]["accuracy"] for own in seeds])
            made.append((f"{name}: accuracy without {points[middle]['sparsity']:.0%}: {way}", accuracy))
    return tuple(made)


def _figure_kinds(numbers: dict[str, Any]) -> Any:
    steps, shares = numbers["transformer"], ("of_parameters", "of_mask", "of_eigenspace")
    with figure(len(steps), 1, width=PAGE, height=2.5, printed=True, sharey=True) as (sheet, places):
        for axes, (step, seeds) in zip(places, steps.items(), strict=True):
            kinds = list(seeds[0]["kinds"])
            for place, (share, colour) in enumerate(zip(shares, CYCLE, strict=False)):
                found = [over_seeds([own["kinds"][kind][share] for own in seeds]) for kind in kinds]
                heights, errors = zip(*found, strict=True)
                where = [i + 0.27 * (place - 1) for i in range(len(kinds))]
                axes.bar(where, heights, 0.25, yerr=errors, color=colour, label=share.replace("_", " "))
            axes.set_xticks(range(len(kinds)), kinds, rotation=30)
            axes.set(title=f"step {step}")
        places[0].set_ylabel("share")
        places[0].legend()
    return sheet


def _table_kinds(numbers: dict[str, Any]) -> Table:
    rows = []
    for step, seeds in numbers["transformer"].items():
        for kind in seeds[0]["kinds"]:
            own = [each["kinds"][kind] for each in seeds]
            cells = [_shown([each[name] for each in own]) for name in ("of_mask", "of_eigenspace", "large_over_chance")]
            rows.append([step, kind, f"{own[0]['of_parameters']:.3f}", *cells])
        rows.append([step, "all", "1", "1", "1", _shown([each["ratio"] for each in seeds])])
    return Table(
        ["step", "kind", "of the\nparameters", "of the\nmask", "of the\neigenspace", "large weights\nover chance"], rows
    )


def _figure_ablation(numbers: dict[str, Any]) -> Any:
    lines: dict[str, list[tuple[float, float, float]]] = {}
    for name, seeds in numbers["ablation"].items():
        lines.setdefault(name.split()[0], []).append((seeds[0]["size"], *over_seeds([own["ratio"] for own in seeds])))
    with figure(1, 1, width=4.6, height=2.6, printed=True) as (sheet, (axes,)):
        for (family, points), colour in zip(lines.items(), CYCLE, strict=False):
            sizes, middles, errors = zip(*sorted(points), strict=True)
            axes.errorbar(sizes, middles, yerr=errors, marker="o", color=colour, capsize=2, label=family)
        axes.axhline(1, color="0.45", linestyle="--", label="chance")
        axes.set(xscale="log", xlabel="D", ylabel="overlap / chance")
        axes.legend()
    return sheet


def _table_ablation(numbers: dict[str, Any]) -> Table:
    rows = []
    for name, seeds in numbers["ablation"].items():
        cells = [_shown([own[key] for own in seeds]) for key in ("ratio", "loss", "accuracy")]
        rows.append([name, str(seeds[0]["size"]), *cells])
    return Table(["network", "D", "overlap\nover chance", "test loss", "test accuracy"], rows)


def _figure_pruning(seeds: list[dict[str, Any]]) -> Any:
    content = []
    for quantity in ("accuracy", "loss"):
        lines = {}
        for way, colour in zip(seeds[0]["ways"], CYCLE, strict=False):
            places = [each["sparsity"] for each in seeds[0]["ways"][way]]
            found = [over_seeds([own["ways"][way][i][quantity] for own in seeds]) for i in range(len(places))]
            low, high = ([middle + sign * 2 * error for middle, error in found] for sign in (-1, 1))
            lines[way] = Line(places, [middle for middle, _ in found], low, high, colour=colour)
        content.append(Panel(f"test {quantity}", lines))
    return panels(content, x="share removed", y="", xscale="linear", yscale="linear", height=2.6, share=False, legend_columns=4)


def _table_pruning(seeds: list[dict[str, Any]]) -> Table:
    rows = []
    for number, (way, points) in enumerate(seeds[0]["ways"].items()):
        for i, point in enumerate(points):
            if number and not point["sparsity"]:
                continue  # nothing removed is the same for all
            own = [each["ways"][way][i] for each in seeds]
            by = way if point["sparsity"] else "nothing"
            rows.append(
                [by, f"{point['sparsity']:.0%}", *(_shown([each[key] for each in own]) for key in ("accuracy", "loss"))]
            )
    return Table(["removed by", "share", "test accuracy", "test loss"], rows)
