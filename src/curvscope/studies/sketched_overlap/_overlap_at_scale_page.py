"""The page of the study ``overlap-at-scale``: figures and tables from its numbers alone."""

from __future__ import annotations

from typing import Any

from curvscope.report import CYCLE, Document, Line, Panel, Section, Table, panels
from curvscope.studies.engine import published
from curvscope.studies.sketched_overlap._along_training import overlap_section, training_section
from curvscope.studies.sketched_overlap._overlap_figures import (
    figure_gradients,
    figure_masks,
    figure_overlaps,
    figure_ratios,
    figure_spectra,
)

QUOTED = (1, 10, 50, 100, 200, 500, 1000)
FACTOR = 1.5
"""Within which ratios to chance should lie of the published ones."""
PUBLISHED = {"cifar10_3c3d": "cifar10"}
PRINTED = {"mnist16": 0, "cifar10_3c3d": 1, "cifar100_allcnnc": 2, "imagenet_resnet18": 3}
"""Rows of table 1."""


def comparison_rows(numbers: dict[str, Any]) -> list[dict[str, Any]]:
    """Ratios to chance beside the published sketched ones, by the sketch and by Krylov, where the samples are the paper's."""
    config = numbers["config"]
    if config["problem"] not in PUBLISHED or config["samples_per_class"] is not None:
        return []
    paper, size, rows = published(PUBLISHED[config["problem"]]), numbers["problem"]["size"], []
    for step, theirs in paper["steps"].items():
        for split in config["splits"]:
            own = numbers["checkpoints"].get(f"{step} {split}")
            if own is None or split not in theirs:
                continue
            methods = {"Krylov": own["overlap"]["value"], "sketch": own["sketch"]["overlap"] if own["sketch"] else []}
            for k, value in zip(paper["k"], theirs[split]["overlap"], strict=True):
                if k not in QUOTED:
                    continue
                for method, curve in methods.items():
                    if k <= len(curve):
                        found = {"paper": value * size / k, "measured": curve[k - 1] * size / k}
                        rows.append({"at": f"step {step}, {split}", "k": k, "method": method, **found})
    return rows


def document(numbers: dict[str, Any]) -> Document:
    """The page."""
    config, found, problem = numbers["config"], numbers["checkpoints"], numbers["problem"]
    first, last = (found[_key(numbers, step)] for step in (config["steps"][0], config["steps"][-1]))
    k = len(last["overlap"]["value"])
    shown = {**numbers, "checkpoints": _as_recorded(numbers)}
    complete = min(each["complete"] for each in found.values())
    composition, sketched = _composition(first, k), ", and the paper's sketch" if config["num_outer"] else ""
    samples = ", ".join(f"{count} {split} samples" for split, count in problem["samples"].items())
    sections = [
        Section(
            "Overlap of the largest weights with the top eigenspace",
            "For every k: the share of the top-k Hessian eigenspace on the k largest weights, by certified block Krylov. "
            "Shaded: the interval that holds the overlap of the true eigenspace; it opens where pairs cannot be told from "
            "others that were not computed. Grey band: random masks.",
            figure_overlaps(shown, config["splits"][0]),
            alternative="Overlap against k on logarithmic axes for several steps, with chance",
            shows="figure 1 (right), figure 3",
        ),
        overlap_section(shown, "figure 4 (right), one problem of it; `curvscope study compare` draws several"),
        training_section(numbers["losses"], _tested(shown), ""),
        Section(
            "How much of it is layer scale?",
            f"Overlap over two chance levels. Over uniformly random masks it is {composition['uniform']:.1f} at step "
            f"{config['steps'][0]} and k = {k}; over random masks with as many weights in each layer as the magnitude mask "
            f"has, {composition['layered']:.1f}. The first counts that some layers have larger weights and more curvature; "
            "the second does not.",
            figure_ratios(shown),
            alternative="Ratio of overlap to two null models against k, by step",
        ),
        Section(
            "Which masks capture the eigenspace",
            "Magnitude beside magnitude within layers, SNIP (|weight times gradient|), and the best mask there is.",
            figure_masks(shown),
            alternative="Panels by step: overlap of several masks against k",
        ),
        *_by_sketch(shown),
        Section(
            "Where the gradient points",
            "Share of the loss gradient in the top-k eigenspace, on the same samples.",
            figure_gradients(shown),
            alternative="Share of the gradient in the top-k eigenspace against k, by step",
        ),
        Section("The numbers", "Products include those for residuals and certificates.", table=_table(numbers)),
        Section(
            "Table 1, as printed and as measured",
            "Ours is the accuracy at the last step here, on the data that was passed.",
            table=_table_1(numbers),
            shows="table 1",
        ),
    ]
    if numbers["compared"]:
        sections.append(_compared(numbers))
    if any(name.endswith(" initial") for name in found):
        sections.append(_statistics(numbers))
    return Document(
        title="Do large weights lie where the curvature is, at scale?",
        summary=(
            f"{problem['description']}, at step{'s' * (len(config['steps']) > 1)} {', '.join(map(str, config['steps']))}: the "
            f"top {k} eigenpairs of the Hessian on {samples}, certified{sketched}."
        ),
        highlights=(
            (f"overlap at k = {k}, last step", f"{last['overlap']['value'][-1]:.2e}"),
            ("times uniform chance", f"{last['overlap']['value'][-1] * problem['size'] / k:.1f}×"),
            ("times layer-matched chance", f"{_composition(last, k)['layered']:.1f}×"),
            ("pairs proven complete, at least", f"{min(complete, k)} of {k}"),
            ("test accuracy, last step", f"{last['test_accuracy']:.1%}"),
        ),
        sections=sections,
        provenance={
            "source": "Fernandez et al., TMLR 2025 (arXiv 2504.14701), section 6.2, figures 1 (right), 3, 4, table 1",
            "preset": numbers["preset"],
            "data": numbers["images"] or "packaged, or as the problem says",
            "solver": f"block Krylov in float32 to relative residuals of {config['tol']:g}, certified",
            "sketch": "SSRFT on the right, sparse signs on the left, published core",
        },
    )


def _by_sketch(numbers: dict[str, Any]) -> list[Section]:
    """Show the sketch's eigenvalues and overlaps beside those of Krylov, where there was one."""
    config, both = numbers["config"], [own for own in numbers["checkpoints"].values() if own["sketch"]]
    if not both:
        return []
    rank = min(min(len(own["eigenvalues"]), len(own["sketch"]["eigenvalues"])) for own in both)
    ratios = [abs(own["sketch"]["eigenvalues"][rank - 1] / own["eigenvalues"][rank - 1]) for own in both]
    return [
        Section(
            "Krylov and the paper's sketch",
            f"Eigenvalues by magnitude, from certified Krylov and from the sketch as published ({config['num_outer']} outer, "
            f"{config['num_inner']} inner measurements). At rank {rank} the sketch's are {_range(ratios)} times Krylov's.",
            figure_spectra(numbers),
            alternative="Magnitudes of eigenvalues against their rank, by step",
        ),
        Section(
            "Overlap by both methods",
            "The same overlap from the sketched eigenvectors, to the last of them.",
            _figure_methods(numbers),
            alternative="Overlap against k by Krylov and by the sketch, by step",
        ),
    ]


def _range(values: list[float]) -> str:
    low, high = f"{min(values):.2g}", f"{max(values):.2g}"
    return low if low == high else f"{low} to {high}"


def _tested(numbers: dict[str, Any]) -> dict[int, dict[str, float]]:
    """Loss and accuracy on all test samples by step."""
    split = numbers["config"]["splits"][0]
    return {
        step: {key: numbers["checkpoints"][f"{step} {split}"][key] for key in ("test_loss", "test_accuracy")}
        for step in numbers["config"]["steps"]
    }


def _key(numbers: dict[str, Any], step: int) -> str:
    """The first split's checkpoint at a step: with recorded statistics where there are such."""
    name = f"{step} {numbers['config']['splits'][0]}"
    return name if name in numbers["checkpoints"] else f"{name} initial"


def _as_recorded(numbers: dict[str, Any]) -> dict[str, Any]:
    """Checkpoints by "STEP SPLIT"; where only the published statistics were asked for, those."""
    found = numbers["checkpoints"]
    return {name.removesuffix(" initial"): own for name, own in found.items() if name.endswith(" initial")} | {
        name: own for name, own in found.items() if not name.endswith(" initial")
    }


def _composition(own: dict[str, Any], k: int) -> dict[str, float]:
    return {name: own["overlap"]["value"][k - 1] / own[f"null_{name}"]["mean"][k - 1] for name in ("uniform", "layered")}


def _figure_methods(numbers: dict[str, Any]) -> Any:
    content, size = [], numbers["problem"]["size"]
    for split in numbers["config"]["splits"]:
        lines, most = {}, 1
        for step, colour in zip(numbers["config"]["steps"], CYCLE, strict=False):
            own = numbers["checkpoints"][f"{step} {split}"]
            curves = {"Krylov": own["overlap"]["value"], "sketch": own["sketch"]["overlap"] if own["sketch"] else []}
            for dashed, (method, curve) in enumerate(curves.items()):
                if curve:
                    lines[f"step {step}, {method}"] = Line(range(1, len(curve) + 1), curve, colour=colour, dashed=dashed)
                    most = max(most, len(curve))
        content.append(Panel(f"{split} Hessian", lines, ([1, most], [1 / size, most / size]), floor=0.1 / size))
    return panels(content, x="k", y="overlap", height=2.8, width=7.0 if len(content) > 1 else 4.6, legend_columns=4)


def _table(numbers: dict[str, Any]) -> Table:
    heads = [
        "checkpoint",
        "method",
        "k",
        "overlap",
        "certified\ninterval",
        "over\nuniform",
        "over\nlayered",
        "products",
        "seconds",
    ]
    rows, size = [], numbers["problem"]["size"]
    for name, own in numbers["checkpoints"].items():
        for k in _quoted(len(own["overlap"]["value"])):
            value, low, high = (own["overlap"][which][k - 1] for which in ("value", "lower", "upper"))
            over = _composition(own, k)
            cells = [f"{value:.3e}", f"{low:.2e} to {high:.2e}", f"{over['uniform']:.2f}", f"{over['layered']:.2f}"]
            rows.append([name, "Krylov", str(k), *cells, str(own["products"]), f"{own['seconds']:.0f}"])
        if own["sketch"]:
            sketch = own["sketch"]
            for k in _quoted(len(sketch["overlap"])):
                value = sketch["overlap"][k - 1]
                cells = [f"{value:.3e}", "", f"{value * size / k:.2f}", f"{value / sketch['null_layered'][k - 1]:.2f}"]
                rows.append([name, "sketch", str(k), *cells, str(sketch["products"]), f"{sketch['seconds']:.0f}"])
    return Table(heads, rows)


def _quoted(most: int) -> list[int]:
    return sorted({k for k in QUOTED if k <= most} | {most})


def _table_1(numbers: dict[str, Any]) -> Table:
    config, own, paper = numbers["config"], numbers["problem"], published("table1")
    heads = [
        "",
        "problem",
        "model",
        "D",
        "learning\nrate",
        "batch",
        "steps an\nepoch",
        "accuracy\n%",
        "at step",
        "N train",
        "N test",
        "n outer",
    ]
    place = PRINTED.get(config["problem"])
    rows = [] if place is None else [["printed", *("none" if cell is None else str(cell) for cell in paper["printed"][place])]]
    accuracy = numbers["checkpoints"][_key(numbers, config["steps"][-1])]["test_accuracy"]
    counts = [str(own["samples"].get(split, "not measured")) for split in ("train", "test")]
    epoch = "drawn anew" if own["steps_per_epoch"] is None else str(own["steps_per_epoch"])
    facts = [config["problem"], own["network"], str(own["size"]), f"{own['learning_rate']:.4g}", str(own["batch_size"]), epoch]
    rows.append(
        ["measured", *facts, f"{100 * accuracy:.2f}", str(config["steps"][-1]), *counts, str(config["num_outer"])],
    )
    return Table(heads, rows)


def _compared(numbers: dict[str, Any]) -> Section:
    rows, met = [], 0
    for each in numbers["compared"]:
        factor = each["measured"] / each["paper"]
        within = 1 / FACTOR <= factor <= FACTOR
        met += within
        cells = [f"{each['paper']:.2f}", f"{each['measured']:.2f}", f"{factor:.2f}", "yes" if within else "NO"]
        rows.append([each["at"], each["method"], str(each["k"]), *cells])
    images = " Images are JPEG: near the paper's pixels, in another order of training." if numbers["images"] == "images" else ""
    return Section(
        "Paper, measured, factor",
        f"Overlap over k/D; {met} of {len(rows)} within a factor of {FACTOR}. The paper's are of sketched eigenvectors. At "
        f"small k the overlap is that of a few vectors, and differs from one training run to the next.{images}",
        table=Table(["checkpoint", "method", "k", "paper", "measured", "factor", f"within\n{FACTOR}"], rows),
    )


def _statistics(numbers: dict[str, Any]) -> Section:
    rows = []
    for name, own in numbers["checkpoints"].items():
        if not name.endswith(" initial"):
            continue
        right = numbers["checkpoints"].get(name.removesuffix(" initial"))
        for k in _quoted(len(own["overlap"]["value"])):
            cells = [f"{_composition(each, k)['uniform']:.2f}" if each else "" for each in (own, right)]
            losses = [f"{each['curvature_loss']:.3f}" if each else "" for each in (own, right)]
            rows.append([name.removesuffix(" initial"), str(k), *cells, *losses])
    return Section(
        "BatchNorm: as published, and right",
        "The published Hessians of this network were taken with the statistics of a new network (mean 0, variance 1), as only "
        "parameters had been stored. Overlap over chance, and the loss on the curvature samples, with these and with those "
        "of the checkpoint.",
        table=Table(["checkpoint", "k", "as\npublished", "right", "loss as\npublished", "loss,\nright"], rows),
    )
