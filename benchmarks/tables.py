"""The results of products.py as JSON, a Markdown table and a figure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PEERS = ("curvlinops", "hessian-eigenthings", "PyHessian")


def fastest_peer(entries: dict[str, Any]) -> tuple[str, float] | None:
    """The peer library with the lowest cost."""
    costs = {label: e["gradients"] for label, e in entries.items() if label.startswith(PEERS) and "gradients" in e}
    return min(costs.items(), key=lambda item: item[1]) if costs else None


def write(record: dict[str, Any], folder: Path) -> None:
    """products.json, products.md, products.png."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "products.json").write_text(json.dumps(record, indent=1) + "\n")
    (folder / "products.md").write_text("\n".join(lines(record)) + "\n")
    draw(record, folder / "products.png")


def lines(record: dict[str, Any]) -> list[str]:
    """The Markdown page."""
    found = record["environment"]
    text = ["# Cost of curvature products", ""]
    text += ["Written by `python benchmarks/products.py`. Costs are in gradients of the same batches, a vector; medians.", ""]
    text += [f"{found['cpu']}, {found['cores']} cores, {found['threads']} thread(s), load at the start {found['load']:.1f};"]
    text += [", ".join(f"{package} {number}" for package, number in found["versions"].items()) + ".", ""]
    for name, workload in record["workloads"].items():
        if "failed" in workload:
            text += [f"## {name}", "", f"failed: {workload['failed']}", ""]
            continue
        unit = workload["gradient_seconds"] * 1e3
        text += [f"## {name}: D = {workload['parameters']:,}, {workload['columns']} columns, gradient {unit:.1f} ms", ""]
        if workload.get("units"):
            across = f"{workload['units_across_kinks']:,} of {workload['units']:,}"
            text += [f"{across} ReLUs and pooling windows are on another side of their kink in float64 than in float32.", ""]
        for matrix, title in (("hessian", "Hessian"), ("ggn", "GGN")):
            text += table(workload[matrix], title, workload.get("announced"))
    return text


def table(entries: dict[str, Any], title: str, announced: int | None) -> list[str]:
    """One matrix of one workload; ``announced``: products that `auto` was told of (records of before it was told: None)."""
    columns = (title, "gradients a vector", "first block, in gradients", "error against float64", "on float64's own kinks")
    rows = [f"| {' | '.join(columns)} | peak MiB | chosen |"]
    rows += ["|---|---|---|---|---|---|---|"]
    for label, entry in entries.items():
        if "failed" in entry:
            rows.append(f"| {label} | failed: {entry['failed'][:60].replace('|', ' ')} | | | | | |")
            continue
        peak = entry.get("peak_mib")
        peak = f"{peak:.0f}" if isinstance(peak, int | float) else ""
        errors = f"{entry['error']:.1e} | " + (f"{entry['plain_error']:.1e}" if "plain_error" in entry else "")
        costs = f"{entry['gradients']:.2f} | {entry['first_gradients']:.0f}"
        rows.append(f"| {label} | {costs} | {errors} | {peak} | {entry.get('chosen', '')} |")
    peer = fastest_peer(entries)
    own = entries.get("curvscope auto", {}).get("gradients")
    if peer and own:
        rows += ["", f"{title}: `auto` is {peer[1] / own:.2f} times as fast as the fastest peer ({peer[0]})."]
    setup = entries.get("curvscope auto", {}).get("setup_gradients")
    if setup is not None and announced:
        rows += ["", against_hand(entries, announced)]
    elif setup is not None:
        rows += ["", f"Choosing and tracing takes `auto` {setup:.1f} gradients, once its products have taken about as long."]
    return [*rows, ""]


def against_hand(entries: dict[str, Any], announced: int) -> str:
    """Return what `auto` costs in long work beside the best strategy by hand, each with its set-up."""

    def cost(entry: dict[str, Any]) -> float:
        return announced * entry["gradients"] + entry["setup_gradients"]

    own, prefix = entries["curvscope auto"], "curvscope "
    by_hand = {label: entry for label, entry in entries.items() if label.startswith(prefix) and "gradients" in entry}
    by_hand.pop("curvscope auto")
    told = f"Told of {announced:,} products to come, `auto` chooses and traces for {own['setup_gradients']:.1f} gradients"
    if not by_hand:
        return told + "."
    best = min(by_hand, key=lambda label: cost(by_hand[label]))
    ratio = cost(own) / cost(by_hand[best])
    name = best.removeprefix(prefix)
    return f"{told}; with that they cost {ratio:.2f} times what the best by hand ({name}) costs with its set-up."


def draw(record: dict[str, Any], path: Path) -> None:
    """Bars: our automatic choice, each peer at its best width, plain double backward."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    labels = ("curvscope auto", *PEERS, "double backward, plain")
    names = [name for name, workload in record["workloads"].items() if "failed" not in workload]
    figure, axes = pyplot.subplots(1, 2, figsize=(12, 4), sharey=True, layout="constrained")
    for axis, matrix in zip(axes, ("hessian", "ggn"), strict=True):
        for place, label in enumerate(labels):
            heights = []
            for name in names:
                entries = record["workloads"][name][matrix]
                costs = [e["gradients"] for key, e in entries.items() if key.startswith(label) and "gradients" in e]
                heights.append(min(costs, default=0.0))
            if any(heights):
                axis.bar([index + 0.16 * place for index in range(len(names))], heights, 0.15, label=label)
        axis.set_xticks([index + 0.32 for index in range(len(names))], names)
        axis.set_title({"hessian": "Hessian", "ggn": "GGN"}[matrix])
    axes[0].set_ylabel("gradients a vector")
    axes[0].legend(fontsize="small")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
