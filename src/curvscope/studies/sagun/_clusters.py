"""Parts of the study ``sagun-data``: as many outliers as clusters, the covariance of gradients, Hessians at random points."""

from __future__ import annotations

from functools import partial
from itertools import product
from statistics import fmean, stdev
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from curvscope.estimators import RULES, count_outliers, density
from curvscope.report import CYCLE, GREY, Table, figure
from curvscope.studies.engine import Stages, claim, share_holding, share_verdict, summary, verdict
from curvscope.studies.sagun._small import Pair, blobs, descend, hessian_of, mlp

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh}
NEAR_ZERO = 1e-3
RANDOM_WIDTHS = (6, 10, 14)
"""Widths of the 2-h-h-2 networks whose Hessians at random points are formed: D = 74, 162 and 282."""


def clusters(stages: Stages, config: Any) -> dict[str, Any]:
    """Outlier counts of the 100-30-30-k network for every number of clusters, variance, optimiser, activation and seed."""
    found = {}
    for k, variance, batch, name in product(config.classes, config.variances, (None, 50), ACTIVATIONS):
        if name == "tanh" and k != config.classes[-1]:
            continue
        cell = f"{k} {variance:g} {'GD' if batch is None else 'SGD'} {name}"
        networks = [
            stages.numbers(
                f"clusters-{cell.replace(' ', '-')}-{seed}",
                partial(_network, k, variance, batch, name, config.seed + seed, config),
            )
            for seed in range(config.seeds)
        ]
        found[cell] = {"k": k, "activation": name, "networks": networks}
    return found


def _network(k: int, variance: float, batch: int | None, name: str, seed: int, config: Any) -> dict[str, Any]:
    random = torch.Generator().manual_seed(seed + k)
    centers = torch.randn(k, 100, generator=random, dtype=torch.float64, device="cpu")
    x, y = blobs(centers, variance**0.5, config.samples // k, seed=seed + k)
    pair = ((x - x.mean()) / x.std(), y)
    model, most = mlp((100, 30, 30, k), ACTIVATIONS[name], seed), 2 * k + 5
    descend(model, pair, rate=0.1, steps=config.steps, batch=batch, seed=seed)
    whole = density(
        hessian_of(model, pair), num_probes=config.num_probes, num_steps=config.num_steps, method="lanczos", progress=False
    )
    gradients = covariance_spectrum(model, pair)[: most + 1]
    return {
        "top": whole.extremes()[:most].tolist(),
        "outliers": {rule: whole.outliers(rule, most=most) for rule in RULES},
        "gradients": gradients.tolist(),
        "gradient_outliers": {rule: count_outliers(gradients, rule, most=most) for rule in RULES},
    }


def covariance_spectrum(model: nn.Module, pair: Pair) -> Tensor:
    """Return the eigenvalues, descending, of the covariance of the samples' gradients: (1/N) sum (g_n - g)(g_n - g)'.

    Those of the small matrix of inner products, of which there are as many as samples.
    """
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(own: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        """Of one sample."""
        return nn.functional.cross_entropy(functional_call(model, own, (x[None],)), y[None])

    parts = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, *pair)
    rows = torch.cat([part.flatten(1) for part in parts.values()], dim=1)
    rows = (rows - rows.mean(dim=0)) / len(rows) ** 0.5
    values: Tensor = torch.linalg.eigvalsh(rows @ rows.mT)
    return values.flip(0).clamp(min=0.0)


def cluster_claims(found: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each rule: the elbow is the one that the paper names, the others are reported; k = 2 by itself."""
    rows = []
    for name in ACTIVATIONS:
        own = [(cell["k"], each) for cell in found.values() if cell["activation"] == name for each in cell["networks"]]
        many, two = [pair for pair in own if pair[0] > 2], [pair for pair in own if pair[0] == 2]
        for rule in RULES:
            if not many:
                continue
            near = [abs(each["outliers"][rule] - k) <= 1 for k, each in many]
            exact = [each["outliers"][rule] == k for k, each in many]
            judged = share_verdict(sum(near), len(near), 0.8) if (name, rule) == ("relu", "elbow") else None
            measured = f"{share_holding(near)[0]} (exactly k: {share_holding(exact)[0]})"
            rows.append(
                claim("clusters", f"{name}, k > 2: {rule} count within 1 of k, in >= 80 % of networks", measured, judged)
            )
        if two:
            exact = [each["outliers"]["elbow"] == 2 for _, each in two]
            text = "k = 2, where within 1 would accept all: exactly 2 by elbow, in >= 80 % of networks"
            rows.append(
                claim("clusters", f"{name}, {text}", share_holding(exact)[0], share_verdict(sum(exact), len(exact), 0.8))
            )
    relu = [(cell["k"], each) for cell in found.values() if cell["activation"] == "relu" for each in cell["networks"]]
    if relu:
        agree = [abs(each["gradient_outliers"]["elbow"] - each["outliers"]["elbow"]) <= 1 for _, each in relu]
        text = "relu: outliers of the covariance of gradients as many as of the Hessian, within 1, by elbow, in >= 80 %"
        rows.append(claim("gradients", text, share_holding(agree)[0], share_verdict(sum(agree), len(agree), 0.8)))
    return rows


def table_clusters(found: dict[str, Any]) -> Table:
    """Table 1 with a column for the covariance of gradients."""
    rows = []
    for name, cell in found.items():
        k, variance, optimiser, activation = name.split()
        cells = []
        for key in ("outliers", "gradient_outliers"):
            for rule in RULES:
                counts = [each[key][rule] for each in cell["networks"]]
                cells.append(f"{fmean(counts):.1f} ({min(counts)} to {max(counts)})")
        rows.append([k, variance, optimiser, activation, str(len(cell["networks"])), *cells])
    heads = ["clusters", "variance", "optimiser", "activation", "networks"]
    return Table([*heads, *(f"Hessian,\n{r}" for r in RULES), *(f"gradients,\n{r}" for r in RULES)], rows)


def random_points(config: Any) -> dict[str, Any]:
    """Shares of eigenvalues near zero: of Hessians at random parameters, of symmetric Gaussian matrices of that size."""
    centers = torch.tensor([[-1.0, -1.0], [1.0, 1.0]], dtype=torch.float64, device="cpu")
    found = {}
    for width in RANDOM_WIDTHS:
        hessians, gaussians, size = [], [], 0
        for seed in range(config.seeds):
            pair = blobs(centers, 0.2, 100, config.seed + seed)
            H = hessian_of(mlp((2, width, width, 2), nn.ReLU, 1000 + config.seed + seed), pair)
            size = H.shape[0]
            hessians.append(near_zero(density(H, method="exact", progress=False).exact))
            drawn = torch.randn(size, size, generator=torch.Generator().manual_seed(config.seed + seed), device="cpu").double()
            gaussians.append(near_zero(torch.linalg.eigvalsh((drawn + drawn.mT) / 2)))
        found[str(width)] = {"D": size, "hessian": hessians, "gaussian": gaussians}
    return found


def near_zero(values: Tensor) -> float:
    """Return the share of the values whose magnitude is below a thousandth of the largest.

    >>> near_zero(torch.tensor([1.0, 1e-4, -1e-5, 0.5]))
    0.5
    """
    return float((values.abs() < NEAR_ZERO * values.abs().max()).double().mean())


def singularity_claims(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Hessians at random points beside Gaussian matrices, all widths together."""
    hessians = [share for cell in found.values() for share in cell["hessian"]]
    gaussians = [share for cell in found.values() for share in cell["gaussian"]]
    more = [a - b for a, b in zip(hessians, gaussians, strict=True)]
    text = f"share near zero {summary(hessians)}; Gaussian {summary(gaussians)}"
    what = "Hessians at random parameters are more singular than Gaussian matrices of the same size"
    return [claim("random points", what, text, verdict(more, least=0.0))]


def figure_random(found: dict[str, Any]) -> Figure:
    """Shares near zero against D, with standard errors."""
    sizes = [cell["D"] for cell in found.values()]
    with figure(width=5.0) as (sheet, (axes,)):
        for name, label, colour in (("hessian", "Hessian", CYCLE[0]), ("gaussian", "symmetric Gaussian", GREY)):
            middle = [fmean(cell[name]) for cell in found.values()]
            error = [2 * stdev(cell[name]) / len(cell[name]) ** 0.5 if len(cell[name]) > 1 else 0 for cell in found.values()]
            axes.errorbar(sizes, middle, yerr=error, marker="o", capsize=2, color=colour, label=label)
        axes.set(xlabel="D", ylabel="share of eigenvalues near zero", ylim=(0, 1))
        axes.legend(loc="best")
    return sheet


def figure_tops(numbers: dict[str, Any]) -> Figure:
    """Largest eigenvalues for each number of clusters: means over networks, and their range."""
    classes = numbers["config"]["classes"]
    kinds = dict.fromkeys(tuple(name.split()[1:3]) for name in numbers["clusters"])
    colours = dict(zip(kinds, CYCLE, strict=False))
    with figure(len(classes), width=3.0 * len(classes), height=3.6) as (sheet, places):
        for axes, k in zip(places, classes, strict=True):
            for name, cell in numbers["clusters"].items():
                if cell["k"] != k:
                    continue
                _, variance, optimiser, activation = name.split()
                colour, line = colours[variance, optimiser], ".-" if activation == "relu" else "x:"
                most = min(len(each["top"]) for each in cell["networks"])
                columns = list(zip(*(each["top"][:most] for each in cell["networks"]), strict=True))
                ranks = range(1, most + 1)
                axes.fill_between(ranks, [min(c) for c in columns], [max(c) for c in columns], color=colour, alpha=0.15)
                label = f"variance {variance}, {optimiser}, {activation}"
                axes.plot(ranks, [fmean(c) for c in columns], line, color=colour, markersize=3, linewidth=0.8, label=label)
            axes.axvline(k + 0.5, color=GREY, linestyle="--", linewidth=0.8)
            axes.set(title=f"k = {k}", xlabel="rank", yscale="log")
        places[0].set_ylabel("eigenvalue")
        # The last panel alone has networks of both activations.
        sheet.legend(*places[-1].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return sheet
