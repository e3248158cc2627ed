"""Keyword arguments of other libraries: those that mean exactly one of ours are taken as it, the others lead to it."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from typing import Any

SAME: dict[str, str] = {
    **dict.fromkeys(["rng", "generator", "random_state"], "seed"),
    **dict.fromkeys(["loss_fn", "loss_func", "loss_function", "criterion"], "loss"),
    **dict.fromkeys(["dataloader", "data_loader", "loader", "train_loader", "batches", "dataset"], "data"),
    **dict.fromkeys(["net", "network", "module", "model_func"], "model"),
    **dict.fromkeys(["parameters", "param_filter", "param_names"], "params"),
    **dict.fromkeys(["probes", "n_probes", "n_v", "num_vectors", "n_vectors"], "num_probes"),
    **dict.fromkeys(["n_samples", "num_samples", "samples", "num_matvecs", "n_matvecs", "max_matvecs"], "max_products"),
    **dict.fromkeys(["num_eigenthings", "top_n", "n_components", "num_eigs", "num_eigenvalues", "neigs"], "k"),
    **dict.fromkeys(["num_iter", "n_iter", "n_steps", "lanczos_steps", "num_lanczos_steps", "steps", "iter", "m"], "num_steps"),
    **dict.fromkeys(["max_iter", "maxIter"], "maxiter"),
    **dict.fromkeys(["A", "H", "op", "matrix", "linop", "lop"], "operator"),
    **dict.fromkeys(["outer_dims", "outer_dim"], "num_outer"),
    **dict.fromkeys(["inner_dims", "inner_dim"], "num_inner"),
    **dict.fromkeys(["verbose", "progressbar", "progress_bar"], "progress"),
    **dict.fromkeys(["axes", "axis"], "ax"),
    "tol": "rtol",
    "solver": "method",
    "batchsize": "microbatch",
    "damp": "damping",
    **dict.fromkeys(["B", "b", "rhs"], "right"),
    "M": "preconditioner",
    "mc_samples": "num_draws",
    "num_mc_samples": "num_draws",
    "num_points": "points",
    "n_points": "points",
    "force": "overwrite",
    "logy": "log",
    "tracker": "recorder",
    "name": "label",
}
"""Keywords of SciPy, PyTorch, PyHessian, curvlinops, skerch and hessian-eigenthings that mean the same as ours."""

ALSO: dict[str, str] = {
    **dict.fromkeys(["n_samples", "num_samples", "samples", "num_matvecs"], "num_probes"),
    **dict.fromkeys(["num_probes", "probes", "n_probes", "n_v", "num_vectors", "n_vectors"], "max_products"),
    **dict.fromkeys(["max_iter", "maxIter", "maxiter"], "max_products"),
    "iter": "max_products",
    "shift": "damping",
}
"""The same for functions that do not have the first one."""

KEYWORDS: dict[str, str] = {
    **dict.fromkeys(SAME, ""),
    "probes": "num_probes",
    "tol": "rtol (trace and norms) or tol (eigsh)",
    "rtol": "tol (eigsh) or rtol (trace and norms)",
    "maxiter": "max_products, which counts vectors",
    "steps": "num_steps (density)",
    "m": "num_steps (density) or ncv (eigsh)",
    "key": "seed, an integer",
    "n": "k",
    "q": "k",
    "num": "k or num_probes",
    "exclude": "params, a function of names: params=lambda name: not name.endswith('bias')",
    "include": "params, a glob such as 'layer4.*' or a list of them",
    "certify": "nothing here: cs.certify(H, solution) proves what was found",
    "certified": "nothing here: cs.certify(H, solution) proves what was found",
    "exact": "method, 'exact'",
    "layerwise": "nothing here: masks.layerwise_magnitude(model) ranks within each tensor",
    "per_layer": "nothing here: estimate.layers has each parameter tensor's part, cs.eigsh_by_layer(H) each layer's pairs",
    "device": "nothing here: it is the operator's, cs.hessian(..., device='cuda'), or H.to('cuda')",
    "dtype": "nothing here: it is the operator's, cs.hessian(..., dtype=torch.float64), or H.to(torch.float64)",
    "color": "nothing here: ax.lines[-1].set_color(...) changes what was drawn",
    "parameters": "params",
    "callback": "progress, a function (stage, done, total, note)",
    "sigma": "nothing here: a density needs no kernel width",
    "kernel_width": "nothing here: a density needs no kernel width",
    "bandwidth": "nothing here: a density needs no kernel width",
    "return_eigenvectors": "nothing here: solution.eigenvalues alone are (k,) float64",
    "return_singular_vectors": "nothing here: solution.S alone are the singular values",
    "grid": "nothing here: density(...).linear(points, low=..., high=...) gives any grid",
    "bins": "nothing here: density(...).linear(points, low=..., high=...) gives any grid",
    "log": "nothing here: ax.set_xscale('log') and ax.set_yscale('log') change what was drawn",
    "logx": "nothing here: scale='log' shows magnitudes on a logarithmic abscissa",
    "label": "nothing here: ax.lines[-1].set_label(...) names what was drawn",
    "fmt": "format",
    "damping": "nothing here: H.shift(0.1), or H + 0.1 * cs.identity(H), adds damping to any operator",
    "mode": "which, 'LM', 'LA', 'SA' or 'BE'",
    "largest": "which, 'LA' for the largest and 'SA' for the smallest eigenvalues",
    "order": "which, 'LM', 'LA', 'SA' or 'BE'",
    "rank": "k",
    "X": "v0",
    "x0": "v0",
    "init": "v0",
    "start": "v0",
    "M": "nothing here: of a generalised problem A v = lambda M v, cs.eigsh of cs.preconditioned(A, M)",
    "B": "nothing here: of a generalised problem A v = lambda B v, cs.eigsh of cs.preconditioned(A, B)",
    "batch_size": "microbatch (samples at a time; the matrix stays the same) or block_size (vectors at a time)",
    "chunk_size": "width (vectors at a time) or microbatch (samples at a time)",
    "num_batches": "nothing here: pass the batches themselves, list(itertools.islice(loader, 10))",
    "max_batches": "nothing here: pass the batches themselves, list(itertools.islice(loader, 10))",
    "num_data": "nothing here: it is counted",
    "batch_size_fn": "weight, a function batch -> number of loss terms",
    "check_deterministic": "nothing here: it is always verified, cs.preflight(H) says how it went",
    "block_sizes": "nothing here: cs.eigsh_by_layer(H) or cs.block_triangular(H) for blocks, H.submatrix('layer.*') for one",
    "cuda": "device, 'cuda' or 'cpu'",
    "use_gpu": "device, 'cuda' or 'cpu'",
    "full_dataset": "nothing here: all batches of the data are used",
    "train": "nothing here: the model is evaluated in evaluation mode; batchnorm='batch' uses the batches' statistics",
    "eval": "nothing here: the model is evaluated in evaluation mode; batchnorm='batch' uses the batches' statistics",
    "weight_decay": "damping, which adds a multiple of the identity as weight decay does",
    "l2": "damping, which adds a multiple of the identity as weight decay does",
    "layers": "params, a glob such as 'layer4.*'",
    "layer": "params, a glob such as 'layer4.*'",
    "names": "params, a glob such as 'layer4.*'",
    "precision": "dtype",
    "percentile": "fraction",
    "sparsity": "fraction, of the parameters that are kept: 1 - sparsity",
    "amount": "fraction, of the parameters that are kept: 1 - amount",
    "density": "fraction",
    "p": "fraction",
    "normalize": "metric",
    "filename": "path",
    "file": "path",
    "out": "path or run",
    "save": "run",
    "exist_ok": "overwrite",
}
"""Keywords of other libraries that need words; an empty text: :data:`SAME` has it."""

_TRACKER = "nothing here: it is the tracker's, a callback takes curvscope.Tracker(model, loss, data, k=10, every=100)"

ELSEWHERE: dict[tuple[str, str], str] = {
    **dict.fromkeys([("k", "recorder"), ("every", "recorder"), ("model", "recorder"), ("data", "recorder")], _TRACKER),
    ("sigma", "which"): "nothing here: eigenvalues near a point would need an inverse; which='SA' and 'BE' give the other ends",
}
"""Other words for a keyword in functions that have a given argument."""


def renamed(arguments: dict[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Return keyword arguments with those of other libraries under our names, where the function has these and not theirs.

    >>> renamed({"rng": 3, "tol": 0.1}, ["seed", "tol"])
    {'seed': 3, 'tol': 0.1}
    """
    found = {}
    for name, value in arguments.items():
        ours = name
        if name not in known:
            ours = next((other for table in (SAME, ALSO) if (other := table.get(name, name)) in known), name)
        if name == "verbose" and isinstance(value, int):
            value = bool(value)
        found[name if ours in arguments else ours] = value
    return found


def same_choice(value: Any, others: dict[str, str]) -> Any:
    """Return our name of a choice for another of its names; anything else as it is.

    >>> same_choice("HutchPP", {"hutchpp": "hutch++"}), same_choice("exact", {})
    ('hutch++', 'exact')
    """
    plain = value.lower().replace("-", "").replace("_", "") if isinstance(value, str) else value
    return others.get(plain, value) if isinstance(plain, str) else value


def unknown_argument(function: str, name: str, known: Iterable[str]) -> str:
    """Return the message for a keyword argument that a function does not take; without a function, for an option.

    >>> unknown_argument("density", "sed", ["num_probes", "seed"])
    "density has no argument 'sed': did you mean 'seed'? it takes num_probes, seed"
    """
    known = [other for other in known if other not in ("self", "cls")]
    said = f"{function} has no argument {name!r}" if function else f"there is no option {name!r}"
    takes = f"it takes {', '.join(known)}" if known else "it takes none"
    other_words = (ELSEWHERE[name, argument] for argument in known if (name, argument) in ELSEWHERE)
    words = next(other_words, KEYWORDS.get(name, "") or SAME.get(name, ""))
    if words:
        if words.startswith("nothing here: "):
            return f"{said}: {words.removeprefix('nothing here: ')}; {takes}"
        parts = [part for part in words.split(" or ") if part.split(" ")[0].rstrip(",") in known]
        if parts:
            return f"{said}: use {' or '.join(parts)}; {takes}"
    near = difflib.get_close_matches(name, known, 1, 0.6)
    return f"{said}: " + (f"did you mean {near[0]!r}? " if near else "") + takes
