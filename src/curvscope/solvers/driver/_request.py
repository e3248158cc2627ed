"""A request in two objects: what is wanted, and where it is computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from torch import Tensor

from curvscope.errors import InvalidType
from curvscope.measurement import Fit, Meter, Place
from curvscope.operators.base import Operator
from curvscope.solvers.results import Solution
from curvscope.store import Run
from curvscope.system import Progress, check_options, unknown_argument
from curvscope.tall import TallMatrix

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class EigenProblem:
    """Eigenpairs that are wanted of an operator.

    Attributes:
        operator: checked already.
        k: number of pairs; None: all that a sketch gives.
        which: order, one of :data:`.ordering.ORDERS`.
        tol: relative residual at which a pair has converged; of methods that iterate.
        seed: of all random numbers.
        start: first block, or an earlier solution; of methods that iterate.
    """

    operator: Operator
    k: int | None
    which: str = "LM"
    tol: float = 1e-3
    seed: int = 0
    start: Tensor | TallMatrix | Solution | None = None


@dataclass(frozen=True, slots=True)
class Resources:
    """Where a solve is computed. None of it changes the answer beyond rounding.

    Attributes:
        memory: bound for the resident memory of the process; None: current usage plus 80 % of the free memory.
        run: directory that keeps everything as it comes; None: nothing is kept.
        executor: computes the products; None: this process.
        progress: see :data:`.progress.Progress`.
    """

    memory: int | str | None = None
    run: Place | Run | None = None
    executor: Any = None
    progress: Progress = None


@dataclass(frozen=True)
class Prepared(Generic[Found]):
    """A solve of which every size is known, before its first product.

    Attributes:
        find: measures and recovers; called unless the run has them.
        options: everything that determines the result: the keys of the run's manifest.
        free: names of the options with which a later session may differ and still use the run's measurements.
        fitted: how the solve fits into memory; None: it does.
    """

    find: Callable[[Meter], Found]
    options: dict[str, Any]
    free: tuple[str, ...] = ()
    fitted: Fit | None = None


class Method(Protocol):
    """A way to find eigenpairs, with its own options: Krylov, Exact, Seigh, HMT, Nystrom or SinglePass."""

    name: ClassVar[str]

    def solve(self, problem: EigenProblem, resources: Resources) -> Solution:
        """Return the wanted pairs."""
        ...


class MethodOptions:
    """Options of a method: numbers and texts are checked when the object is made, as those of functions are.

    Subclasses are frozen dataclasses, so that two methods are equal if their options are.
    """

    name: ClassVar[str]

    def __new__(cls, *args: Any, **options: Any) -> Self:
        """Refuse options that the method does not have, before the generated ``__init__`` would in its own words."""
        known = [field.name for field in fields(cls)]  # type: ignore[arg-type]
        for name in options:
            if name not in known:
                raise InvalidType(unknown_argument(cls.__name__, name, known))
        return super().__new__(cls)

    def __post_init__(self) -> None:
        # Scalars of NumPy and tensors become Python's numbers, as manifests are JSON.
        given = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        for name, value in check_options(type(self), given).items():
            object.__setattr__(self, name, value)

    def options(self) -> dict[str, Any]:
        """The options by name."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]
