"""ResNet-18 at 224 x 224 on one GPU: seconds a product, and every thin stage at full size; the paper's took 9,586 minutes.

``python benchmarks/gpu.py --data DIR`` (ImageNet, or the sample of 1,000 images) or ``--synthetic`` (random images: products
cost the same). Figures are measured; the time of all products is extrapolated from --timed of them, at least 100, and
labelled so.
``--precision`` names products in other arithmetic to time and to compare with float32: TF32, and bfloat16 (parameters and
activations; float32 sums), each with its error and the noise that a certificate would hold against it. The passes of a
re-orthogonalisation are timed with the basis on the GPU and on the host. ``--device cpu --tiny`` runs all of it in a minute,
to see that it works.
"""

from __future__ import annotations

import argparse
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import curvscope as cs
from curvscope.certificates import product_noise
from curvscope.errors import InvalidArgument
from curvscope.operators.base import Operator
from curvscope.operators.products import seconds_of
from curvscope.problems import Pair
from curvscope.runs import PRECISIONS, arithmetic_of
from curvscope.studies.sketched_overlap import FEWEST, stage_times
from curvscope.system import long_work
from curvscope.tall import InMemory, OnHost, TallMatrix, gram, subtract

RESULTS = Path(__file__).parent / "results"
PAPER_MINUTES = {"products": 8760, "core": 610, "QR": 90, "merge": 38, "layout": 88, "total": 9586}
GOAL_MINUTES = 60


def images(options: argparse.Namespace, device: torch.device) -> list[Pair]:
    """The curvature samples, on the device where they fit (3 GB for 5,000)."""
    if options.synthetic:
        generator, side = torch.Generator().manual_seed(0), 32 if options.tiny else 224
        labels = torch.arange(options.samples) % 1000
        data = [(torch.randn(len(y), 3, side, side, generator=generator), y) for y in labels.split(options.batch)]
    else:
        batches = cs.problems.get("imagenet_resnet18", data=options.data).curvature_batches("test")
        data = [
            (x[start : start + options.batch], y[start : start + options.batch])
            for x, y in batches
            for start in range(0, len(y), options.batch)
        ]
        data = data[: -(-options.samples // options.batch)]
    return [(x.to(device), y.to(device)) for x, y in data]


def compared(exact: Tensor, model: torch.nn.Module, data: list[Pair], vectors: Tensor, precision: str) -> dict[str, Any]:
    """Relative error of products in another arithmetic, their noise, and their time."""
    try:
        H = cs.hessian(model, torch.nn.CrossEntropyLoss(), data, **arithmetic_of(precision))
    except InvalidArgument as error:
        return {"not here": str(error)}
    block = vectors.to(H.dtype)
    with long_work():
        _ = H @ block
    seconds = seconds_of(lambda: H @ block, vectors.device) / vectors.shape[1]
    error = float(((H @ block).double() - exact.double()).norm() / exact.double().norm())
    noise = product_noise(H.__matmul__, InMemory(block / block.norm(dim=0)), torch.randn_like(block))
    return {
        "seconds a product": seconds,
        "relative error": error,
        "nonlinearity of a product with a unit vector": noise.floor,
        "columns": vectors.shape[1],
    }


def passes(H: Operator, columns: int, width: int) -> dict[str, float]:
    """Seconds of a Gram-Schmidt pass against so many columns, on the operator's device and on the host."""
    found = {}
    block = torch.randn(width, H.shape[0], device=H.device).T
    for name, kind in (("on the device", InMemory), ("on the host", OnHost)):
        basis = kind.empty(H.shape[0], columns, H.dtype, H.device)
        for start in range(0, columns, 32):
            stop = min(start + 32, columns)
            basis.write(start, torch.randn(stop - start, H.shape[0], device=H.device).T / H.shape[0] ** 0.5)

        def one(basis: TallMatrix = basis) -> None:
            subtract(block, basis, gram(basis, InMemory(block)))

        one()
        found[name] = min(seconds_of(one, H.device) for _ in range(3))
        del basis
    return found


def main(options: argparse.Namespace) -> dict[str, Any]:
    """All figures as plain numbers."""
    device = torch.device(options.device)
    problem = cs.problems.get("imagenet_resnet18")
    model, data = problem.model().to(device), images(options, device)
    H = cs.hessian(model, problem.criterion, data, memory=options.memory)
    outer, inner = (4, 8) if options.tiny else (1500, 3000)
    times = stage_times(
        H,
        cs.masks.by_magnitude(model),
        num_outer=outer,
        num_inner=inner,
        timed_products=2 if options.tiny else options.timed,
        block_size=options.block,
        progress=True,
    )
    generator = torch.Generator().manual_seed(1)
    vectors = torch.randn(H.shape[0], 2, generator=generator).to(device)
    exact = H @ vectors
    precisions = {name: compared(exact, model, data, vectors, name) for name in options.precision}
    minutes = {name: seconds / 60 for name, seconds in times["seconds"].items()}
    return {
        "hardware": {
            "device": torch.cuda.get_device_name(device)
            if device.type == "cuda"
            else platform.processor() or platform.machine(),
            "versions": {name: version(name) for name in ("curvscope", "torch", "torchvision")},
        },
        "D": H.shape[0],
        "N": sum(len(y) for _, y in data),
        "tiny": options.tiny,
        **times,
        "quotable": times["timed_products"] >= min(FEWEST, inner) and not options.tiny,
        "minutes": minutes | {"total": times["total"] / 60},
        "paper minutes": PAPER_MINUTES,
        "goal minutes": GOAL_MINUTES,
        "precisions": precisions,
        "Gram-Schmidt pass, seconds": passes(H, outer, options.block),
        "peak GPU bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
    }


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data")
    parser.add_argument("--synthetic", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=150)
    parser.add_argument("--block", type=int, default=8)
    parser.add_argument("--timed", type=int, default=FEWEST)
    parser.add_argument("--memory", type=int, help="bytes for products; default: half of what is free")
    parser.add_argument(
        "--precision", nargs="*", default=["tf32", "bfloat16"], choices=[name for name in PRECISIONS if name != "float32"]
    )
    parser.add_argument("--tiny", action="store_true", help="32 x 32 images, 8 products: to try it out")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    if options.data is None and not options.synthetic:
        parser.error("pass --data DIR or --synthetic")
    return options


if __name__ == "__main__":
    chosen = parsed()
    record = main(chosen)
    print(json.dumps(record, indent=1))
    if not chosen.tiny:
        chosen.out.mkdir(parents=True, exist_ok=True)
        (chosen.out / "gpu.json").write_text(json.dumps(record, indent=1) + "\n")
