"""Everything that curvscope raises on purpose.

One base class, so that a caller can catch all of it; each kind is also the built-in exception that a caller who does not
know curvscope would expect.
"""

import re

__all__ = [
    "CapturedParameter",
    "CurvscopeError",
    "DamagedData",
    "Interrupted",
    "InvalidArgument",
    "InvalidType",
    "MissingExtra",
    "NotDeterministic",
    "NotDifferentiable",
    "NotFinite",
    "NotHermitian",
    "OutOfBudget",
    "OutOfDisk",
    "RunConflict",
    "RunNotFound",
    "TargetNotFound",
    "UnfitOperator",
    "UnverifiedDerivatives",
    "WorkerError",
    "WrittenParameter",
]


LONGEST_WORD = 1000
"""Letters without a space that a message shows whole, as of a path."""


class CurvscopeError(Exception):
    """Base of every error that curvscope raises on purpose.

    >>> import torch, curvscope as cs
    >>> try:
    ...     cs.eigsh(torch.eye(3), k=4)
    ... except cs.CurvscopeError as error:    # also a ValueError
    ...     print(error)
    k=4: choose an integer from 1 to D = 3
    """

    def __str__(self) -> str:
        """The message; names of a file or a stranger's run that are longer than any path are shortened.

        >>> str(CurvscopeError(f"there is no problem {'a' * 100_000}"))[:60], len(str(CurvscopeError("a" * 100_000))) < 200
        ('there is no problem aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', True)
        """
        too_long = rf"\S{{{LONGEST_WORD},}}"
        return re.sub(too_long, lambda word: f"{word[0][:100]}... ({len(word[0])} characters)", super().__str__())


class InvalidArgument(CurvscopeError, ValueError):
    """An argument has a value that cannot work; the message says which values can."""


class InvalidType(CurvscopeError, TypeError):
    """An argument is of a kind that cannot work; the message says which kinds can."""


class NotHermitian(InvalidArgument):
    """An operator that must be Hermitian is not; ``asymmetry`` is the measured share of its norm (NaN: not measured)."""

    def __init__(self, message: str, asymmetry: float) -> None:
        super().__init__(message)
        self.asymmetry = asymmetry


class NotFinite(CurvscopeError, ArithmeticError):
    """NaN or infinity in parameters, loss or products; the message says where."""


class NotDifferentiable(CurvscopeError, RuntimeError):
    """PyTorch cannot differentiate this loss as often as the operator needs."""


class UnfitOperator(CurvscopeError, RuntimeError):
    """An operator is not the fixed, linear, symmetric matrix that a solver needs; the message names cause and remedy."""

    def __init__(self, cause: str, remedy: str = "") -> None:
        super().__init__(f"{cause}. {remedy}" if remedy else cause)
        self.cause, self.remedy = cause, remedy


class NotDeterministic(UnfitOperator):
    """The loss of the same samples differs from one evaluation to the next."""


class CapturedParameter(UnfitOperator):
    """The model reaches a parameter by a second reference that does not follow it; the parameter is named."""


class WrittenParameter(UnfitOperator):
    """The model writes to one of its parameters in the forward pass; the parameter is named."""


class UnverifiedDerivatives(UnfitOperator):
    """No route to the second derivatives agrees with an independent one; the message names the likely cause."""


class TargetNotFound(CurvscopeError, ImportError):
    """A ``module:function`` of the user's could not be imported or called."""


class RunConflict(CurvscopeError, FileExistsError):
    """A directory already holds something that this command must not overwrite."""


class RunNotFound(CurvscopeError, FileNotFoundError):
    """A directory does not hold the run (or the part of it) that was asked for."""


class MissingExtra(CurvscopeError, ImportError):
    """An optional library is needed; the message gives the install command."""


class OutOfBudget(CurvscopeError, MemoryError):
    """The request does not fit the memory there is; the message says what would."""


class DamagedData(CurvscopeError, OSError):
    """Stored data is missing, truncated, or does not match its checksum; the message names the file."""


class OutOfDisk(CurvscopeError, OSError):
    """The disk is full, or has not the room that a run needs; what was written before is kept."""


class WorkerError(CurvscopeError, RuntimeError):
    """A worker computes another operator, failed at a product, or died on the same block again and again; it is named."""


class Interrupted(KeyboardInterrupt):
    """A run was stopped by Ctrl-C after the block in hand was saved; the message says how to resume. Not an error."""
