"""Architectures of timm, torchvision, Transformers and PEFT: strategy, time and errors of their curvature.

    python benchmarks/architectures.py                    # writes docs/architectures.md
    python benchmarks/architectures.py --only Swin Llama  # measures these again and replaces their rows there

Each goes through cs.hessian, cs.ggn, cs.eigsh and cs.trace as a user would call them. Products in float64 are compared with
central differences of the user's own model, which share no code with the library.
"""

from __future__ import annotations

import argparse
import copy
import math
import re
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import curvscope as cs
from architecture_rows import ARCHITECTURES, Problem, build
from curvscope.errors import InvalidArgument

PAGE = Path(__file__).parents[1] / "docs" / "architectures.md"
STEPS = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
"""Relative to the length of the parameters. Smooth losses are best at the longer ones, rectifiers at the shorter ones."""
HEAD = """# Architectures

```bash
python benchmarks/architectures.py
```

sends architectures of timm, torchvision, Transformers and PEFT through `cs.hessian`, `cs.ggn`, `cs.eigsh` with
`k=2` and `cs.trace`. They are small, with random weights. {count} were measured, in float64 on one core of a CPU, with
PyTorch {version}:

- **D**: number of parameters
- **strategy**: that the library chose for products with the Hessian
- **seconds**: processor time of everything together, construction and tracing included
- **verified**: relative difference of the two routes that verified the derivatives before the first number
- **Hessian**, **GGN**: relative error of one product, against central differences of the user's own model; a dash
  where the loss cannot be cut at the outputs of the network

Faster R-CNN detaches the regions that it proposes: its product is compared with double backward. It pools them with PyTorch's
own operations here: `torchvision.ops.roi_align` has no second derivative, and the library refuses it by name.

All parameters are moved by a little noise: at zero biases, units of empty inputs lie exactly on the kink of a rectifier.

What the check compares: [Products](products.md#what-is-verified-before-the-first-number). Single operations:
[Second derivatives in PyTorch](second-derivatives.md).

| architecture | D | strategy | seconds | verified | Hessian | GGN |
| --- | --- | --- | --- | --- | --- | --- |
"""


@dataclass(frozen=True)
class Outcome:
    """Figures of one architecture.

    Attributes:
        parameters: D.
        strategy: of products with the Hessian.
        seconds: of processor time, without the comparison.
        derivatives: how they were verified, and to which relative difference.
        hessian: relative error of a product.
        ggn: the same; NaN where the loss has no cut.
        eigenvalues: the two that are largest in magnitude.
        trace: estimate.
    """

    parameters: int
    strategy: str
    seconds: float
    derivatives: str
    hessian: float
    ggn: float
    eigenvalues: tuple[float, ...]
    trace: float


class InDouble(TorchFunctionMode):
    """Computes in float64 where a model asks for float32, as for its normalisations."""

    def __torch_function__(self, function: Callable, types: Sequence[type], args: tuple = (), kwargs: Any = None) -> Any:
        """Replace the dtype."""
        if function is Tensor.float:
            return args[0].double()
        args, kwargs = list(args), dict(kwargs or {})
        for place, value in enumerate(args):
            args[place] = torch.float64 if value is torch.float32 else value
        for name, value in kwargs.items():
            kwargs[name] = torch.float64 if value is torch.float32 else value
        return function(*args, **kwargs)


class Differences:
    """Products with the Hessian and the GGN from first derivatives of the user's own model in float64."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.model, self.batch = problem, copy.deepcopy(problem.model).double(), to_double(problem.batch)
        self.own = [p for p in self.model.parameters() if p.requires_grad]
        self.start = [p.detach().clone() for p in self.own]
        self.moves = moving_rows(self.model, self.own)

    def hessian(self, v: Tensor) -> Tensor:
        """H v; by double backward where the model detaches values that move with the parameters: differences count them."""
        if self.problem.detaches:
            with InDouble():
                loss = self.problem.evaluate(self.model, self.batch)
            gradient = torch.autograd.grad(loss, self.own, create_graph=True, materialize_grads=True)
            return self._flat(torch.cat([piece.reshape(-1) for piece in gradient]), v)
        return self._slope(lambda: self._flat(self.problem.evaluate(self.model, self.batch)), v)

    def ggn(self, v: Tensor) -> Tensor:
        """J' (H_out (J v)), after a check that the cut loss is the model's own."""
        assert self.problem.outputs is not None
        assert self.problem.criterion is not None
        with torch.no_grad():
            moved = self._slope(lambda: self.problem.outputs(self.model, self.batch), v)
        with InDouble():
            outputs = self.problem.outputs(self.model, self.batch)
            loss = self.problem.criterion(outputs, self.batch)
            torch.testing.assert_close(loss, self.problem.evaluate(self.model, self.batch))
            slope = torch.autograd.grad(loss, outputs, create_graph=True)[0]
            curved = torch.autograd.grad(slope, outputs, moved, retain_graph=True)[0]
            return self._flat(outputs, curved)

    def _flat(self, value: Tensor, weights: Tensor | None = None) -> Tensor:
        pieces = torch.autograd.grad(value, self.own, weights, materialize_grads=True)
        return torch.cat([piece.reshape(-1) for piece in pieces])

    def _slope(self, function: Callable[[], Tensor], v: Tensor) -> Tensor:
        """Derivative of a function of the parameters along v: the two steps that agree best, without sight of a product."""
        length = math.sqrt(sum(float(value.square().sum()) for value in self.start)) / float(v.norm())
        found = [self._quotient(function, v, step * length) for step in STEPS]
        gaps = [float((a - b).norm()) for a, b in pairwise(found)]
        return found[gaps.index(min(gaps)) + 1]

    def _quotient(self, function: Callable[[], Tensor], v: Tensor, step: float) -> Tensor:
        """Fourth-order central difference."""
        values = {}
        for t in (-2, -1, 1, 2):
            self._move(v, t * step)
            with InDouble():
                values[t] = function()
        self._move(v, 0.0)
        return (8 * (values[1] - values[-1]) - (values[2] - values[-2])) / (12 * step)

    def _move(self, v: Tensor, t: float) -> None:
        with torch.no_grad():
            pieces = (self.moves * v).split([p.numel() for p in self.own])
            for p, value, piece in zip(self.own, self.start, pieces, strict=True):
                p.copy_(value + t * piece.view_as(value))


def moving_rows(model: nn.Module, own: list[Tensor]) -> Tensor:
    """0 at the rows of padding in embeddings, 1 elsewhere: PyTorch holds these rows constant, and so does a step along v.

    An embedding that is also the output layer is left as it is: its batches have no padding.
    """
    rows = {id(p): torch.ones_like(p) for p in own}
    shared = [id(p) for module in model.modules() for p in module._parameters.values()]
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if (
            isinstance(module, nn.Embedding)
            and module.padding_idx is not None
            and shared.count(id(weight)) == 1
            and id(weight) in rows
        ):
            rows[id(weight)][module.padding_idx] = 0
    return torch.cat([rows[id(p)].reshape(-1) for p in own])


def to_double(batch: Any) -> Any:
    """A batch with its floating-point tensors in float64."""
    if isinstance(batch, dict):
        return {name: to_double(value) for name, value in batch.items()}
    if isinstance(batch, tuple):
        return tuple(to_double(value) for value in batch)
    return batch.double() if isinstance(batch, Tensor) and batch.is_floating_point() else batch


def measure(name: str) -> Outcome:
    """Send one architecture through everything."""
    problem = build(name)
    begin = time.process_time()
    H = cs.hessian(problem.model, problem.loss, [problem.batch], dtype=torch.float64)
    v = torch.randn(H.shape[0], dtype=torch.float64)
    product = H @ v
    solution = cs.eigsh(H, k=2, tol=0.05, max_products=40)
    estimate = cs.trace(H, max_products=8)
    G = gauss_newton(problem)
    ggn_product = None if G is None else G @ v
    seconds = time.process_time() - begin
    oracle = Differences(problem)
    return Outcome(
        H.shape[0],
        str(H.strategy_report["strategy"]),
        seconds,
        str(H.strategy_report["derivatives"]),
        distance(product, oracle.hessian(v)),
        math.nan if ggn_product is None else distance(ggn_product, oracle.ggn(v)),
        tuple(float(value) for value in solution.eigenvalues),
        float(estimate.value),
    )


def gauss_newton(problem: Problem) -> cs.GeneralizedGaussNewton | None:
    """The GGN; None where the loss has no cut, and then it has to be refused."""
    try:
        G = cs.ggn(problem.model, problem.loss, [problem.batch], dtype=torch.float64)
    except InvalidArgument:
        if problem.outputs is not None:
            raise
        return None
    assert problem.outputs is not None
    return G


def distance(found: Tensor, expected: Tensor) -> float:
    """Relative distance."""
    return float((found - expected).norm() / expected.norm())


def main() -> None:
    """Measure and merge the rows into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], help="architectures whose names contain one of these")
    parser.add_argument("--print", action="store_true", help="print the rows and leave the page as it is")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for name in ARCHITECTURES:
        if options.only and not any(part in name for part in options.only):
            continue
        try:
            found = measure(name)
        except Exception as error:  # noqa: BLE001 -- the others are still measured
            print(f"{name}: {type(error).__name__}: {error}", flush=True)
            continue
        row = line(name, found)
        print(row, found.derivatives, found.eigenvalues, found.trace, flush=True)
        if not options.print:
            merge(name, row)


def line(name: str, found: Outcome) -> str:
    """One row of the table."""
    verified = re.search(r" to (\d\S*?)(?=[;,\s]|$)", found.derivatives)[1]
    ggn = "-" if math.isnan(found.ggn) else f"{found.ggn:.0e}"
    cells = (name, f"{found.parameters:,}", found.strategy, f"{found.seconds:.1f}", verified, f"{found.hessian:.0e}", ggn)
    return f"| {' | '.join(cells)} |"


def merge(name: str, row: str) -> None:
    """Put a row into the page, in the place of an older one of the same name."""
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in written()} | {name: row}
    lines = [rows[name] for name in ARCHITECTURES if name in rows]
    PAGE.write_text(HEAD.format(version=torch.__version__.split("+")[0], count=len(lines)) + "\n".join(lines) + "\n")


def written() -> list[str]:
    """The rows of the page."""
    lines = PAGE.read_text().splitlines() if PAGE.exists() else []
    return [line for line in lines if line.startswith("| ") and not line.startswith(("| architecture |", "| --- |"))]


if __name__ == "__main__":
    main()
