"""A solution read as pairs of arrays: unpacked, counted, cut, and as plain data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from curvscope.certificates import Certificate, EndCertificate, TailNorm
from curvscope.errors import InvalidArgument
from curvscope.system import Displayed, Hinted, checked, frame
from curvscope.tall import InMemory, TallMatrix

if TYPE_CHECKING:
    from curvscope.solvers.results._solution import Cost, Solution


class Pairs(Displayed, Hinted):
    """What a solution is used for by hand.

    ``w, V = solution`` as of ``torch.linalg.eigh``; ``len(solution)`` is k; ``solution[i]`` is the pair
    (value, vector), ``solution[:5]`` a solution of these pairs; ``solution.pairs()`` iterates. ``values``, ``vectors`` and
    ``residuals`` are short for ``eigenvalues``, ``eigenvectors`` and ``residual_norms``.
    """

    _instead: ClassVar[Mapping[str, str]] = {
        "w": "solution.eigenvalues",
        "eigvals": "solution.eigenvalues",
        "eigenvals": "solution.eigenvalues",
        "lambdas": "solution.eigenvalues",
        "v": "solution.eigenvectors",
        "eigvecs": "solution.eigenvectors",
        "U": "solution.eigenvectors",
        "V": "solution.eigenvectors",
        "Q": "solution.eigenvectors",
        "errors": "solution.residual_norms, or solution.intervals",
        "summary": "print(solution)",
        "info": "print(solution), or solution.status",
        "nit": "solution.cost.passes",
        "nmatvec": "solution.products",
        "time": "solution.cost.seconds",
        "seconds": "solution.cost.seconds",
        "certify": "cs.certify(H, solution)",
        "missed": "solution.certificate.complete, the number of leading pairs that are proven to be the largest",
        "complete": "solution.certificate.complete",
        "trace": "cs.trace(H, deflate=solution)",
        "overlap": "cs.overlap(solution, mask)",
        "layers": "solution.by_layer()",
        "to_numpy": "np.asarray(solution.eigenvectors) and solution.eigenvalues.numpy()",
        "numpy": "np.asarray(solution.eigenvectors) and solution.eigenvalues.numpy()",
        "to_dataframe": "solution.to_pandas()",
        "to_json": "json.dumps(solution.to_dict())",
        "export": "curvscope export on a saved solution, or np.savez(path, values=solution.values, vectors=solution.vectors)",
        "names": "solution.parameters.names",
        "shape": "solution.eigenvectors.shape",
        "n": "solution.k",
        "num": "solution.k",
        "error": "solution.residual_norms, or solution.intervals",
        "stderr": "solution.residual_norms, or solution.intervals; over the data: cs.population(H, solution)",
        "numerical_intervals": "solution.intervals",
        "confidence_intervals": "solution.intervals (numerical), or cs.population(H, solution) over the choice of the data",
        "certified": "solution.certificate, None without one",
        "eigenvectors_": "solution.eigenvectors",
        "T": "solution.eigenvectors.T",
        "append": "cs.eigsh(H, k=more, v0=solution)",
        "iterations": "solution.cost.passes",
        "num_products": "solution.products",
        "method": "solution.provenance['method']",
        "seed": "solution.provenance['seed']",
    }

    eigenvalues: Tensor
    eigenvectors: TallMatrix
    residual_norms: Tensor

    @property
    def values(self) -> Tensor:
        """Short for ``eigenvalues``."""
        return self.eigenvalues

    @property
    def vectors(self) -> TallMatrix:
        """Short for ``eigenvectors``."""
        return self.eigenvectors

    @property
    def residuals(self) -> Tensor:
        """Short for ``residual_norms``."""
        return self.residual_norms

    @property
    def converged(self) -> np.bool_:
        """True if fresh products confirmed every pair to the tolerance; see ``status``."""
        return np.bool_(self._solution.status.converged)

    @property
    def products(self) -> int:
        """Vectors multiplied in all, those of residuals and certificates included."""
        cost: Cost = self._solution.cost
        return cost.products + cost.certificate_products

    @property
    def lower(self) -> Tensor:
        """(k,) lower ends of :attr:`.Solution.intervals`."""
        intervals: Tensor = self._solution.intervals
        return intervals[:, 0]

    @property
    def upper(self) -> Tensor:
        """(k,) upper ends of :attr:`.Solution.intervals`."""
        intervals: Tensor = self._solution.intervals
        return intervals[:, 1]

    @property
    def _solution(self) -> Solution:
        return self  # type: ignore[return-value]

    def __len__(self) -> int:
        return len(self.eigenvalues)

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Any]:
        """(eigenvalues, eigenvectors), to unpack: ``w, V = solution``."""
        yield self.eigenvalues
        yield self.eigenvectors

    def pairs(self) -> Iterator[tuple[float, Tensor]]:
        """Iterate over (value, (D,) vector), in order. Memory: one column at a time."""
        for i in range(len(self)):
            yield self[i]

    def __getitem__(self, index: Any) -> Any:
        """The pair (value, vector) at an integer, or the solution of the pairs of a slice.

        A certificate is kept for the first pairs of order LM, with the bound for what lies outside them; not for other slices,
        whose intervals are those of the residuals.
        """
        if isinstance(index, slice):
            return cut(self._solution, index)
        if not hasattr(index, "__index__"):
            raise InvalidArgument(f"solution[{index!r}]: use an integer or a slice, or solution.eigenvalues[...]")
        i = int(index)
        if not -len(self) <= i < len(self):
            raise IndexError(f"there is no pair {i}: the solution has {len(self)}, counted from 0")
        return float(self.eigenvalues[i]), self.eigenvectors[:, i]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The eigenvalues, (k,) float64; ``np.asarray(solution.eigenvectors)`` gives the vectors."""
        return np.array(self.eigenvalues.numpy(), dtype=dtype)

    @checked
    def unflatten(self, i: int) -> dict[str, Tensor]:
        """Eigenvector i by parameter name, as :meth:`.Solution.vector` gives it."""
        return self._solution.vector(i)

    def project(self, vector: Any) -> Any:
        """V V* x: the part of a vector, or of the columns of a block, in the span of these eigenvectors.

        Args:
            vector: (D,) or (D, b); tensors by parameter name, or an array, are given back as what they were.

        >>> import curvscope as cs
        >>> cs.eigsh(torch.diag(torch.tensor([3.0, 1.0])), k=1).project(torch.ones(2)).tolist()
        [1.0, 0.0]
        """
        named = self._solution.parameters
        if isinstance(vector, Mapping) and named is not None:
            return named.unflatten(self.project(named.flatten(vector)))
        if isinstance(vector, np.ndarray):
            return self.project(torch.from_numpy(vector)).cpu().numpy()
        if not isinstance(vector, Tensor) or vector.ndim not in (1, 2) or vector.shape[0] != self.eigenvectors.shape[0]:
            raise InvalidArgument(
                f"cannot project a {type(vector).__name__} of shape {tuple(getattr(vector, 'shape', ()))}: pass a vector "
                f"({self.eigenvectors.shape[0]},), a block of them, or tensors by parameter name"
            )
        return self.eigenvectors @ (self.eigenvectors.T @ vector)

    def by_layer(self) -> dict[str, Tensor]:
        """Return each parameter tensor's share of every eigenvector's squared norm, (k,) float64 by name; they sum to 1.

        Cost: one read of the vectors.

        Raises:
            InvalidArgument: the operator was not built from a model.
        """
        named = self._solution.parameters
        if named is None:
            raise InvalidArgument("this operator has no named parameters: use solution.eigenvectors[start:stop]")
        shares = {name: torch.zeros(len(self), dtype=torch.float64, device="cpu") for name in named.names}
        for name, place in named.slices.items():
            step = 1 << 16
            for start in range(place.start, place.stop, step):
                rows = self.eigenvectors.rows(slice(start, min(start + step, place.stop)))
                shares[name] += rows.abs().double().square().sum(dim=0).cpu()
        return shares

    @checked
    def to(self, target: Any) -> Solution:
        """The same solution with its vectors in memory, on a device or in a dtype."""
        return replace(self._solution, eigenvectors=InMemory(self.eigenvectors.to(target)), basis=None)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON; without the vectors."""
        intervals = self._solution.intervals
        return {
            **self._solution._table(),
            "lower": intervals[:, 0].tolist(),
            "upper": intervals[:, 1].tolist(),
        }

    def to_pandas(self) -> Any:
        """A data frame with a row for each pair: eigenvalue, residual_norm, lower, upper; needs pandas.

        With sampling intervals also sampling_lower and sampling_upper.
        """
        sampled = self._solution.sampling_intervals
        named = ("sampling_lower", "sampling_upper")
        aside = {} if sampled is None else {name: sampled[:, end].tolist() for end, name in enumerate(named)}
        return frame(
            {
                "eigenvalue": self.eigenvalues.tolist(),
                "residual_norm": self.residual_norms.tolist(),
                "lower": self.lower.tolist(),
                "upper": self.upper.tolist(),
                **aside,
            }
        )

    def plot(self, ax: Any = None) -> Any:
        """Draw the eigenvalues with both kinds of intervals into matplotlib axes (default: pyplot's current ones).

        Returns:
            The axes.
        """
        if ax is None:
            from matplotlib import pyplot

            ax = pyplot.gca()
        index = np.arange(1, len(self) + 1)
        values = self.eigenvalues.numpy()
        below, above = values - self.lower.numpy(), self.upper.numpy() - values
        style = {"fmt": "o", "markersize": 3, "linewidth": 1, "label": "these samples, numerical interval"}
        ax.errorbar(index, values, yerr=np.maximum(0, np.stack([below, above])), **style)
        if (sampled := self._solution.sampling_intervals) is not None:
            ax.vlines(
                index, sampled[:, 0], sampled[:, 1], color="0.7", linewidth=4, zorder=0, label="population, sampling interval"
            )
            ax.legend()
        ax.set(xlabel="i", ylabel="eigenvalue")
        return ax


def cut(solution: Solution, index: slice) -> Solution:
    """The pairs of a slice as a solution."""
    start, stop, step = index.indices(len(solution))
    places = range(start, stop, step)
    if not len(places):
        raise InvalidArgument(f"solution[{index.start}:{index.stop}] holds no pair: the solution has {len(solution)}")
    if step == 1:
        vectors: TallMatrix = solution.eigenvectors.between(start, stop)
    else:
        vectors = InMemory(solution.eigenvectors[:, list(places)])
    whole = list(places) == list(range(len(solution)))
    return replace(
        solution,
        eigenvalues=solution.eigenvalues[list(places)],
        eigenvectors=vectors,
        residual_norms=solution.residual_norms[list(places)],
        sampling_intervals=None if solution.sampling_intervals is None else solution.sampling_intervals[list(places)],
        certificate=_first(solution.certificate, len(places)) if start == 0 and step == 1 else None,
        basis=solution.basis if whole else None,
        provenance=solution.provenance if whole else {**solution.provenance, "pairs": [i + 1 for i in places]},
    )


def _first(certificate: Certificate | None, count: int) -> Certificate | None:
    """The part of a certificate about the first pairs alone; None for the ends of a spectrum, unless it is all of them."""
    if certificate is None or count == len(certificate.eigenvalues):
        return certificate
    if isinstance(certificate, EndCertificate):
        return None
    tail = certificate.tail
    estimate = max(tail.estimate, float(certificate.magnitudes[count]))
    return Certificate(
        certificate.eigenvalues[:count],
        certificate.residual_norms[:count],
        TailNorm(estimate, float(certificate.outside[count - 1]), tail.failure, tail.products),
        certificate.noise,
        shifts=None if certificate.shifts is None else certificate.shifts[:count],
        couplings=None if certificate.couplings is None else certificate.couplings[:count],
    )
