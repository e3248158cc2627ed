"""The public face: every function with sound arguments, for harnesses that make one of them unsound."""

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn

import curvscope as cs
from curvscope.solvers import hmt, nystrom, singlepass


def operator():
    return torch.diag(torch.arange(1.0, 13.0, dtype=torch.float64))


def functions():
    """(function, good arguments) for the public face."""
    A = operator()
    solution = cs.eigsh(A, 3, progress=False)
    model, data = nn.Sequential(nn.Linear(2, 3)), [(torch.ones(4, 2), torch.tensor([0, 1, 2, 0]))]
    H = cs.hessian(model, nn.CrossEntropyLoss(), data)
    ranking = cs.masks.random(12)
    made = cs.density(A, num_probes=2, num_steps=4, progress=False)
    yield cs.eigsh, {"operator": A, "k": 2}
    yield cs.svds, {"operator": A, "k": 2}
    yield cs.seigh, {"operator": A, "num_outer": 4}
    yield cs.ssvd, {"operator": A, "num_outer": 4}
    yield hmt, {"operator": A, "num_outer": 4}
    yield nystrom, {"operator": A, "num_outer": 4}
    yield singlepass, {"operator": A, "num_outer": 4}
    yield cs.adaptive_seigh, {"operator": A}
    yield cs.certify, {"operator": A, "solution": solution}
    yield cs.posterior_error, {"operator": A, "solution": solution}
    sampled = cs.hessian(model, nn.CrossEntropyLoss(), [(torch.randn(40, 2), torch.arange(40) % 3)])
    of_sample = cs.eigsh(sampled, 2, progress=False)
    yield cs.population, {"operator": sampled, "solution": of_sample, "folds": 4}
    yield cs.population_trace, {"operator": sampled, "folds": 4}
    over_data = cs.population(sampled, of_sample, folds=4, progress=False)
    yield cs.learning_curve, {"operator": sampled, "solution": of_sample, "population": over_data, "halvings": 1}
    yield cs.scree, {"operator": A, "solution": solution}
    yield cs.plan, {"operator": A, "k": 2}
    yield cs.density, {"operator": A}
    yield cs.trace, {"operator": A}
    yield cs.diagonal, {"operator": A}
    yield cs.frobenius_norm, {"operator": A}
    yield cs.spectral_norm, {"operator": A}
    yield cs.count_outliers, {"values": torch.arange(5.0)}
    yield cs.probes_needed, {"confidence": 0.9, "relative_error": 0.5}
    yield cs.sizes_for_rank, {"rank": 3}
    yield cs.sizes_for_products, {"products": 30}
    yield cs.sizes_for_memory, {"numbers": 10**6, "rows": 100, "columns": 100}
    yield cs.overlap_without_vectors, {"operator": A, "chosen": ranking, "k": 2}
    yield cs.gradient_fraction, {"gradient": torch.ones(12, dtype=torch.float64), "basis": solution}
    yield cs.kappa, {"vector": torch.ones(12), "rho": 0.5}
    yield cs.splitting, {"hessian": H, "ggn": H, "k": 2}
    yield cs.eigsh_by_layer, {"operator": H, "k": 1}
    yield cs.loss_along, {"operator": H, "direction": torch.ones(9)}
    yield cs.preflight, {"operator": H}
    yield cs.hessian, {"model": model, "loss": nn.CrossEntropyLoss(), "data": data}
    yield cs.ggn, {"model": model, "loss": nn.CrossEntropyLoss(), "data": data}
    yield cs.monte_carlo_fisher, {"model": model, "loss": nn.CrossEntropyLoss(), "data": data}
    yield cs.gradient_second_moment, {"model": model, "loss": nn.CrossEntropyLoss(), "data": data}
    yield cs.Objective, {"model": model, "loss": nn.CrossEntropyLoss(), "data": data}
    yield cs.Tracker, {"objective": H, "k": 2}
    yield cs.masks.random, {"size": 12}
    yield cs.masks.from_indices, {"index": [1, 2], "size": 12}
    yield cs.masks.best, {"basis": solution}
    yield cs.grassmann.distance, {"first": torch.eye(4)[:, :2], "second": torch.eye(4)[:, 1:3]}
    yield cs.grassmann.similarity, {"first": torch.eye(4)[:, :2], "second": torch.eye(4)[:, 1:3]}
    yield cs.grassmann.baseline, {"size": 12, "first": 2, "samples": 3}
    yield cs.problems.spectrum, {"kind": "power", "size": 12}
    yield cs.open, {"path": "nowhere"}
    yield cs.problems.get, {"name": "digits"}
    yield cs.eigsh(H, 2, progress=False).vector, {"i": 0}
    yield solution.low_rank, {}
    yield made.quantile, {"share": 0.5}
    yield made.mass, {}
    yield made.count, {}
    yield made.outliers, {}
    yield made.linear, {}
    yield made.logarithmic, {}
    yield from _of_networks(model, data, H)
    yield from _of_subspaces(solution, ranking, model, H)
    yield from _of_matrices(A)


def _of_networks(model, data, H):
    loss = nn.CrossEntropyLoss()
    yield cs.empirical_fisher, {"model": model, "loss": loss, "data": data}
    yield cs.jacobian, {"model": model, "data": data}
    yield cs.class_structure, {"objective": H}
    yield cs.interpolate, {"objective": H, "first": torch.zeros(9), "second": torch.ones(9)}
    yield cs.block_triangular, {"operator": H}
    yield cs.Recorder, {"model": model, "steps": [0, 2]}
    yield cs.Tracker(H, k=2).step, {}
    yield cs.Workers, {"executor": ThreadPoolExecutor(1)}
    yield cs.influence, {"operator": H, "test": data, "damping": 1.0}
    yield cs.laplace, {"operator": cs.ggn(model, loss, data), "k": 2}
    yield H.move, {}
    yield H.to, {"target": torch.float64}


def _of_subspaces(solution, ranking, model, H):
    weights = {"0.weight": torch.ones(3, 2), "0.bias": torch.ones(3)}
    yield cs.overlap, {"basis": solution, "other": ranking}
    yield cs.best_overlap, {"basis": solution}
    yield cs.overlap_matrix, {"spaces": [solution, ranking], "ks": [2]}
    yield cs.mask_null, {"basis": solution, "mask": ranking}
    yield cs.participation_ratio, {"vectors": solution}
    yield cs.masks.by_magnitude, {"weights": model}
    yield cs.masks.by_score, {"scores": torch.arange(12.0)}
    yield cs.masks.by_gradient, {"gradient": torch.arange(12.0)}
    yield cs.masks.by_name, {"layers": H.parameters, "chosen": "*.bias"}
    yield cs.masks.fisher, {"weights": weights, "diagonal": torch.ones(9)}
    yield cs.masks.obd, {"weights": weights, "diagonal": torch.ones(9)}
    yield cs.masks.snip, {"weights": weights, "gradient": torch.ones(9)}
    yield cs.masks.from_dict, {"tensors": {name: tensor > 0 for name, tensor in weights.items()}}
    yield cs.masks.from_order, {"order": [2, 0, 1]}
    yield cs.masks.largest, {"weights": weights, "k": 2}
    yield cs.masks.layerwise_magnitude, {"weights": weights}
    yield cs.masks.n_of_m, {"weights": weights, "n": 1, "m": 2}
    yield cs.masks.random_like, {"ranking": cs.masks.by_magnitude(model), "layers": H.parameters}
    yield cs.grassmann.angles, {"first": torch.eye(4)[:, :2], "second": torch.eye(4)[:, 1:3]}


def _of_matrices(A):
    yield cs.as_operator, {"obj": A}
    yield cs.identity, {"like": 12}
    yield cs.compare, {"operator": A, "approximation": A}
    yield cs.solve, {"operator": A, "right": torch.ones(12, dtype=torch.float64)}
    yield cs.preconditioned, {"operator": A, "optimizer": torch.ones(12, dtype=torch.float64)}
    yield cs.stability_threshold, {"optimizer": torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)}
    vector = torch.ones(12, dtype=torch.float64)
    yield cs.function, {"operator": A, "right": vector, "f": "exp"}
    yield cs.function_trace, {"operator": A, "f": "exp"}
    yield cs.logdet, {"operator": A, "damping": 0.1}
    yield cs.rayleigh_quotient, {"operator": A, "basis": torch.eye(12, dtype=torch.float64)[:, :2]}
    yield cs.spectral_concentration, {"eigenvalues": torch.arange(5.0).flip(0), "norm": 6.0}
    yield cs.eigsh_for_overlap, {"operator": A, "ranking": cs.masks.random(12), "k": 2}
