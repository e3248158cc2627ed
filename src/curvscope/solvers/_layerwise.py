"""Top eigenpairs of every diagonal block: one call for all layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from curvscope.errors import InvalidArgument, InvalidType
from curvscope.operators import Composable, ParameterFilter
from curvscope.solvers._eigsh import eigsh
from curvscope.solvers._exact import Exact
from curvscope.solvers.driver import check_fit
from curvscope.solvers.krylov import Krylov
from curvscope.solvers.results import Solution
from curvscope.system import Progress, as_bytes, check_options, checked

Layers = Mapping[str, ParameterFilter]


@checked
def eigsh_by_layer(
    operator: Composable,
    k: int = 1,
    *,
    layers: Layers | None = None,
    which: Literal["LM", "LA", "SA", "BE"] = "LM",
    tol: float = 1e-3,
    seed: int = 0,
    preflight: bool = True,
    progress: Progress = None,
    **options: Any,
) -> dict[str, Solution]:
    """The k wanted eigenpairs of the diagonal block of each layer: of the curvature when only that layer moves.

    Args:
        operator: a curvature operator, or a sum of some.
        k: pairs of each layer; all of them where a layer has fewer parameters.
        layers: name and parameters (a glob, a list of globs, a pattern, a predicate) of each; default: the parameter tensors of
            one module together, "0" for "0.weight" and "0.bias".
        which: see :func:`curvscope.eigsh`.
        tol: see there.
        seed: see there.
        preflight: check the whole operator once.
        progress: see :data:`.progress.Progress`.
        options: further ones of :func:`curvscope.eigsh`, such as ``max_products``.

    Returns:
        The solution of each layer by name; its vectors have the layer's parameters, ``solution.vector(0)`` names them.

    Cost: about 2 k + 20 products a layer, each as dear as one of the whole operator.

    Raises:
        InvalidType: an operator without named parameters. InvalidArgument: a filter that nothing passes.

    >>> import torch, curvscope as cs
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    >>> H = cs.hessian(model, torch.nn.CrossEntropyLoss(), [(torch.randn(8, 3), torch.randint(2, (8,)))])
    >>> {name: (solution.k, solution.status.converged) for name, solution in eigsh_by_layer(H, 2).items()}
    {'0': (2, True), '2': (2, True)}
    """
    if not isinstance(operator, Composable) or getattr(operator, "parameters", None) is None:
        raise InvalidType(
            f"{type(operator).__name__} has no named parameters: pass cs.hessian(...), cs.ggn(...) or a sum of them"
        )
    if k < 1:
        raise InvalidArgument(f"k={k}: choose at least 1")
    own = Krylov.__dataclass_fields__
    method = Krylov(**check_options(Krylov, {name: value for name, value in options.items() if name in own}))
    options = check_options(eigsh, {name: value for name, value in options.items() if name not in own})
    if options.get("memory") is not None:
        as_bytes(options["memory"])
    chosen = modules(operator) if layers is None else dict(layers)
    if not chosen:
        raise InvalidArgument("layers={}: name at least one layer, or leave layers= out for all of them")
    blocks = {name: operator.submatrix(params) for name, params in chosen.items()}
    if preflight:
        check_fit(operator)
    found = {}
    for name, block in blocks.items():
        size = block.shape[0]
        wanted = min(k, size)
        # A dense solve of a small layer takes as many products of the whole operator as the layer has parameters.
        how = {"method": Exact()} if size <= 4 * wanted + 20 else {"method": method, **options}
        found[name] = eigsh(block, wanted, which=which, tol=tol, seed=seed, preflight=False, progress=progress, **how)
    return found


def modules(operator: Composable) -> dict[str, list[str]]:
    """The parameters of each module: names up to the last dot, or whole where there is none.

    >>> import torch, curvscope as cs
    >>> data = [(torch.randn(8, 3), torch.randn(8, 1))]
    >>> modules(cs.hessian(torch.nn.Sequential(torch.nn.Linear(3, 1)), torch.nn.MSELoss(), data))
    {'0': ['0.weight', '0.bias']}
    """
    found: dict[str, list[str]] = {}
    for name in operator.parameters.names:
        found.setdefault(name.rpartition(".")[0] or name, []).append(name)
    return found
