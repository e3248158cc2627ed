"""Language models on one GPU, in under 4 minutes: attention on tiles, logits in chunks, compiled programs.

    python benchmarks/language.py                      # on a GPU; without one it says so and measures nothing
    python benchmarks/language.py --device cpu --tiny  # a try of all of it, no figures

Prints one JSON object for Hessian and GGN of a causal transformer with a large vocabulary: seconds of a product, peak memory,
and the difference from whole logits and from programs that are not compiled. Random tokens, fixed seeds.
Lengths beside PyTorch's plain kernel: ``python benchmarks/attention.py --device cuda --time 1024 4096 --memory 4096 16384``.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import curvscope as cs
from curvscope.operators.products import seconds_of
from curvscope.operators.rules.token_losses import _pending
from workloads import GPT

ROUNDS = 3


def measured(matrix: str, model: nn.Module, data: list[tuple[Tensor, Tensor]], **options: Any) -> tuple[dict[str, Any], Tensor]:
    """Seconds of a product after the first one, peak MiB of both, and the product."""
    device = data[0][0].device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    operator = getattr(cs, matrix)(model, nn.CrossEntropyLoss(), data, strategy="split", **options)
    v = torch.randn(operator.shape[0], 1, generator=torch.Generator().manual_seed(1)).to(device)
    first = seconds_of(partial(operator.__matmul__, v), device)
    seconds = min(seconds_of(partial(operator.__matmul__, v), device) for _ in range(ROUNDS))
    peak = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None
    report = operator.strategy_report
    found = {"first_seconds": first, "seconds": seconds, "peak_mib": peak, "compiled": report["compiled"]}
    return found | ({"not_compiled": report["not_compiled"]} if options.get("compile") else {}), operator @ v


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cpu", "cuda"])
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("no GPU here: nothing measured")
        return
    vocabulary, width, length = (5000, 16, 40) if options.tiny else (50257, 512, 2048)
    if options.tiny:
        _pending.MIN_CHUNKED_LOGITS = 1
    torch.manual_seed(0)
    model = GPT(vocabulary, width, length, heads=8).to(options.device)
    tokens = torch.randint(vocabulary, (2, 1, length), device=options.device)
    data = [(tokens[0], tokens[1].flatten())]
    least, record = _pending.MIN_CLASSES, {}
    for matrix in ("hessian", "ggn"):
        record[matrix], product = measured(matrix, model, data, compile=False)
        for name, classes, compiles in (("whole_logits", 1 << 40, False), ("compiled", least, True)):
            _pending.MIN_CLASSES = classes
            found, other = measured(matrix, model, data, compile=compiles)
            record[f"{matrix}_{name}"] = found | {"difference": float((other - product).norm() / product.norm())}
        _pending.MIN_CLASSES = least
    print(json.dumps({"device": options.device, "torch": torch.__version__, **record}, indent=1))


if __name__ == "__main__":
    main()
