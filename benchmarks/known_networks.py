"""Products for the ten leading Hessian eigenpairs of small networks, beside ARPACK at the same tolerance.

``python benchmarks/known_networks.py`` prints a Markdown table. Each network is measured as initialised and after 150 steps of
gradient descent; ARPACK's products are the median of three start vectors. Those that measure residuals (10) and those that show
that no pair was missed are counted apart: ARPACK does neither. SciPy is needed; run with OMP_NUM_THREADS=1 MKL_NUM_THREADS=1.
"""

import argparse
import statistics
import warnings
from collections.abc import Iterator

import numpy as np
import scipy.sparse.linalg as scipy_linalg
import torch
from torch import Tensor, nn
from torch.nn import functional

import curvscope as cs

SAMPLES, CLASSES, SEEDS = 512, 5, (0, 1, 2)


class Recurrent(nn.Module):
    """An LSTM with a linear layer on its last state."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(8, 24, batch_first=True), nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.lstm(x)[0][:, -1])


def networks() -> Iterator[tuple[str, nn.Module, Tensor, Tensor]]:
    """Name, model, inputs and classes."""
    x = torch.randn(SAMPLES, 20)
    deep = nn.Sequential(nn.Linear(20, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, CLASSES))
    yield "tanh MLP", deep, x, x[:, :CLASSES].argmax(1)
    yield "ReLU MLP", nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, CLASSES)), x, x[:, :CLASSES].argmax(1)
    x = torch.randn(SAMPLES, 12, 8)
    yield "LSTM", Recurrent(), x, x.mean(1)[:, :CLASSES].argmax(1)
    x = torch.randn(SAMPLES, 1, 12, 12)
    features = [nn.Conv2d(1, 8, 3), nn.Tanh(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.Tanh(), nn.Flatten()]
    yield "convolutions", nn.Sequential(*features, nn.Linear(72, CLASSES)), x, x.mean((1, 2))[:, :CLASSES].argmax(1)
    x = torch.randn(SAMPLES, 10, 16)
    encoder = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    yield "encoder", nn.Sequential(encoder, nn.Flatten(), nn.Linear(160, CLASSES)), x, x.mean(1)[:, :CLASSES].argmax(1)


def train(model: nn.Module, x: Tensor, y: Tensor, steps: int = 150) -> None:
    """Gradient descent with momentum on all samples."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def arpack(operator: cs.Operator, k: int, tol: float) -> tuple[float, float]:
    """Median products and worst relative residual of SciPy's eigsh."""
    count, inner = 0, operator.to_scipy()

    def multiply(x: np.ndarray) -> np.ndarray:
        """One product, counted."""
        nonlocal count
        count += 1
        return inner.matvec(x.astype(np.float32))

    counted, counts, worst = scipy_linalg.LinearOperator(operator.shape, matvec=multiply, dtype=np.float32), [], 0.0
    for seed in SEEDS:
        count, start = 0, np.random.default_rng(seed).standard_normal(operator.shape[0]).astype(np.float32)
        values, vectors = scipy_linalg.eigsh(counted, k=k, tol=tol, v0=start)
        counts.append(count)
        products = np.stack([inner.matvec(vector) for vector in vectors.T], axis=1)
        worst = max(worst, float((np.linalg.norm(products - vectors * values, axis=0) / np.abs(values)).max()))
    return statistics.median(counts), worst


def main() -> None:
    """Solve and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10, metavar="K")
    parser.add_argument("--tol", type=float, default=1e-3)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print("| network | D | products | ARPACK | ratio | worst residual, ARPACK's | for completeness | for residuals |")
    print(f"|{' --- |' * 8}")
    for name, model, x, y in networks():
        for state in ("initialised", "trained"):
            if state == "trained":
                train(model, x, y)
            operator = cs.hessian(model, functional.cross_entropy, (x, y))
            found = cs.eigsh(operator, k=arguments.pairs, tol=arguments.tol, method="krylov", progress=False)
            theirs, worst = arpack(operator, arguments.pairs, arguments.tol)
            cost = found.cost
            apart = f"{cost.completeness_products} | {cost.certificate_products - cost.completeness_products}"
            residuals = f"{float(found.relative_residuals.max()):.0e}, {worst:.0e}"
            products = f"{cost.products} | {theirs:g} | {cost.products / theirs:.2f}"
            print(f"| {name}, {state} | {operator.shape[0]} | {products} | {residuals} | {apart} |")


if __name__ == "__main__":
    main()
