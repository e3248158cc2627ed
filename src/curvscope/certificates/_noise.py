"""How wrong products are: rounding and nondeterminism, measured where linearity fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from curvscope.tall import TallMatrix, small_dtype


@dataclass(frozen=True)
class ProductNoise:
    """Norm of the error of a product with a unit vector v: ``floor + relative * ||A v||``.

    >>> float(ProductNoise(floor=1e-7, relative=1e-6).at(torch.tensor(10.0, dtype=torch.float64)))
    1.01e-05
    """

    floor: float
    relative: float

    def at(self, magnitude: Tensor) -> Tensor:
        """For eigenvectors with eigenvalues of this magnitude."""
        return self.floor + self.relative * magnitude

    def or_more(self, other: ProductNoise) -> ProductNoise:
        """The larger of both, part by part."""
        return ProductNoise(max(self.floor, other.floor), max(self.relative, other.relative))


def product_noise(multiply: Callable[[Tensor], Tensor], vectors: TallMatrix, random: Tensor) -> ProductNoise:
    """The noise of products, from A(v + w) - A v - A w, which is nothing but error, of three products.

    Measured on the first two columns of V, where products are largest (the relative part), and on its last two and on a random
    pair (the floor). Not divided by three: it stands for the worst, not for the mean.

    Args:
        multiply: (D, b) to (D, b).
        vectors: V, (D, k), by descending magnitude of eigenvalues.
        random: (D, 2) Gaussian.

    Cost: 9 products in one block, 6 for a single column, which is paired with a random one.

    >>> from curvscope.tall import InMemory
    >>> product_noise(lambda x: 2 * x, InMemory(torch.eye(8)), torch.eye(8)[:, :2])
    ProductNoise(floor=0.0, relative=0.0)
    """
    left, right = _pairs(vectors, random)
    products = multiply(torch.cat([left, right, left + right], dim=1))
    products = products.to(small_dtype(products.dtype))
    a, b, both = products.split(left.shape[1], dim=1)
    return _noise((both - a - b).norm(dim=0), a.norm(dim=0))


def product_error(
    multiply: Callable[[Tensor], Tensor], exactly: Callable[[Tensor], Tensor], vectors: TallMatrix, random: Tensor
) -> ProductNoise:
    """The error of products against exact ones, measured where :func:`product_noise` measures.

    What that cannot see, as it is linear: parameters and activations that were rounded.

    Args:
        multiply: (D, b) to (D, b).
        exactly: the same, exact.
        vectors: V, (D, k), by descending magnitude of eigenvalues.
        random: (D, 2) Gaussian.

    Cost: 6 products of both kinds in one block, 4 for a single column.

    >>> from curvscope.tall import InMemory
    >>> product_error(lambda x: 1.5 * x, lambda x: 2 * x, InMemory(torch.eye(8)), torch.eye(8)[:, :2])
    ProductNoise(floor=0.5, relative=0.25)
    """
    block = torch.cat(_pairs(vectors, random), dim=1)
    exact, high = exactly(block), small_dtype(block.dtype)
    wrong = multiply(block).to(high) - exact.to(high)
    errors, sizes = (part.norm(dim=0).view(2, -1).amax(0) for part in (wrong, exact.to(high)))
    return _noise(errors, sizes)


def _pairs(vectors: TallMatrix, random: Tensor) -> tuple[Tensor, Tensor]:
    """A random pair of unit vectors, the last two columns and the first two, one of each pair on either side."""
    pairs = [random / torch.linalg.vector_norm(random, dim=0, dtype=small_dtype(random.dtype)).to(random.dtype)]
    columns = vectors.shape[1]
    if columns > 1:
        pairs += [vectors.columns(columns - 2, columns), vectors.columns(0, 2)]
    elif columns:  # rounding along an eigenvector, whose products are largest, is not seen by random ones alone
        pairs += [torch.cat([vectors.columns(0, 1), pairs[0][:, :1]], dim=1)]
    return torch.stack([pair[:, 0] for pair in pairs], 1), torch.stack([pair[:, 1] for pair in pairs], 1)


def _noise(errors: Tensor, sizes: Tensor) -> ProductNoise:
    """From the errors of the pairs, and the norms of their products."""
    size = float(sizes.max())
    return ProductNoise(float(errors[:2].max()), float(errors[-1]) / size if len(errors) > 1 and size else 0.0)
