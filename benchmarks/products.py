"""Cost of a Hessian and a GGN product in gradients: curvscope, curvlinops, hessian-eigenthings, PyHessian, double backward.

    python benchmarks/products.py                    # everything, about 15 minutes on 2 cores
    python benchmarks/products.py --only GPT LSTM --threads 1

Writes products.json, products.md and products.png to benchmarks/results. Every workload runs in a process of its own, every
method of a workload in that same process on the same model, data and vectors; peak memory comes from one more process each.

`auto` chooses by how much is to come: its first block is what it does untold, its rounds and its set-up are of what it comes to
in long work of ANNOUNCED products, as a solve tells it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import curvscope as cs
from curvscope.system import long_work
from kinks import Kinks, kinks_of
from machine import environment, in_own_process
from workloads import WORKLOADS, load

RESULTS = Path(__file__).parent / "results"
Product = Callable[[Tensor], Tensor]
PEERS = ("curvlinops", "hessian-eigenthings", "PyHessian")
ANNOUNCED = 3000
"""Products that `auto` is told are to come: about those of a thousand eigenpairs."""


def gradient(model: nn.Module, criterion: nn.Module, batches: list[Any]) -> Callable[[], None]:
    """One gradient of all batches: the unit."""
    parameters = list(model.parameters())

    def run() -> None:
        for x, y in batches:
            torch.autograd.grad(criterion(model(x), y), parameters)

    return run


def ours(matrix: str, strategy: str) -> Callable[..., Product]:
    """Our operator with one strategy."""

    def make(model: nn.Module, criterion: nn.Module, batches: list[Any]) -> Product:
        operator = getattr(cs, matrix)(model, criterion, batches, strategy=strategy)
        product: Any = lambda block: operator @ block  # noqa: E731
        product.operator = operator
        return product

    return make


def curvlinops(matrix: str, width: int) -> Callable[..., Product]:
    """Its operator, in groups of ``width`` columns."""

    def make(model: nn.Module, criterion: nn.Module, batches: list[Any]) -> Product:
        import curvlinops as library

        kind = {"hessian": library.HessianLinearOperator, "ggn": library.GGNLinearOperator}[matrix]
        operator = kind(model, criterion, list(model.parameters()), batches, check_deterministic=False)
        return lambda block: torch.cat([operator @ group for group in block.split(width, dim=1)], dim=1)

    return make


def eigenthings(matrix: str) -> Callable[..., Product]:
    """hessian-eigenthings, one vector after another."""

    def make(model: nn.Module, criterion: nn.Module, batches: list[Any]) -> Product:
        import hessian_eigenthings as library

        if matrix == "hessian":
            operator = library.HessianOperator(model, batches, library.supervised_loss(criterion))
        else:
            loss = library.supervised_loss_of_output(criterion)
            operator = library.GGNOperator(model, batches, library.supervised_forward, loss)
        return lambda block: torch.stack([operator @ column for column in block.T.contiguous()], dim=1)

    return make


def pyhessian(model: nn.Module, criterion: nn.Module, batches: list[Any]) -> Product:
    """Its product over a data loader, as its eigenvalue routines use it; the loader's mean of equal batches."""
    from pyhessian import hessian

    operator = hessian(model, criterion, dataloader=batches, cuda=False)
    shapes = [p.shape for p in model.parameters()]

    def product(block: Tensor) -> Tensor:
        columns = []
        for column in block.T.contiguous():
            pieces = column.split([s.numel() for s in shapes])
            _, found = operator.dataloader_hv_product([p.view(s) for p, s in zip(pieces, shapes, strict=True)])
            columns.append(torch.cat([piece.reshape(-1).detach() for piece in found]))
        return torch.stack(columns, dim=1)

    return product


def plain(model: nn.Module, criterion: nn.Module, batches: list[Any]) -> Product:
    """Gradient with its graph, once a batch and block; one more backward pass a vector."""
    parameters = list(model.parameters())

    def product(block: Tensor) -> Tensor:
        total = torch.zeros_like(block)
        for x, y in batches:
            slopes = torch.autograd.grad(criterion(model(x), y), parameters, create_graph=True)
            flat = torch.cat([slope.reshape(-1) for slope in slopes])
            for index, column in enumerate(block.T):
                pieces = torch.autograd.grad(flat, parameters, column, retain_graph=True, materialize_grads=True)
                total[:, index] += torch.cat([piece.reshape(-1) for piece in pieces]) / len(batches)
        return total

    return product


def methods(name: str, matrix: str) -> Iterator[tuple[str, Callable[..., Product]]]:
    """Every contender by its label."""
    for strategy in ("auto", "split", "split_vmap:8", "split_vmap:16", "double_backward"):
        yield f"curvscope {strategy}", ours(matrix, strategy)
    for width in WORKLOADS[name][2]:
        yield f"curvlinops, K = {width}", curvlinops(matrix, width)
    yield "hessian-eigenthings", eigenthings(matrix)
    if matrix == "hessian":
        yield "PyHessian", pyhessian
        yield "double backward, plain", plain


def warm_up() -> None:
    """Import what PyTorch imports at a process's first forward-mode derivative (about a second), outside of any set-up time."""
    data = [(torch.eye(2), torch.tensor([0, 1]))]
    for matrix in (cs.hessian, cs.ggn):
        for strategy in ("split", "split_vmap", "double_backward"):
            matrix(nn.Linear(2, 2), nn.CrossEntropyLoss(), data, strategy=strategy) @ torch.ones(6, 2)


def quietly(function: Callable[[], Any]) -> Any:
    """Peers warn about their own use of PyTorch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function()


def timed(function: Callable[[], Any]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def measure(name: str, repeats: int, budget: float, skip: tuple[str, ...]) -> dict[str, Any]:  # noqa: C901 -- one round after the other, in order
    """All methods of one workload, interleaved: one round of every method after the other, medians of the rounds."""
    model, criterion, batches = load(name)
    size = sum(p.numel() for p in model.parameters())
    block = torch.randn(size, WORKLOADS[name][1], generator=torch.Generator().manual_seed(1))
    unit = gradient(model, criterion, batches)
    unit()
    record: dict[str, Any] = {"parameters": size, "columns": block.shape[1], "announced": ANNOUNCED, "hessian": {}, "ggn": {}}
    exact, kinks = exact_columns(name, block, kinks_of(model, batches))
    record |= {"units": kinks.units, "units_across_kinks": kinks.changed}
    warm_up()
    units: list[float] = []
    prepared: dict[str, list[float]] = {}
    for matrix in ("hessian", "ggn"):
        running: dict[str, tuple[Product, list[float]]] = {}
        for label, make in methods(name, matrix):
            if label in skip:
                continue
            try:
                entry, product = first_product(make, (model, criterion, batches), block, exact[matrix])
            except Exception as error:  # noqa: BLE001 - a peer that fails is a result
                record[matrix][label] = {"failed": f"{type(error).__name__}: {str(error)[:200]}"}
                continue
            record[matrix][label] = entry
            running[label] = (product, [])
            if label == "curvscope auto":
                waited = product.operator.strategy_report["provisional"]
                with long_work(ANNOUNCED):  # it chooses now: error and rounds are of what it comes to
                    chosen, product = first_product(lambda *_, product=product: product, (), block, exact[matrix])
                prepared[matrix] = [chosen["first_seconds"]] if waited else [entry["first_seconds"], chosen["first_seconds"]]
                entry |= {**chosen, "first_seconds": entry["first_seconds"]}
        started = time.perf_counter()
        for _ in range(repeats):
            units += [timed(unit) for _ in range(3)]
            for product, seconds in running.values():
                seconds.append(quietly(lambda product=product: timed(lambda: product(block))) / block.shape[1])
            if time.perf_counter() - started > budget:
                break
        for label, (product, seconds) in running.items():
            record[matrix][label]["seconds"] = statistics.median(seconds)
            record[matrix][label]["rounds"] = len(seconds)
            firsts = prepared[matrix] if label == "curvscope auto" else [record[matrix][label]["first_seconds"]]
            later = record[matrix][label]["seconds"] * block.shape[1]
            record[matrix][label]["setup_seconds"] = sum(firsts) - len(firsts) * later
            if hasattr(product, "operator"):
                report = product.operator.strategy_report
                record[matrix][label]["chosen"] = f"{report['strategy']}, {report['width']}"
    record["gradient_seconds"] = statistics.median(units)
    for matrix in ("hessian", "ggn"):
        for entry in record[matrix].values():
            for key in ("seconds", "first_seconds", "setup_seconds"):
                if key in entry:
                    entry[key.replace("seconds", "gradients")] = entry[key] / record["gradient_seconds"]
    return record


def first_product(make: Callable[..., Product], problem: tuple[Any, ...], block: Tensor, exact: tuple[Tensor, ...]) -> Any:
    """The contender, warm, with its error; its first block beyond later ones is its set-up."""
    start = time.perf_counter()
    product = quietly(lambda: make(*problem))
    found = quietly(lambda: product(block))
    seconds = time.perf_counter() - start
    errors = [float((found[:, :1].double() - column).norm() / column.norm()) for column in exact]
    return {"first_seconds": seconds, "error": errors[0], "plain_error": errors[1]}, product


def exact_columns(name: str, block: Tensor, patterns: list[Tensor]) -> tuple[dict[str, tuple[Tensor, Tensor]], Kinks]:
    """First columns of H X and G X in float64 by double backward: on the kink pattern of float32, and on its own."""
    model, criterion, batches = load(name, torch.float64)
    column = block[:, :1].double()
    exact: dict[str, list[Tensor]] = {"hessian": [], "ggn": []}
    ggn = cs.ggn(model, criterion, batches, strategy="double_backward")
    ggn.derivatives()  # evaluates a few samples, for which no pattern was recorded
    kinks = Kinks(patterns)
    for context in (kinks, nullcontext()):
        with context:
            exact["hessian"].append(plain(model, criterion, batches)(column))
            exact["ggn"].append(ggn @ column)
    return {matrix: tuple(columns) for matrix, columns in exact.items()}, kinks


def peak_memory(name: str, matrix: str, label: str) -> float:
    """MiB that a process takes at most for a block, beyond those for one gradient."""
    model, criterion, batches = load(name)
    gradient(model, criterion, batches)()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    product = quietly(lambda: dict(methods(name, matrix))[label](model, criterion, batches))
    size = sum(p.numel() for p in model.parameters())
    with long_work(ANNOUNCED):  # what `auto` comes to, not what it begins with
        quietly(lambda: product(torch.randn(size, WORKLOADS[name][1])))
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=5, help="rounds; medians of them")
    parser.add_argument("--budget", type=float, default=40.0, help="seconds of rounds for each matrix of a workload")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--memory-only", action="store_true", help="add peak memory to the times that are there")
    parser.add_argument("--skip", nargs="*", default=[], help="labels of methods to leave out")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--memory", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure or options.memory:
        # Attention is given its plain kernel throughout: the peers cannot differentiate the fused one forward.
        torch.backends.cuda.enable_flash_sdp(False)
    if options.measure:
        print(json.dumps(measure(options.measure, options.repeats, options.budget, tuple(options.skip))))
        return
    if options.memory:
        print(json.dumps(peak_memory(*options.memory)))
        return
    from tables import write

    path = options.out / "products.json"
    record = json.loads(path.read_text()) if path.exists() else {"workloads": {}}
    if not options.memory_only:
        record["environment"] = environment(("curvlinops-for-pytorch", "hessian-eigenthings", "PyHessian"), options.threads)
    for name in options.only:
        passed_on = ("--repeats", str(options.repeats), "--budget", str(options.budget), "--skip", *options.skip)
        if options.memory_only:
            found = record["workloads"][name]
        else:
            found = in_own_process(__file__, "--measure", name, *passed_on, threads=options.threads)
        if not options.no_memory and "failed" not in found:
            for matrix in ("hessian", "ggn"):
                for label, entry in found[matrix].items():
                    if "failed" not in entry and label.startswith(("curvscope auto", *PEERS, "double")):
                        entry["peak_mib"] = in_own_process(__file__, "--memory", name, matrix, label, threads=options.threads)
        record["workloads"][name] = found
        write(record, options.out)
        print(f"{name}: done", flush=True)
    print((options.out / "products.md").read_text())


if __name__ == "__main__":
    main()
