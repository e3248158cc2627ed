"""What users expect of results and names: hints for names of other libraries, numbers that are arrays, displays."""

from __future__ import annotations

import difflib
import html
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

KEYWORDS: dict[str, str] = {
    "probes": "num_probes",
    "n_probes": "num_probes",
    "n_samples": "max_products (trace, diagonal, norms) or num_probes (density)",
    "num_samples": "max_products (trace, diagonal, norms) or num_probes (density)",
    "samples": "max_products (trace, diagonal, norms) or num_probes (density)",
    "n_v": "num_probes (density) or max_products (trace)",
    "num_matvecs": "max_products",
    "maxiter": "max_products, which counts vectors",
    "max_iter": "max_products, which counts vectors",
    "iter": "num_steps (density) or max_products",
    "steps": "num_steps (density)",
    "m": "num_steps (density) or ncv (eigsh)",
    "tol": "rtol (trace and norms) or tol (eigsh)",
    "rtol": "tol (eigsh) or rtol (trace and norms)",
    "random_state": "seed, an integer",
    "rng": "seed, an integer",
    "generator": "seed, an integer: generator.initial_seed()",
    "key": "seed, an integer",
    "num_eigenthings": "k",
    "top_n": "k",
    "n_components": "k",
    "num_eigs": "k",
    "loss_fn": "loss, the second argument",
    "criterion": "loss, the second argument",
    "loss_func": "loss, the second argument",
    "loss_function": "loss, the second argument",
    "dataloader": "data, the third argument",
    "loader": "data, the third argument",
    "batches": "data, the third argument",
    "net": "model, the first argument",
    "parameters": "params",
    "callback": "progress, a function (stage, done, total, note)",
    "verbose": "progress, True or False",
    "sigma": "nothing here: which='SA' and 'BE' give the other ends (eigenvalues near a point would need an inverse), and a "
    "density needs no kernel width",
    "kernel_width": "nothing here: a density needs no kernel width",
    "return_eigenvectors": "nothing here: solution.eigenvalues alone are (k,) float64",
    "grid": "nothing here: density(...).linear(points, low=..., high=...) gives any grid",
    "log": "nothing here: the ordinate is logarithmic already; scale='log' is for the abscissa",
    "logy": "nothing here: the ordinate is logarithmic already; ax.set_yscale('linear') changes it",
    "n": "k",
    "fmt": "format",
    "damping": "nothing here: cs.hessian(...).shift(0.1), or H + 0.1 * cs.identity(H), adds damping to any operator",
}
"""Keyword arguments of other libraries, and ours."""


def missing_attribute(owner: str, name: str, known: Iterable[str], instead: Mapping[str, str]) -> str:
    """Return the message for an attribute that is not there: what to write, or the nearest name.

    >>> missing_attribute("Solution", "eigvals", ["eigenvalues"], {"eigvals": "solution.eigenvalues"})
    "Solution has no 'eigvals': use solution.eigenvalues"
    >>> missing_attribute("Solution", "eigenvalue", ["eigenvalues"], {})
    "Solution has no 'eigenvalue': did you mean 'eigenvalues'?"
    """
    text = f"{owner} has no {name!r}"
    if name in instead:
        return f"{text}: use {instead[name]}"
    near = difflib.get_close_matches(name, [other for other in known if not other.startswith("_")], 1, 0.75)
    return f"{text}: did you mean {near[0]!r}?" if near else text


def unknown_argument(function: str, name: str, known: Iterable[str]) -> str:
    """Return the message for a keyword argument that a function does not take; without a function, for an option.

    >>> unknown_argument("density", "probes", ["num_probes", "seed"])
    "density has no argument 'probes': use num_probes; it takes num_probes, seed"
    """
    known = [other for other in known if other not in ("self", "cls")]
    said = f"{function} has no argument {name!r}" if function else f"there is no option {name!r}"
    takes = f"it takes {', '.join(known)}"
    if name in KEYWORDS:
        words = KEYWORDS[name]
        if words.startswith("nothing here: "):
            return f"{said}: {words.removeprefix('nothing here: ')}; {takes}"
        parts = [part for part in words.split(" or ") if part.split(" ")[0].rstrip(",") in known]
        return f"{said}: use {' or '.join(parts) if parts else words}; {takes}"
    near = difflib.get_close_matches(name, known, 1, 0.75)
    return f"{said}: " + (f"did you mean {near[0]!r}? " if near else "") + takes


class Hinted:
    """An object whose missing attributes say what to write: ``_instead`` maps names of other libraries to expressions."""

    _instead: ClassVar[Mapping[str, str]] = {}

    def __getattr__(self, name: str) -> Any:
        """Explain a name that does not exist; called only where the usual look-up failed."""
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)
        text = missing_attribute(
            type(self).__name__, name, [*dir(type(self)), *getattr(self, "__dataclass_fields__", ())], type(self)._instead
        )
        raise AttributeError(text)


class Numbers:
    """A result that is read as the 1-d tensor ``value``: its length, entries, iteration and NumPy array."""

    value: Tensor

    @property
    def values(self) -> Tensor:
        """Short for ``value``: the word for the numbers of every curve and density."""
        return self.value

    def __len__(self) -> int:
        return len(self.value)

    def __getitem__(self, index: Any) -> Tensor:
        """``value[index]``."""
        return self.value[index]

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.value)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """``value`` as a NumPy array."""
        return np.array(self.value.numpy(), dtype=dtype)


class Displayed:
    """A result that notebooks show as its text, of one screen."""

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"
