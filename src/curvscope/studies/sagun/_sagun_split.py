"""H = G + E in small, and the spectra of regressions against random-matrix theory (Sagun et al.)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.func import functional_call

from curvscope.estimators import density
from curvscope.operators import ggn, hessian
from curvscope.report import BLUE, GREY, VERMILION, Document, Section, Table, figure
from curvscope.studies.engine import Stages, Study, claim, claims_table, share_holding, summary, verdict
from curvscope.studies.sagun._small import blobs, descend, mlp

WIDTHS = (6, 8, 3)


@dataclass(frozen=True)
class SplitConfig:
    """Samples of the tiny network, and of the regressions."""

    tiny_samples: int = 12
    seeds: int = 5
    steps: int = 3000
    samples: int = 1500
    alphas: tuple[float, ...] = (0.02, 0.2, 1.0, 2.0)
    spike: float = 9.0
    seed: int = 0


PRESETS = {"quick": SplitConfig(), "paper": SplitConfig(samples=4000, steps=20_000)}


def measure(stages: Stages, config: SplitConfig, data: Path | None) -> dict[str, Any]:
    """A stage for each part."""
    tiny = stages.numbers("tiny", lambda: {str(i): _tiny(config.seed + i, config) for i in range(config.seeds)})
    laws = stages.numbers("regressions", lambda: {f"{a} {n}": _regression(a, n, config) for a in config.alphas for n in (1, 2)})
    numbers = {"config": asdict(config), "tiny": tiny, "regressions": laws}
    return numbers | {"claims": _claims(numbers)}


def _tiny(seed: int, config: SplitConfig) -> dict[str, Any]:
    """The split of a tiny network, before and after training."""
    random = torch.Generator().manual_seed(seed)
    centers = 1.5 * torch.randn(WIDTHS[-1], WIDTHS[0], generator=random, dtype=torch.float64, device="cpu")
    pair = blobs(centers, 1.0, config.tiny_samples // WIDTHS[-1], seed)
    model = mlp(WIDTHS, nn.Tanh, seed)
    before = _split_of(model, pair)
    descend(model, pair, rate=0.2, steps=config.steps)
    return {"start": before, "end": _split_of(model, pair)}


def _split_of(model: nn.Module, pair: tuple[Tensor, Tensor]) -> dict[str, float]:
    setting = (model, nn.CrossEntropyLoss(), [pair])
    H, G = hessian(*setting, strategy="double_backward"), ggn(*setting, strategy="double_backward")
    identity = torch.eye(H.shape[0], dtype=torch.float64, device="cpu")
    h, g, e = H @ identity, G @ identity, remainder(model, pair)
    ours, theirs = torch.linalg.eigvalsh(h), torch.linalg.eigvalsh(g)
    return {
        "D": H.shape[0],
        "rank_bound": len(pair[1]) * (WIDTHS[-1] - 1),
        "rank": int((theirs > 1e-12 * theirs[-1]).sum()),
        "lowest_of_G": float(theirs[0]),
        "lowest_of_H": float(ours[0]),
        "sum_error": float((h - g - e).abs().max()),
        "weyl": float((ours - theirs).abs().max() / torch.linalg.matrix_norm(e, 2)),
        "share": float(e.norm() / h.norm()),
    }


def remainder(model: nn.Module, pair: tuple[Tensor, Tensor]) -> Tensor:
    """Return E = (1/N) sum_n sum_c (dl/df_c)_n d2 f_c, (D, D), from its own definition.

    The derivatives dl/df = p - y of the cross-entropy are held fixed, and the Hessian of the outputs weighted by them is
    formed by automatic differentiation of the network: neither H nor G has a part in it.
    """
    x, y = pair
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    with torch.no_grad():
        outputs = model(x)
        slopes = (outputs.softmax(dim=1) - nn.functional.one_hot(y, outputs.shape[1])) / len(y)
    shapes, sizes = [p.shape for p in parameters.values()], [p.numel() for p in parameters.values()]

    def weighted(vector: Tensor) -> Tensor:
        """Return the outputs at parameters, weighted by the fixed slopes."""
        parts = [part.reshape(shape) for part, shape in zip(vector.split(sizes), shapes, strict=True)]
        made = functional_call(model, dict(zip(parameters, parts, strict=True)), (x,))
        return torch.sum(made * slopes)

    found: Tensor = torch.func.hessian(weighted)(torch.cat([p.flatten() for p in parameters.values()]))
    return found


def _regression(alpha: float, count: int, config: SplitConfig) -> dict[str, Any]:
    """Spectrum of logistic regression at zero on one Gaussian blob, or on two at +-mu: a quarter of that of X'X / N."""
    samples = config.samples
    size = max(2, round(alpha * samples))
    centers = torch.zeros(count, size, dtype=torch.float64, device="cpu")
    if count == 2:
        centers[:, 0] = torch.tensor([1.0, -1.0], device="cpu") * math.sqrt(config.spike - 1)
    x, y = blobs(centers, 1.0, samples // count, seed=config.seed)
    model = nn.Linear(size, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    H = hessian(model, nn.BCEWithLogitsLoss(), [(x, y.double()[:, None])], strategy="split_vmap:16")
    values = 4 * density(H, method="exact", progress=False).exact
    ratio, root = size / samples, math.sqrt(size / samples)
    positive = values[values > 1e-9]
    return {
        "alpha": ratio,
        "eigenvalues": values.tolist(),
        "edges": [float(positive.min()), float(positive[-1] if count == 1 else positive[-2])],
        "law": [(1 - root) ** 2, (1 + root) ** 2],
        "top": float(values[-1]),
        "spike_law": config.spike * (1 + ratio / (config.spike - 1)),
    }


def _claims(numbers: dict[str, Any]) -> list[dict[str, Any]]:
    states = [state for run in numbers["tiny"].values() for state in run.values()]
    right = [s["rank"] <= s["rank_bound"] and s["lowest_of_G"] >= -1e-12 for s in states]
    rows = [claim("split", "rank G <= N (C - 1), and no eigenvalue of G below -1e-12", share_holding(right)[0], all(right))]
    sums = max(s["sum_error"] for s in states)
    weyl = max(s["weyl"] for s in states)
    text = f"{sums:.0e}; largest |lambda_i(H) - lambda_i(G)| / ||E|| {weyl:.2f}"
    expected = "H = G + E to 1e-12, E from its own definition (the second derivatives of the outputs), and Weyl's inequality"
    rows.append(claim("split", expected, text, sums < 1e-12 and weyl <= 1 + 1e-9))
    starts, ends = ([run[when]["share"] for run in numbers["tiny"].values()] for when in ("start", "end"))
    fall = [before - after for before, after in zip(starts, ends, strict=True)]
    text = f"{summary(starts)} at the start, {summary(ends)} at the end"
    rows.append(claim("remainder", "||E||_F / ||H||_F falls along training", text, verdict(fall, least=0.0)))
    rows.append(claim("remainder", "E is small at the end: ||E||_F <= 0.1 ||H||_F", summary(ends), verdict(ends, most=0.1)))
    laws = numbers["regressions"]
    off = {
        name: max(abs(a - b) / max(b, 0.05) for a, b in zip(cell["edges"], cell["law"], strict=True) if b > 0.05)
        for name, cell in laws.items()
        if name.endswith(" 1")
    }
    text = ", ".join(f"alpha {name.split()[0]}: {value:.1%}" for name, value in off.items())
    expected = "edges of one blob's bulk within 5 % of (1 +- sqrt alpha)^2"
    rows.append(claim("random data", expected, text, max(off.values()) <= 0.05))
    spikes = {name: abs(c["top"] / c["spike_law"] - 1) for name, c in laws.items() if name.endswith(" 2")}
    text = ", ".join(f"alpha {name.split()[0]}: {value:.1%}" for name, value in spikes.items())
    rows.append(
        claim("random data", "two blobs: the outlier within 5 % of l (1 + alpha / (l - 1))", text, max(spikes.values()) <= 0.05)
    )
    return rows


def document(numbers: dict[str, Any]) -> Document:
    """The page."""
    rows = []
    for seed, run in numbers["tiny"].items():
        for when, s in run.items():
            rank = f"{s['rank']} (<= {s['rank_bound']})"
            rows.append(
                [f"seed {seed}, {when}", f"{s['share']:.3g}", rank, f"{s['lowest_of_G']:.1e}", f"{s['lowest_of_H']:.1e}"]
            )
    return Document(
        title="The Hessian split, and random matrices",
        summary=f"A tiny tanh network ({'-'.join(map(str, WIDTHS))}, {numbers['config']['tiny_samples']} samples) whose "
        f"matrices are formed, and logistic regressions at zero with {numbers['config']['samples']} samples. Edges of finite "
        "matrices scatter by about M^(-2/3), which is 5 to 10 % for the smallest.",
        sections=[
            Section("Claims", "Pass marks are ours.", table=claims_table(numbers["claims"])),
            Section(
                "H = G + E",
                "Negative eigenvalues come from E alone.",
                table=Table(["", "|E| / |H|", "rank of G", "lowest of G", "lowest of H"], rows),
                shows="equations 3 to 5",
            ),
            Section(
                "One blob",
                "Eigenvalues (times 4) and the law of Marchenko and Pastur.",
                _laws(numbers, 1),
                alternative="Histograms with the Marchenko-Pastur density",
                shows="figure 9",
            ),
            Section(
                "Two blobs",
                "The same with one outlier; dashed: where Baik, Ben Arous and Peche put it.",
                _laws(numbers, 2),
                alternative="Histograms with one outlier",
                shows="figure 9",
            ),
        ],
    )


def _laws(numbers: dict[str, Any], count: int) -> Figure:
    cells = [cell for name, cell in numbers["regressions"].items() if name.endswith(f" {count}")]
    with figure(len(cells), width=2.6 * len(cells), height=3.0) as (sheet, places):
        for axes, cell in zip(places, cells, strict=True):
            values, (low, high) = torch.tensor(cell["eigenvalues"], dtype=torch.float64, device="cpu"), cell["law"]
            axes.hist(values[values > 1e-9], bins=40, density=True, color=BLUE, alpha=0.4)
            x = torch.linspace(low, high, 400, dtype=torch.float64, device="cpu")[1:-1]
            law = ((high - x) * (x - low)).sqrt() / (2 * math.pi * cell["alpha"] * x)
            axes.plot(x, law / min(1.0, 1 / cell["alpha"]), color=VERMILION)
            if count == 2:
                axes.axvline(cell["spike_law"], color=GREY, linestyle="--")
            axes.set(title=f"alpha = {cell['alpha']:g}", xlabel="eigenvalue")
        places[0].set_ylabel("density of the nonzero ones")
    return sheet


STUDY = Study(
    "sagun-split",
    "The Hessian split into its Gauss-Newton part and a rest; regressions against random-matrix theory",
    "Sagun et al. 2017: equations 3-5, figure 9",
    PRESETS,
    {"quick": "2 minutes", "paper": "8 minutes"},
    measure,
    document,
)
