"""Second and third derivatives of PyTorch's operations: right, wrong or refused, by this library and by PyTorch's own routes.

    python benchmarks/second_derivatives.py                          # writes docs/second-derivatives.md
    python benchmarks/second_derivatives.py --only scatter --print   # some rows, on the screen

Every row is judged by curvscope.testing.check_second_derivatives in float64, against central differences.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterable
from pathlib import Path

import torch

from curvscope.errors import CurvscopeError
from curvscope.testing import SecondDerivatives, check_second_derivatives
from second_derivative_rows import ROWS, SAMPLES, Probe, Row, forces, squares

PAGE = Path(__file__).parents[1] / "docs" / "second-derivatives.md"
COLUMNS = ("curvscope", "double backward", "forward over reverse", "vmap")
HEAD = """# Second derivatives in PyTorch

Which operations have right second derivatives, by which route? To ask for your own network:

```python
from curvscope.testing import check_second_derivatives

print(check_second_derivatives(model, criterion, loader[0]))
```

The tables were made with PyTorch {version}, in float64 on a CPU, by `python benchmarks/second_derivatives.py`: {count}
operations, each behind a small linear layer. A product with the Hessian is compared with central differences of the gradient,
and the gradient with differences of the loss. *Third* is the Hessian of a loss that contains a gradient, as forces and
gradient penalties do. A number is the relative error of a wrong product; *no* means that the route raises an error, and a
dash that it was not measured. Routes:

- **curvscope**: `cs.hessian`, by whichever strategy it chooses
- **double backward**: `torch.autograd.grad` twice, as PyHessian and others do
- **forward over reverse**: `torch.func.jvp` of `torch.func.grad`
- **vmap**: the same for several vectors at once

Right by: {summary}.

Third derivatives by forward over reverse and by vmap are left out: such losses begin with `Tensor.requires_grad_`, which is an
error under `torch.func`.
"""


def judge(row: Row, loss: object) -> SecondDerivatives | str:
    """The verdict for one row, or why there is none."""
    torch.manual_seed(0)
    batch = torch.randn(SAMPLES, 3, dtype=torch.float64)
    try:
        return check_second_derivatives(Probe(row).double(), loss, batch)
    except (CurvscopeError, RuntimeError, NotImplementedError, TypeError, ValueError, AttributeError, IndexError) as error:
        return f"{type(error).__name__}: {error}"


def cell(found: SecondDerivatives | str, route: str) -> str:
    """right, a number, or no."""
    if isinstance(found, str):
        return "no"
    verdict = found.routes[route]
    return {"right": "right", "refused": "no"}.get(verdict.outcome, f"**{verdict.error:.0e}**")


def line(row: Row) -> list[str]:
    """The cells of one row."""
    second, third = judge(row, squares), judge(row, forces)
    return [f"`{row.name}`", *(cell(second, route) for route in COLUMNS), cell(third, COLUMNS[0]), cell(third, COLUMNS[1])]


def page(lines: Iterable[tuple[str, list[str]]]) -> str:
    """The page from groups and cells."""
    lines = list(lines)
    labels = [*COLUMNS, "third: curvscope", "third: double backward"]
    counts = [sum(cells[place] == "right" for _, cells in lines) for place in range(1, len(labels) + 1)]
    summary = ", ".join(f"{label} {count}" for label, count in zip(labels, counts, strict=True))
    text = [HEAD.format(version=torch.__version__.split("+")[0], count=len(lines), summary=summary)]
    for group in dict.fromkeys(group for group, _ in lines):
        text.append(f"\n## {group}\n\n| operation | {' | '.join(labels)} |\n|{' --- |' * (len(labels) + 1)}\n")
        text += [f"| {' | '.join(cells)} |\n" for own, cells in lines if own == group]
    return "".join(text)


def main() -> None:
    """Judge the rows and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], help="rows whose names contain one of these")
    parser.add_argument("--print", action="store_true", help="print the rows instead of writing the page")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = [row for row in ROWS if not options.only or any(part in row.name for part in options.only)]
    lines = []
    for row in rows:
        lines.append((row.group, line(row)))
        print(" | ".join(lines[-1][1]), flush=True)
    if not (options.print or options.only):
        PAGE.write_text(page(lines))


if __name__ == "__main__":
    main()
