"""What the paper left open: transformers by kind of layer, width and depth, pruning; each over several seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from curvscope.estimators import diagonal
from curvscope.operators import ggn, hessian
from curvscope.problems import Problem, get
from curvscope.solvers import eigsh
from curvscope.studies.beyond._beyond_page import document
from curvscope.studies.engine import Stages, Study
from curvscope.subspaces import leverage, masks, overlap
from curvscope.training import Recorder, evaluate, train

KINDS = {
    "embedding": ("embedding.*", "position.*"),
    "attention": ("*.attention.*",),
    "network": ("*.mlp.*",),
    "norm": ("*norm*",),
    "head": ("head.*",),
}
"""Parameters of ``tinygpt`` by kind of layer."""
RANKINGS = ("magnitude", "OBD, GGN diagonal", "leverage", "random")


@dataclass(frozen=True)
class BeyondConfig:
    """Sizes of the three parts; an empty tuple leaves a part out.

    ``seeds`` initialise and train; ``steps``: of the transformer; ``widths`` and ``depths``: of tanh networks on 16 x 16
    MNIST with ``trained`` steps (the other at its middle value); ``channels``: shares of those of 3c3d (needs CIFAR-10);
    ``sparsities``: shares of the parameters that are removed; ``probes``: products for the diagonal of the GGN; ``largest``:
    the share of each kind's weights whose part of the eigenspace is compared with chance; ``seed``: of the solver.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    k: int = 20
    tol: float = 1e-3
    steps: tuple[int, ...] = (0, 100)
    largest: float = 0.01
    trained: int = 100
    widths: tuple[int, ...] = (10, 20, 40)
    depths: tuple[int, ...] = (1, 2, 4)
    channels: tuple[float, ...] = ()
    pruned: tuple[str, ...] = ("mnist16",)
    sparsities: tuple[float, ...] = (0.3, 0.6, 0.8, 0.9, 0.95)
    probes: int = 100
    seed: int = 12345


PRESETS = {
    "quick": BeyondConfig(),
    "paper": BeyondConfig(
        seeds=(0, 1, 2, 3, 4),
        k=50,
        steps=(0, 100, 1000),
        trained=1000,
        widths=(10, 20, 40, 80, 160),
        depths=(1, 2, 4, 8),
        channels=(0.25, 0.5, 1.0),
        pruned=("mnist16", "cifar10_3c3d"),
        probes=300,
    ),
}


def measure(stages: Stages, config: BeyondConfig, data: Path | None) -> dict[str, Any]:
    """A stage for each part, size and seed."""
    mnist = get("mnist16")
    nets: dict[str, tuple[Problem, Callable[[int], nn.Module]]] = {}
    middle = (config.depths or (1,))[len(config.depths) // 2], (config.widths or (20,))[len(config.widths) // 2]
    for width in config.widths:
        nets[f"width {width}"] = mnist, partial(tanh_network, middle[0], width)
    for depth in config.depths:
        nets[f"depth {depth}"] = mnist, partial(tanh_network, depth, middle[1])
    for share in config.channels:
        cifar = get("cifar10_3c3d", data=data)
        nets[f"3c3d {share:g}"] = cifar, partial(scaled_3c3d, cifar, share)
    transformer = {
        str(step): _by_seed(stages, config, f"transformer-{step:06d}", partial(_kinds, config, step)) for step in config.steps
    }
    ablation = {
        name: _by_seed(stages, config, name.replace(" ", "-"), partial(_ratio, config, problem, make))
        for name, (problem, make) in nets.items()
    }
    pruning = {}
    for name in config.pruned:
        problem = get(name, data=None if name == "mnist16" else data)
        pruning[name] = _by_seed(stages, config, f"pruning-{name}", partial(_pruned, config, problem))
    return {"config": asdict(config), "transformer": transformer, "ablation": ablation, "pruning": pruning}


def tanh_network(depth: int, width: int, seed: int) -> nn.Module:
    """256 - depth x [width, tanh] - 10, with PyTorch's own initialisation.

    >>> sum(p.numel() for p in tanh_network(5, 20, seed=0).parameters())
    7030
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = [nn.Flatten()]
        for wide, narrow in pairwise((256, *(width,) * depth)):
            layers += [nn.Linear(wide, narrow), nn.Tanh()]
        return nn.Sequential(*layers, nn.Linear(width, 10))


def scaled_3c3d(problem: Problem, share: float, seed: int) -> nn.Module:
    """3c3d with a share of its channels and hidden units; the same layers, initialised in the same way."""
    model = problem.model(seed)
    modules = list(model.children())
    convolutions = [module for module in modules if isinstance(module, nn.Conv2d)]
    dense = [module for module in modules if isinstance(module, nn.Linear)]
    scaled: dict[nn.Module, nn.Conv2d | nn.Linear] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inside = 3
        for layer in convolutions:
            outside = max(1, round(share * layer.out_channels))
            padding = cast("tuple[int, int]", layer.padding)
            scaled[layer] = nn.Conv2d(inside, outside, layer.kernel_size[0], padding=padding)
            inside = outside
        inside *= 9
        for hidden in dense:
            outside = hidden.out_features if hidden is dense[-1] else max(1, round(share * hidden.out_features))
            scaled[hidden], inside = nn.Linear(inside, outside), outside
        for own in scaled.values():
            nn.init.zeros_(own.get_parameter("bias"))
            (nn.init.xavier_normal_ if isinstance(own, nn.Conv2d) else nn.init.xavier_uniform_)(own.weight)
    return nn.Sequential(*(scaled.get(module, module) for module in modules))


def _by_seed(
    stages: Stages, config: BeyondConfig, name: str, work: Callable[[int, Stages], dict[str, Any]]
) -> list[dict[str, Any]]:
    return [stages.numbers(f"{name}-seed-{seed}", partial(work, seed, stages)) for seed in config.seeds]


def _trained(problem: Problem, model: nn.Module, steps: int, seed: int, stages: Stages) -> nn.Module:
    recorder = Recorder(model, [steps])
    train(problem, model, recorder, seed=seed, progress=stages.progress)
    return recorder.load(steps, model)


def _kinds(config: BeyondConfig, step: int, seed: int, stages: Stages) -> dict[str, Any]:
    """Part (a): what each kind of layer holds of the eigenspace, and its large weights of that."""
    problem = get("tinygpt")
    model = _trained(problem, problem.model(seed), step, seed, stages)
    H = hessian(model, problem.criterion, problem.curvature_batches())
    solution = eigsh(H, config.k, method="krylov", tol=config.tol, seed=config.seed, progress=stages.progress)
    ranking, scores, rows = masks.by_magnitude(model), leverage(solution), {}
    chosen = ranking.order[: config.k]
    for kind, globs in KINDS.items():
        places = masks.by_name(model, list(globs)).index
        own = ranking.order[torch.isin(ranking.order, places)][: max(1, round(config.largest * len(places)))]
        held = float(scores[places].sum())
        rows[kind] = {
            "of_parameters": len(places) / H.shape[0],
            "of_eigenspace": held / config.k,
            "of_mask": float(torch.isin(chosen, places).float().mean()),
            "large_over_chance": float(scores[own].sum()) / held / (len(own) / len(places)) if held else 0.0,
        }
    ratio = float(overlap(solution, ranking).ratio[config.k - 1])
    return {"kinds": rows, "ratio": ratio, "size": H.shape[0], "loss": H.objective.mean_loss, "status": solution.status.code}


def _ratio(
    config: BeyondConfig, problem: Problem, make: Callable[[int], nn.Module], seed: int, stages: Stages
) -> dict[str, Any]:
    """Part (b): overlap over chance of one trained network."""
    model = _trained(problem, make(seed), config.trained, seed, stages)
    H = hessian(model, problem.criterion, problem.curvature_batches())
    solution = eigsh(H, config.k, method="krylov", tol=config.tol, seed=config.seed, progress=stages.progress)
    curve = overlap(solution, masks.by_magnitude(model))
    loss, accuracy = evaluate(problem, model)
    found = {"ratio": float(curve.ratio[config.k - 1]), "overlap": curve.at(config.k), "status": solution.status.code}
    return {**found, "size": curve.size, "loss": loss, "accuracy": accuracy}


def _pruned(config: BeyondConfig, problem: Problem, seed: int, stages: Stages) -> dict[str, Any]:
    """Part (c): loss and accuracy on test data after removing parameters in four ways, at equal sparsity."""
    model = _trained(problem, problem.model(seed), config.trained, seed, stages)
    samples = problem.curvature_batches()
    H, G = (build(model, problem.criterion, samples) for build in (hessian, ggn))
    solution = eigsh(H, config.k, method="krylov", tol=config.tol, seed=config.seed, progress=stages.progress)
    curvature = diagonal(G, max_products=config.probes, seed=config.seed, progress=stages.progress).value.clamp(min=0)
    rankings = {
        "magnitude": masks.by_magnitude(model),
        "OBD, GGN diagonal": masks.obd(model, curvature),
        "leverage": masks.best(solution),
        "random": masks.random(H.shape[0], seed=seed),
    }
    parameters, values = H.parameters, H.values()
    kept: dict[str, list[dict[str, float]]] = {}
    for ranking in RANKINGS:
        kept[ranking] = []
        for sparsity in (0.0, *config.sparsities):
            removed = rankings[ranking].order[round((1 - sparsity) * H.shape[0]) :]
            vector = values.clone()
            vector[removed] = 0.0
            with torch.no_grad():
                model.load_state_dict(parameters.unflatten(vector), strict=False)
            loss, accuracy = evaluate(problem, model)
            kept[ranking].append({"sparsity": sparsity, "loss": loss, "accuracy": accuracy})
    return {"ways": kept, "size": H.shape[0], "status": solution.status.code}


STUDY = Study(
    "beyond",
    "Transformers by kind of layer; width and depth; pruning",
    "what the paper left open",
    PRESETS,
    {"quick": "1 minute", "paper": "hours"},
    measure,
    document,
)
