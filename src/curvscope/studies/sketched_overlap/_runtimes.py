"""Where the time goes: stages of a sketched eigendecomposition beside the paper's (figure 18)."""

from __future__ import annotations

import os
import platform
from collections import Counter
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from curvscope.errors import InvalidArgument, MissingExtra, OutOfBudget
from curvscope.operators import hessian
from curvscope.problems import as_split, get
from curvscope.report import CYCLE, GREY, PAGE, Document, Section, Table, figure
from curvscope.studies.engine import Stages, Study, published
from curvscope.studies.sketched_overlap._stage_times import FEWEST, stage_times
from curvscope.subspaces import masks
from curvscope.system import preferred

GONE = "no longer exists"
PAPER = {"cifar10_3c3d": "cifar10", "cifar100_allcnnc": "cifar100", "imagenet_resnet18": "imagenet"}
LOGGED = {("mnist16", 355, 710): {"HVPs": "0.74, stages together", "TOTAL": "0.74"}}
"""Minutes in the paper's logs, beyond its figure: the median of 22 sketches of mnist16 (44.4 s, products and core together)."""
STAGES = {
    "layout": None,
    "HVPs": ("test vectors", "products", "compression"),
    "merge": None,
    "QR": ("QR",),
    "lstsq": ("core",),
    "overhead": ("first product", "overlap"),
}
"""The stages of figure 18, and ours in each; None: there is nothing of the kind left to do."""


@dataclass(frozen=True)
class RuntimesConfig:
    """(problem, split, n outer, n inner) to time; how many products are made before the others are extrapolated."""

    cases: tuple[tuple[str, str, int, int], ...] = (("mnist16", "train", 355, 710), ("tinygpt", "train", 100, 200))
    timed_products: int | None = None
    block_size: int = 8
    seed: int = 12345


PRESETS = {
    "quick": RuntimesConfig(),
    "paper": RuntimesConfig(
        cases=(
            ("cifar10_3c3d", "train", 1000, 2000),
            ("cifar100_allcnnc", "test", 1000, 2000),
            ("imagenet_resnet18", "test", 1500, 3000),
        ),
        timed_products=FEWEST,
    ),
}


def measure(stages: Stages, config: RuntimesConfig, data: Path | None) -> dict[str, Any]:
    """A stage a case; what has no data here, or does not fit, says so."""
    taken = Counter(case[:2] for case in config.cases)
    found = {
        f"{name} {split}{f', {outer} and {inner}' if taken[name, split] > 1 else ''}": stages.numbers(
            f"{name}-{split}-{outer}-{inner}",
            partial(_case, stages, config, data, name, split, (outer, inner)),
        )
        for name, split, outer, inner in config.cases
    }
    hardware = {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "torch": torch.__version__,
    }
    return {"config": asdict(config), "cases": found, "hardware": hardware}


def _case(
    stages: Stages, config: RuntimesConfig, data: Path | None, name: str, split: str, sizes: tuple[int, int]
) -> dict[str, Any]:
    try:
        problem = get(name, data=data)
        samples = problem.curvature_batches(as_split(split))
        model = problem.model().to(preferred())
        H = hessian(model, problem.criterion, samples)
        times = stage_times(
            H,
            masks.by_magnitude(model),
            num_outer=sizes[0],
            num_inner=sizes[1],
            timed_products=config.timed_products,
            block_size=config.block_size,
            seed=config.seed,
            progress=stages.progress,
        )
    except (InvalidArgument, MissingExtra, OutOfBudget) as error:
        return {"left_out": str(error)}
    return {
        "problem": name,
        "D": H.shape[0],
        "N": sum(len(y) for _, y in samples),
        "num_outer": sizes[0],
        "num_inner": sizes[1],
        **times,
    }


def document(numbers: dict[str, Any]) -> Document:
    """The page."""
    cases = {name: own for name, own in numbers["cases"].items() if "seconds" in own}
    left_out = {name: own["left_out"] for name, own in numbers["cases"].items() if "left_out" in own}
    sections = []
    if cases:
        sections += [
            Section(
                "Where the time goes",
                "Seconds of each stage, products at the scale of the whole decomposition.",
                _figure(cases),
                alternative="Bars: seconds by stage, a panel a problem",
            ),
            Section("The stages, in seconds", _extrapolated(cases), table=_table(cases)),
            Section(
                "Figure 18, as printed and as measured",
                "Minutes of each stage: the paper's three problems (pale), and the cases of this run. Stages that no longer "
                "exist have no bar.",
                _figure_18(cases),
                alternative="Bars: minutes by stage, a panel a problem, printed beside measured",
                shows="figure 18",
            ),
            Section(
                "Beside the paper's figure 18",
                "Minutes. The paper ran on an RTX 2080 Ti (CIFAR) and an A100 (ImageNet); its layout and merge of HDF5 files "
                "have no counterpart here: measurements are written once, as tiles, and read as they lie. Its total for "
                "CIFAR-10 is not the sum of its stages.",
                table=_against_paper(cases),
            ),
        ]
    if left_out:
        sections.append(
            Section(
                "Left out",
                "What could not be timed here.",
                table=Table(["problem", "why"], [list(x) for x in left_out.items()]),
            )
        )
    hardware = numbers["hardware"]
    return Document(
        title="Where does the time of a sketched eigendecomposition go?",
        summary="Stages of the paper's Alg. 2 with our products and thin linear algebra, on this machine, at the same sizes.",
        highlights=tuple((f"{name}: whole decomposition", _minutes(own["total"])) for name, own in cases.items()),
        sections=sections,
        provenance={"source": "Fernandez et al., TMLR 2025 (arXiv 2504.14701), figure 18, and its logs", **hardware},
    )


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.1f} s"


def _extrapolated(cases: dict[str, Any]) -> str:
    made = [f"{name} from {own['timed_products']} of {own['num_inner']}" for name, own in cases.items() if own["extrapolated"]]
    if not made:
        return "All products were made and timed."
    short = any(own["extrapolated"] and own["timed_products"] < FEWEST for own in cases.values())
    few = f" Fewer than {FEWEST} timed products are a rough guide only." if short else ""
    return f"Time of products extrapolated: {'; '.join(made)}. All other stages were run at full size, on made-up entries.{few}"


def _table(cases: dict[str, Any]) -> Table:
    """A row a size or stage, a column a case."""
    sizes = {"D": "D", "N": "samples", "num_outer": "outer measurements", "num_inner": "number of products"}
    rows = [[label, *(str(own[key]) for own in cases.values())] for key, label in sizes.items()]
    for stage in next(iter(cases.values()))["seconds"]:
        rows.append([stage, *(f"{own['seconds'][stage]:.3g}" for own in cases.values())])
    rows += [
        [label, *(f"{own[key]:.3g}" for own in cases.values())]
        for key, label in (("a_product", "a product"), ("total", "total"))
    ]
    return Table(["", *cases], rows)


def _against_paper(cases: dict[str, Any]) -> Table:
    paper, rows = published("runtimes")["fig18_minutes"], []
    for name, own in cases.items():
        known, logged = PAPER.get(own["problem"]), LOGGED.get((own["problem"], own["num_outer"], own["num_inner"]), {})
        measured = {
            stage: GONE if ours is None else f"{sum(own['seconds'][each] for each in ours) / 60:.2f}"
            for stage, ours in STAGES.items()
        }
        for stage, minutes in {**measured, "TOTAL": f"{own['total'] / 60:.2f}"}.items():
            printed = str(paper[stage][known]) if known else logged.get(stage, "not published")
            rows.append([name, stage, printed, minutes])
    for problem, known in PAPER.items():
        if not any(own["problem"] == problem for own in cases.values()):
            rows += [[problem, stage, str(minutes[known]), "not measured"] for stage, minutes in paper.items()]
    return Table(["problem", "stage", "paper, min", "ours, min"], rows)


def _figure_18(cases: dict[str, Any]) -> Any:
    """Minutes by stage, printed and measured, a panel a problem."""
    paper = published("runtimes")["fig18_minutes"]
    measured = {
        name: {stage: sum(own["seconds"][each] for each in ours or ()) / 60 for stage, ours in STAGES.items()}
        for name, own in cases.items()
    }
    content: dict[str, dict[str, dict[str, float]]] = {}
    for problem, known in PAPER.items():
        content[problem] = {"printed": {stage: float(paper[stage][known]) for stage in STAGES}}
    for name, own in cases.items():
        content.setdefault(own["problem"], {})[f"measured, {name.removeprefix(own['problem']).strip()}"] = measured[name]
    with figure(len(content), 1, width=PAGE, height=2.4, printed=True, sharey=True) as (sheet, places):
        for axes, (problem, bars) in zip(places, content.items(), strict=True):
            thick = 0.8 / len(bars)
            for number, (label, minutes) in enumerate(bars.items()):
                where = [i + thick * (number - (len(bars) - 1) / 2) for i in range(len(STAGES))]
                colour = GREY if label == "printed" else CYCLE[number % len(CYCLE)]
                axes.barh(
                    where, list(minutes.values()), thick, color=colour, alpha=0.5 if label == "printed" else 1, label=label
                )
            axes.set_yticks(range(len(STAGES)), list(STAGES))
            axes.set(title=problem, xlabel="minutes", xscale="log")
            axes.tick_params(axis="x", labelsize=6)
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.3), fontsize=6)  # below: bars leave no room
        places[0].invert_yaxis()
    return sheet


def _figure(cases: dict[str, Any]) -> Any:
    with figure(len(cases), 1, width=PAGE, height=2.4, printed=True) as (sheet, places):
        for axes, (name, own) in zip(places, cases.items(), strict=True):
            stages = list(own["seconds"])
            axes.barh(range(len(stages)), list(own["seconds"].values()), color=CYCLE[0])
            axes.set_yticks(range(len(stages)), stages)
            axes.invert_yaxis()
            axes.set(title=name, xlabel="seconds", xscale="log")
    return sheet


STUDY = Study(
    "runtimes",
    "Stages and seconds of a sketched eigendecomposition, beside the paper's",
    "figure 18",
    PRESETS,
    {"quick": "1 minute", "paper": "10 minutes and more a problem, by the machine"},
    measure,
    document,
)
