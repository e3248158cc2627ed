"""The page of the study ``sagun-batch``, from its numbers alone."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from curvscope.estimators import RULES
from curvscope.report import CYCLE, Document, Section, Table, figure
from curvscope.studies.engine import claim, claims_table, share_holding, share_verdict, summary, verdict

BARRIER, RATIO, TIMES = 0.05, 1.5, 5.0
Claim = dict[str, Any]


def claims(numbers: dict[str, Any]) -> list[Claim]:
    """Each claim with its mark, the mean over networks, and whether that is decided."""
    small, large, lines = numbers["ends"]["small"], numbers["ends"]["large"], numbers["lines"]
    ratios = [a["top"][0] / b["top"][0] for a, b in zip(large, small, strict=True)]
    rows = [
        claim(
            "batch size",
            f"top eigenvalue, large over small batch at equal updates, >= {RATIO}",
            summary(ratios),
            verdict(ratios, least=RATIO),
        )
    ]
    for rule in RULES:
        near = [abs(a["outliers"][rule] - b["outliers"][rule]) <= 1 for a, b in zip(large, small, strict=True)]
        counts = ", ".join(f"{a['outliers'][rule]} and {b['outliers'][rule]}" for a, b in zip(large, small, strict=True))
        judged = share_verdict(sum(near), len(near), 0.5)
        text = f"numbers of outliers by {rule} within 1, in most networks"
        rows.append(claim("batch size", text, f"{share_holding(near)[0]}: {counts}", judged))
    shares, controls, curves = (
        [each[which]["barrier"] / each["initial_loss"] for each in lines] for which in ("switched", "control", "curve")
    )
    excess = [b - TIMES * a for a, b in zip(shares, controls, strict=True)]
    lower = [a - b for a, b in zip(controls, curves, strict=True)]
    rises = {place: [each["flatness"][place]["rise"] for each in lines] for place in lines[0]["flatness"]}
    inside = [
        each["flatness"]["halfway"]["rise"] <= 2 * max(each["flatness"][end]["rise"] for end in ("large batch", "small batch"))
        for each in lines
    ]
    rows += [
        claim(
            "barriers",
            f"barrier between large batch and what follows from it <= {BARRIER:.0%} of the initial loss",
            summary(shares),
            verdict(shares, most=BARRIER),
        ),
        claim(
            "barriers",
            f"control, two initialisations, in a straight line: at least {TIMES:g} times that barrier",
            summary(controls),
            verdict(excess, least=0.0),
        ),
        claim(
            "barriers",
            "two initialisations: a Bezier curve between them has a lower barrier than the line",
            f"curve {summary(curves)}, line {summary(controls)}",
            verdict(lower, least=0.0),
        ),
        claim(
            "barriers",
            f"and that barrier is <= {BARRIER:.0%} of the initial loss: a curved path of low loss",
            summary(curves),
            verdict(curves, most=BARRIER),
        ),
        claim(
            "one basin",
            "halfway between large and small batch random steps raise the loss at most twice as much as at the ends",
            f"{share_holding(inside)[0]}; " + "; ".join(f"{place} {summary(values, '.2g')}" for place, values in rises.items()),
            share_verdict(sum(inside), len(inside), 0.5),
        ),
    ]
    return [*rows, *_segment_claims(numbers)]


def _segment_claims(numbers: dict[str, Any]) -> list[Claim]:
    found, initial = numbers["segments"], [each["initial_loss"] for each in numbers["lines"]]
    rise, control = (
        [max(row["barrier"] for row in each[name]) / loss for each, loss in zip(found, initial, strict=True)]
        for name in ("same start", "two starts")
    )
    parted = [each["same start"][-1]["apart"] > each["same start"][1]["apart"] for each in found]
    falls = [each["two starts"][0]["highest"] - each["two starts"][-1]["highest"] for each in found]
    rises = [each["two starts"][-1]["highest"] / min(row["highest"] for row in each["two starts"]) - 1 for each in found]
    return [
        claim(
            "two runs",
            f"one start, all samples and small batches: no barrier (<= {BARRIER:.0%} of the initial loss) at any look",
            f"{summary(rise)}; parting further in {share_holding(parted)[0]}",
            verdict(rise, most=BARRIER),
        ),
        claim(
            "two runs",
            f"two starts: less flat (barrier at least {TIMES:g} times that)",
            summary(control),
            verdict([b - TIMES * a for a, b in zip(rise, control, strict=True)], least=0.0),
        ),
        claim(
            "two runs",
            "two starts: the highest loss between them is lower at the end than at the start",
            f"falls by {summary(falls)}",
            verdict(falls, least=0.0),
        ),
        claim(
            "two runs",
            "two starts: and it does not rise again (at most 5 % above its lowest at the end)",
            f"above its lowest by {summary(rises)}",
            verdict(rises, most=0.05),
        ),
    ]


def document(numbers: dict[str, Any]) -> Document:
    """The page."""
    config = numbers["config"]
    kinds = {
        "mnist16": "A dense ReLU network on 500 images of 16 x 16 MNIST (the paper: convolutions, and CIFAR-10 for the lines)",
        "mnist28": "A fully connected ReLU network on 1,000 images of 28 x 28 MNIST",
        "cifar10": "Two convolutions and two dense layers on 1,000 images of CIFAR-10",
    }
    return Document(
        title="Small and large batches",
        summary=f"{kinds[config['images']]}, batches of {config['small']} and {config['large']}, the same "
        "learning rate and number "
        f"of updates, {config['seeds']} networks.",
        sections=[
            Section(
                "Claims",
                "Pass marks are ours. Means over networks with standard errors; a verdict needs the whole 95 % interval on one "
                "side of the mark.",
                table=claims_table(numbers["claims"]),
            ),
            Section(
                "Curvature at the end",
                "The largest and the most negative eigenvalues after training with either batch size: mean and "
                "range over networks.",
                _edges(numbers),
                alternative="Eigenvalues at both ends for both batch sizes",
                shows="figures 4 and 6 of 2017",
            ),
            Section(
                "Along training",
                "Large batches, then, from the dashed line on, small ones: loss and accuracy on train and test samples.",
                _training(numbers),
                alternative="Loss and accuracy against updates, with the switch of batch size",
                shows="figure 7 of 2017",
            ),
            Section(
                "On the line",
                "Loss and accuracy on w(a) = (1 - a) w + a w': after large batches (a = 0) and after going on with small ones "
                "(a = 1); control: two networks from different initialisations. Solid: train, dashed: test.",
                _lines(numbers),
                alternative="Loss and accuracy on two lines",
                shows="figure 8 of 2017",
            ),
            Section(
                "On a curve",
                "Loss between two networks from different initialisations: on the line, and on a quadratic Bezier curve whose "
                "middle point was trained (Garipov et al. 2018). Solid: train, dashed: test.",
                _curves(numbers),
                alternative="Loss on a line and on a curve between two networks",
            ),
            Section("Barriers", "Over the initial loss, and of test samples too.", table=_table(numbers)),
            Section(
                "Between two that train side by side",
                "Highest loss on the segment (solid) and the higher of the losses at its two ends (dashed), "
                "along training; mean "
                "and range over networks.",
                _between(numbers),
                alternative="Highest loss on segments between two networks, against updates",
                shows="figure 8 of 2016",
            ),
        ],
    )


def _banded(axes: Axes, x: Sequence[float], rows: Sequence[Sequence[float]], colour: str, **how: Any) -> None:
    """Mean of the rows, and their range."""
    columns = list(zip(*rows, strict=True))
    axes.fill_between(x, [min(c) for c in columns], [max(c) for c in columns], color=colour, alpha=0.12, linewidth=0)
    axes.plot(x, [fmean(c) for c in columns], color=colour, **how)


def _edges(numbers: dict[str, Any]) -> Figure:
    with figure(2) as (sheet, places):
        for axes, end in zip(places, ("top", "bottom"), strict=True):
            for (name, cells), colour in zip(numbers["ends"].items(), CYCLE, strict=False):
                most = min(len(cell[end]) for cell in cells)
                if most:
                    rows = [cell[end][:most] for cell in cells]
                    _banded(
                        axes, range(1, most + 1), rows, colour, marker=".", markersize=3, linewidth=0.8, label=f"{name} batch"
                    )
            axes.set(title=end, xlabel="rank")
        places[0].set_ylabel("eigenvalue")
        places[0].legend(loc="best")
    return sheet


def _training(numbers: dict[str, Any]) -> Figure:
    lines = numbers["lines"]
    steps = [row["step"] for row in lines[0]["training"]]
    with figure(2) as (sheet, places):
        for axes, what in zip(places, ("loss", "accuracy"), strict=True):
            for split, colour in zip(("train", "test"), CYCLE, strict=False):
                _banded(
                    axes, steps, [[row[f"{split}_{what}"] for row in each["training"]] for each in lines], colour, label=split
                )
            axes.axvline(numbers["config"]["steps"], color="0.5", linestyle="--", linewidth=0.8)
            axes.set(title=what, xlabel="updates")
        places[0].legend(loc="best")
    return sheet


def _lines(numbers: dict[str, Any]) -> Figure:
    lines = numbers["lines"]
    with figure(2) as (sheet, places):
        for axes, what in zip(places, ("loss", "accuracy"), strict=True):
            for name, colour in zip(("switched", "control"), CYCLE, strict=False):
                for prefix, style in (("", "-"), ("test_", "--")):
                    rows = [each[name][prefix + what] for each in lines]
                    if rows[0]:
                        label = name if not prefix else None
                        _banded(axes, lines[0][name]["alpha"], rows, colour, linestyle=style, label=label)
            axes.set(title=what, xlabel="a", yscale="log" if what == "loss" else "linear")
        places[0].legend(loc="best")
    return sheet


def _curves(numbers: dict[str, Any]) -> Figure:
    lines = numbers["lines"]
    inside = [i for i, a in enumerate(lines[0]["control"]["alpha"]) if -1e-9 <= a <= 1 + 1e-9]
    with figure(width=5.5) as (sheet, (axes,)):
        for prefix, style in (("", "-"), ("test_", "--")):
            straight = [[each["control"][f"{prefix}loss"][i] for i in inside] for each in lines]
            places = [lines[0]["control"]["alpha"][i] for i in inside]
            _banded(axes, places, straight, CYCLE[0], linestyle=style, label=None if prefix else "line")
            curved = [each["curve"][f"{prefix}loss"] for each in lines]
            _banded(axes, lines[0]["curve"]["t"], curved, CYCLE[1], linestyle=style, label=None if prefix else "Bezier curve")
        axes.set(xlabel="a, t", ylabel="loss", yscale="log")
        axes.legend(loc="best")
    return sheet


def _table(numbers: dict[str, Any]) -> Table:
    rows = []
    for which, label in (
        ("switched", "large batch to small, line"),
        ("control", "two starts, line"),
        ("curve", "two starts, curve"),
    ):
        cells = [
            summary([each[which][f"{prefix}barrier"] / each["initial_loss"] for each in numbers["lines"]])
            for prefix in ("", "test_")
        ]
        rows.append([label, *cells])
    return Table(["path", "train", "test"], rows)


def _between(numbers: dict[str, Any]) -> Figure:
    found = numbers["segments"]
    with figure(width=5.5) as (sheet, (axes,)):
        for name, colour in zip(found[0], CYCLE, strict=False):
            steps = [row["step"] for row in found[0][name]]
            _banded(axes, steps, [[row["highest"] for row in each[name]] for each in found], colour, label=name)
            _banded(axes, steps, [[max(row["ends"]) for row in each[name]] for each in found], colour, linestyle="--")
        axes.set(xlabel="updates", ylabel="loss", yscale="log")
        axes.legend(loc="best")
    return sheet
