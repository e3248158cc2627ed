"""What people type on a matrix: H.T, H.matvec(v), H @ {name: tensor}, np.asarray(H), H.to_dense()."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from curvscope.errors import InvalidArgument, InvalidType, OutOfBudget
from curvscope.operators._arrays import ArrayDtype
from curvscope.system import Hinted
from curvscope.tall import TallMatrix

if TYPE_CHECKING:
    from curvscope.operators._parameters import Parameters

DENSE_BYTES = 1 << 31
"""Most bytes of a dense matrix that is formed without further questions: D = 23,000 in float32."""
COLUMNS = 32


class Conveniences(Hinted):
    """Forms of vectors and matrices beside tensors; everything is computed from products, nothing is stored."""

    _instead: ClassVar[Mapping[str, str]] = {
        "trace": "cs.trace(H)",
        "diag": "cs.diagonal(H)",
        "diagonal": "cs.diagonal(H)",
        "norm": "cs.spectral_norm(H) or cs.frobenius_norm(H)",
        "eigsh": "cs.eigsh(H, k=...)",
        "eigs": "cs.eigsh(H, k=...)",
        "eigh": "cs.eigsh(H, k=H.shape[0])",
        "eigenvalues": "cs.eigsh(H, k=...).eigenvalues",
        "eigvals": "cs.eigsh(H, k=...).eigenvalues",
        "eigvalsh": "cs.eigsh(H, k=...).eigenvalues",
        "top_eigenvalues": "cs.eigsh(H, k=...).eigenvalues",
        "svd": "cs.svds(H, k=...)",
        "density": "cs.density(H)",
        "spectrum": "cs.density(H), or cs.eigsh(H, k=...)",
        "grad": "H.gradient()",
        "params": "H.parameters (names, shapes, slices), or H.names",
        "restrict": "H.submatrix('layer1.*')",
        "block": "H.submatrix('layer1.*')",
        "sub": "H.submatrix('layer1.*')",
        "symmetric": "H.hermitian",
        "is_symmetric": "H.hermitian",
        "is_hermitian": "H.hermitian",
        "mv": "H @ v",
        "mm": "H @ X",
        "hvp": "H @ v",
        "vhp": "H @ v",
        "dot": "H @ v",
        "matmul": "H @ v",
        "apply": "H @ v",
        "dense": "H.to_dense()",
        "to_tensor": "H.to_dense()",
        "todense": "H.to_dense()",
        "numpy": "np.asarray(H)",
        "aslinearoperator": "H.to_scipy()",
        "as_linear_operator": "H.to_scipy()",
        "linear_operator": "H.to_scipy()",
        "update": "H.move(), which takes the weights that the model has now",
        "refresh": "H.move(), which takes the weights that the model has now",
        "damp": "H.shift(damping)",
        "add_diag": "H.shift(damping)",
        "inverse": "cs.solve(H, b, damping=...).x, or cs.eigsh(H, k=...).low_rank(damping).inverse()",
        "inv": "cs.solve(H, b, damping=...).x, or cs.eigsh(H, k=...).low_rank(damping).inverse()",
        "solve": "cs.solve(H, b, damping=...).x, or cs.eigsh(H, k=...).low_rank(damping).inverse()",
        **dict.fromkeys(("double", "half", "float", "bfloat16"), "H.to(torch.float64), or any other dtype"),
        **dict.fromkeys(("cpu", "cuda"), "H.to('cpu') or H.to('cuda')"),
        **dict.fromkeys(("quadratic_form", "rayleigh", "rayleigh_quotient", "curvature", "vHv", "quad"), "v @ H @ v"),
        **dict.fromkeys(("n", "dim", "nelement", "size", "num_params", "D", "d"), "H.shape[0]"),
        **dict.fromkeys(("param_names", "parameter_names", "named_parameters"), "H.names, and H.parameters for their shapes"),
        **dict.fromkeys(("save", "load", "state_dict"), "solution.save(path); operators are made again from model and data"),
        **dict.fromkeys(("mean", "sum", "max", "min", "abs", "cpu_dense"), "H.to_dense(), for small ones"),
        "frobenius_norm": "cs.frobenius_norm(H)",
        "spectral_norm": "cs.spectral_norm(H)",
        "svds": "cs.svds(H, k=...)",
        "logdet": "cs.logdet(H, damping=...)",
        "plot": "cs.density(H).plot(), or cs.eigsh(H, k=...).plot()",
        "eig": "cs.eigsh(H, k=...)",
        "certify": "cs.certify(H, solution)",
        "preflight": "cs.preflight(H)",
        "check": "cs.preflight(H)",
        "num_parameters": "H.shape[0]",
        "numel": "H.shape[0]",
        "model": "H.objective.model",
        "data": "H.objective.data",
    }

    shape: tuple[int, int]
    if TYPE_CHECKING:
        dtype: torch.dtype
    else:
        dtype = ArrayDtype()
    device: torch.device
    hermitian: bool
    ndim = 2
    _adjoint: ClassVar[Callable[[Any], Any]]
    """The adjoint as an operator; set by :mod:`.composition`."""

    @property
    def H(self) -> Any:
        """The adjoint, an operator; this one where it is Hermitian."""
        return self if self.hermitian else type(self)._adjoint(self)

    @property
    def T(self) -> Any:
        """The transpose, an operator; the adjoint, for real matrices.

        Raises:
            InvalidArgument: a complex matrix, whose adjoint is ``.H``.
        """
        if self.dtype.is_complex:
            raise InvalidArgument("the transpose of a complex operator is not computed: use .H, the adjoint")
        return self.H

    def matvec(self, vector: Any) -> Any:
        """A @ vector, SciPy's name."""
        return self @ vector

    def matmat(self, block: Any) -> Any:
        """A @ block, SciPy's name."""
        return self @ block

    def rmatvec(self, vector: Any) -> Any:
        """A* @ vector, SciPy's name."""
        return self.H @ vector

    def rmatmat(self, block: Any) -> Any:
        """A* @ block, SciPy's name."""
        return self.H @ block

    def __len__(self) -> int:
        return self.shape[0]

    def __bool__(self) -> bool:
        return True

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the D parameters' tensors, in order."""
        return self._named.names

    def flatten(self, tensors: Any) -> Tensor:
        """The (D,) vector of tensors by parameter name, or of a list with one for each parameter."""
        if isinstance(tensors, Mapping):
            return self._named.flatten(tensors)
        tensors = list(tensors)
        if [tuple(tensor.shape) for tensor in tensors] != [tuple(shape) for shape in self._named.shapes]:
            raise InvalidArgument(
                f"the list has tensors of shapes {[tuple(tensor.shape) for tensor in tensors]}, the parameters "
                f"{[tuple(shape) for shape in self._named.shapes]}: pass one for each of {list(self._named.names)}"
            )
        return self._named.join(tensors)

    def unflatten(self, vector: Any) -> dict[str, Tensor]:
        """A (D,) vector by parameter name, in the parameters' shapes; see :meth:`.Parameters.unflatten`."""
        return self._named.unflatten(torch.as_tensor(vector, device=self.device))

    @property
    def _named(self) -> Parameters:
        named = getattr(self, "parameters", None)
        if named is None:
            raise InvalidArgument("this operator has no named parameters: it was not built from a model")
        return named  # type: ignore[no-any-return]

    def to_dense(self) -> Tensor:
        """The matrix as a tensor (m, n), for small ones. Cost: n products.

        Raises:
            OutOfBudget: it would take more than 2 GiB.

        >>> from curvscope.operators import as_operator
        >>> (2 * as_operator(torch.eye(2))).to_dense().tolist()
        [[2.0, 0.0], [0.0, 2.0]]
        """
        rows, columns = self.shape
        if rows * columns * self.dtype.itemsize > DENSE_BYTES:
            raise OutOfBudget(
                f"the dense {rows} x {columns} matrix would take {rows * columns * self.dtype.itemsize / 2**30:.3g} GiB and "
                f"{columns} products: use H @ X for the columns that are needed, or H.submatrix(...).to_dense() for a block"
            )
        result = torch.empty(rows, columns, dtype=self.dtype, device=self.device)
        for start in range(0, columns, COLUMNS):
            stop = min(columns, start + COLUMNS)
            block = torch.zeros(columns, stop - start, dtype=self.dtype, device=self.device)
            block[start:stop].fill_diagonal_(1)
            result[:, start:stop] = self @ block  # type: ignore[operator]
        return result

    def toarray(self) -> np.ndarray:
        """The matrix as a NumPy array, SciPy's name; see :meth:`to_dense`."""
        return self.to_dense().cpu().numpy()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The matrix as a NumPy array; see :meth:`to_dense`."""
        return np.asarray(self.toarray(), dtype=dtype)

    def __dlpack__(self, **options: Any) -> Any:
        """The matrix for ``from_dlpack``; see :meth:`to_dense`."""
        return self.to_dense().__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        """Return the device of that tensor."""
        return torch.empty(0, device=self.device).__dlpack_device__()

    def to(self, target: Any) -> Any:
        """This matrix in another dtype; on its own device it is itself.

        Raises:
            InvalidArgument: another device, or a dtype of an operator whose products cannot be computed in it.
        """
        if isinstance(target, str) and hasattr(torch, target) and isinstance(getattr(torch, target), torch.dtype):
            target = getattr(torch, target)
        if isinstance(target, torch.dtype):
            if target == self.dtype:
                return self
            if hasattr(type(self), "in_dtype"):
                return self.in_dtype(target)
            raise InvalidArgument(f"this operator computes in {self.dtype}: build it in {target}, with dtype=")
        try:
            device = torch.device(target)
        except (TypeError, RuntimeError):
            raise InvalidType(f"to({target!r}): pass a torch.dtype, a torch.device, or the name of one") from None
        if device.type == self.device.type and device.index in (None, self.device.index):
            return self
        raise InvalidArgument(
            f"this operator computes on {self.device}: build it on {device}, cs.hessian(..., device={str(device)!r})"
        )


def is_other_form(operator: Any, block: Any) -> bool:
    """Return whether a block is not yet a tensor of the operator's dtype, but can be made one."""
    if isinstance(block, Tensor):
        return block.dtype != operator.dtype and block.is_floating_point() and operator.dtype.is_floating_point
    return isinstance(block, Mapping | list | tuple | np.ndarray | TallMatrix)


def in_its_form(operator: Any, block: Any, multiply: Callable[[Tensor], Tensor]) -> Any:
    """The product with a block of another form, in that form: by name, as a list, an array, in the block's precision.

    Raises:
        InvalidType: a list of something else than tensors, or an operator without named parameters.
    """
    if isinstance(block, Tensor):
        return multiply(block.to(operator.dtype)).to(block.dtype)
    if isinstance(block, TallMatrix):
        return multiply(block[:].to(operator.device, operator.dtype))
    if isinstance(block, np.ndarray):
        if block.dtype.kind not in "fiuc":
            raise InvalidType(f"cannot multiply with an array of {block.dtype}: pass numbers")
        found = multiply(torch.from_numpy(np.array(block)).to(operator.device, operator.dtype)).cpu().numpy()
        return found.astype(block.dtype) if block.dtype.kind == "f" else found
    if not isinstance(block, Mapping) and not all(isinstance(part, Tensor) for part in block):
        raise InvalidType(
            f"cannot multiply with a {type(block).__name__}: pass a tensor (torch.as_tensor), a dictionary of tensors by "
            "parameter name, or a list with one for each parameter"
        )
    named = getattr(operator, "parameters", None)
    if named is None:
        raise InvalidType(
            f"cannot multiply with a {type(block).__name__}: this operator has no named parameters, pass a tensor"
        )
    vector = operator.flatten(block)
    found = named.unflatten(multiply(vector.detach().to(operator.device, operator.dtype)).to(vector.dtype))
    return dict(found) if isinstance(block, Mapping) else list(found.values())
