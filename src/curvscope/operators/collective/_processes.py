"""The processes of a group: the first one decides, all of them multiply.

Long work (a solve, an estimate, a certificate) is called in every process and done in the first one. The others multiply when
it does, and return what it returns. So no two processes ever take different decisions, a run has one writer, and progress is
shown once. Products outside of long work are made by all processes together, with the block of the first one.
"""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar
from weakref import WeakKeyDictionary, WeakValueDictionary

import torch
import torch.distributed as dist
from torch import Tensor

from curvscope.errors import InvalidArgument, InvalidType, WorkerError
from curvscope.system import Interruptible

R = TypeVar("R")

PATIENCE = timedelta(days=7)
"""How long a process waits for the first one, which may orthogonalise for hours between two products."""

SERVING = ("serve",)
"""What a process does while process 0 does long work."""

_known: WeakKeyDictionary[Any, Processes] = WeakKeyDictionary()


class Processes:
    """The processes of a group, as this one sees them; build it with :meth:`of`, in all of them.

    Attributes:
        rank: of this process in the group; 0 leads.
        size: number of processes.
    """

    def __init__(self, group: Any) -> None:
        ranks = dist.get_process_group_ranks(group)
        self.rank, self.size, self._first = dist.get_rank(group), len(ranks), ranks[0]
        self._group = group
        # Objects, and tensors on the CPU: with a patience of its own, whatever that of the user's group is.
        self._control: Any = dist.new_group(ranks, timeout=PATIENCE, backend="gloo", use_local_synchronization=True)
        self._members: WeakValueDictionary[int, Any] = WeakValueDictionary()
        self._count = 0
        self._leads = False

    @classmethod
    def of(cls, group: Any) -> Processes:
        """Return the processes of a ``torch.distributed`` group, or of "world", which is all.

        Raises:
            InvalidArgument: no group was begun, this process is in none, or not a group.
        """
        if not (dist.is_available() and dist.is_initialized()):
            raise InvalidArgument(
                "group: no process group was begun; start the script with torchrun, and call init_process_group() of "
                "torch.distributed first"
            )
        if isinstance(group, str):
            if group != "world":
                raise InvalidArgument(f"group={group!r}: pass 'world' or a process group of torch.distributed")
            group = dist.group.WORLD
        if group is dist.GroupMember.NON_GROUP_MEMBER:
            raise InvalidArgument("group: this process is not in the group: call it in the members alone")
        if not isinstance(group, dist.ProcessGroup):
            raise InvalidType(f"group is of type {type(group).__name__}: pass 'world' or a process group of torch.distributed")
        if group not in _known:
            _known[group] = cls(group)
        return _known[group]

    def join(self, member: Any) -> int:
        """Give an operator its number, the same in all processes, because they make their operators in one order."""
        self._count += 1
        self._members[self._count] = member
        return self._count

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, by rank."""
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=self._control)
        return found

    def together(self, work: Callable[[], R]) -> R:
        """Call a function in all processes; where it fails in one, it fails in all.

        Raises:
            WorkerError: it failed in another process.
        """
        result, error = None, None
        try:
            result = work()
        except Exception as caught:  # noqa: BLE001 - raised below, once the others know
            error = caught
        said = self.gather(None if error is None else f"{type(error).__name__}: {error}")
        if error is not None:
            raise error
        for rank, text in enumerate(said):
            if text is not None:
                raise WorkerError(f"process {rank} of the group failed: {text}")
        return result  # type: ignore[return-value]  # None only where the function returns it

    def agreed(self, *order: Any) -> tuple[Any, ...]:
        """Return what process 0 does next, which must be what the others do, unless they serve it.

        Raises:
            InvalidArgument: (in all) another process does something else.
        """
        orders = self.gather(order)
        for rank, theirs in enumerate(orders):
            if theirs not in (orders[0], SERVING):
                raise InvalidArgument(
                    f"process {rank} of the group does {theirs[:3]} while process 0 does {orders[0][:3]}: all processes must "
                    "make the same calls in the same order"
                )
        return tuple(orders[0])

    def lead(self, work: Callable[[], R]) -> R:
        """Do long work in process 0, which the others serve; all of them return its result.

        Raises:
            WorkerError: (in the others) the result, or an error, cannot be sent.
        """
        if self._leads:
            return work()
        return self._serve() if self.rank else self._led(work)

    def _led(self, work: Callable[[], R]) -> R:
        self._leads = True
        try:
            result = work()
        except BaseException as error:
            self.agreed("failed", _sendable(error))
            raise
        finally:
            self._leads = False
        try:
            sent = pickle.dumps(result)
        except Exception as error:  # noqa: BLE001 - whatever keeps it from being sent
            self.agreed("failed", WorkerError(f"a {type(result).__name__} cannot be sent to other processes: {error}"))
            return result
        self.agreed("finished", len(sent))
        self.shared(torch.frombuffer(bytearray(sent), dtype=torch.uint8))
        return result

    def _serve(self) -> Any:
        """Do what process 0 does, until it tells its result or its error; an error of this process's own is raised then."""
        own: Exception | None = None
        # A launcher hands Ctrl-C to all processes: process 0 saves what it has and tells the others.
        with Interruptible("Process 0 says how to resume."):
            while True:
                what, *details = self.agreed(*SERVING)
                if what == "finished":
                    return pickle.loads(self.shared(torch.empty(details[0], dtype=torch.uint8, device="cpu")).numpy().tobytes())
                if what == "failed":
                    raise details[0] if own is None or isinstance(own, WorkerError) else own
                try:
                    self._members[details[0]].serve(what, *details[1:])
                except Exception as error:  # noqa: BLE001 - process 0 knows of it, and may go on or end
                    own = error

    def shared(self, block: Tensor) -> Tensor:
        """Return process 0's block in all processes."""
        block = block.detach().clone(memory_format=torch.contiguous_format)
        dist.broadcast(block, self._first, group=self._carrier(block))
        return block

    def summed(self, part: Tensor) -> Tensor:
        """Return the sum over all processes; the part is overwritten."""
        dist.all_reduce(part, group=self._carrier(part))
        return part

    def _carrier(self, tensor: Tensor) -> Any:
        """The group that carries a tensor: that of the user where it is made for its device."""
        return self._group if tensor.device.type != "cpu" else self._control


def _sendable(error: BaseException) -> Exception:
    """The error, or one of ours that says the same where it cannot be sent or is none that others should raise."""
    if isinstance(error, Exception):
        with contextlib.suppress(Exception):  # classes may refuse to be pickled in many ways
            return pickle.loads(pickle.dumps(error))  # type: ignore[no-any-return]  # what was made here a moment ago
    return WorkerError(f"process 0 of the group ended with {type(error).__name__}: {error}")
