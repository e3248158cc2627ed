"""A linear map of tangents, traced once and replayed for every mini-batch of the same shape."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx
from torch.func import vmap

from curvscope.operators.products._memory import is_out_of_memory
from curvscope.operators.products.tracing._accumulate import allow_any_layout, reuse_memory
from curvscope.operators.products.tracing._compiled import Run, compiled
from curvscope.operators.products.tracing._kernels import choose_kernels
from curvscope.operators.products.tracing._partition import VIEWS, partition
from curvscope.operators.products.tracing._recording import NotRecordable, record
from curvscope.operators.products.tracing._simplify import simplify
from curvscope.operators.rules import Argument, workspace_bytes
from curvscope.system import in_tf32

Tensors = Sequence[Tensor]
TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-3}
"""Largest relative difference between a program and the function it was traced from."""
COARSE = 0.05
"""The same for other dtypes, and in TF32."""


class OtherBranch(Exception):
    """A program was traced for other values of what the model looks at; trace it again. Never seen by users."""


@dataclass(frozen=True, eq=False)
class Program:
    """Two graphs: ``residuals`` runs once per mini-batch, ``products`` once per group of vectors.

    Attributes:
        width: number of tangents at a time, in a leading axis; None: one tangent, without that axis.
        seen: what the function found where it looked at values; the program serves inputs for which it finds the same.
        num_calls: operations that one application of ``products`` runs.
        peak_bytes: memory that one application of ``products`` takes at most, without residuals.
        primal_bytes: memory that ``residuals`` takes at most, what it returns included.
        compiled: ``tangent`` as PyTorch's compiler made it; None: it runs call by call.
        not_compiled: why.
    """

    primal: fx.GraphModule
    tangent: fx.GraphModule
    width: int | None
    seen: tuple[Any, ...]
    num_calls: int
    peak_bytes: int
    primal_bytes: int
    compiled: Run | None = None
    not_compiled: str = "not asked for"

    def residuals(self, inputs: Tensors) -> tuple[Tensor, ...]:
        """Return what the products of one mini-batch need of its values and data.

        Raises:
            OtherBranch: the function would take another branch for these inputs than when it was traced.
        """
        residuals: tuple[Tensor, ...]
        with torch.no_grad():
            try:
                residuals, seen = self.primal(*inputs)
            except RuntimeError as error:
                # With shapes that depend on values, another branch shows as shapes that do not fit.
                if not self.seen or is_out_of_memory(error):
                    raise
                raise OtherBranch(str(error)) from error
        if repr(seen) != repr(self.seen):
            raise OtherBranch(f"the model looked at values and found {seen}, traced with {self.seen}")
        return residuals

    def products(self, residuals: Tensors, tangents: Tensors) -> tuple[Tensor | None, ...]:
        """The map applied to tangents; None stands for zeros."""
        with torch.no_grad():
            found: tuple[Tensor | None, ...] = (self.compiled or self.tangent)(*residuals, *tangents)
        return found

    @staticmethod
    def compare(found: Sequence[Tensor | None], expected: Sequence[Tensor]) -> None:
        """Raise NotRecordable unless both are the same up to rounding."""
        largest = max((float(e.abs().max()) for e in expected if e.numel()), default=0.0)
        for ours, theirs in zip(found, expected, strict=True):
            difference = theirs if ours is None else ours - theirs
            limit = (COARSE if in_tf32() else TOLERANCE.get(theirs.dtype, COARSE)) * largest
            if difference.numel() and not float(difference.abs().max()) <= limit:
                raise NotRecordable("the traced program does not reproduce the product it was traced from")


class Traced(NamedTuple):
    """A program, its residuals for the inputs that it was traced with, and the seconds that its first application took."""

    program: Program
    residuals: tuple[Tensor, ...]
    seconds: float


def trace(
    function: Callable[[Tensors, Tensors], Sequence[Tensor]],
    inputs: Tensors,
    tangents: Tensors,
    width: int | None,
    *,
    compiles: bool = False,
) -> Traced:
    """Trace ``function(inputs, tangents)``, linear in the tangents, and simplify what depends on them.

    The traced program is compared with what the function itself returned while it was traced.

    Args:
        function: of one tangent; for a ``width`` it is vectorised over a leading axis.
        inputs: what stays for all vectors.
        tangents: random ones, to compare with.
        width: number of tangents at a time, or None.
        compiles: whether the tangent part goes through PyTorch's compiler, if there is one.

    Raises:
        NotRecordable: the program cannot be built or does not reproduce the function.
    """
    count = len(inputs)
    mapped = function if width is None else vmap(function, in_dims=(None, 0))
    expected: list[Tensor] = []

    def flat(*arguments: Tensor) -> Sequence[Tensor]:
        """The function of all tensors in one list; what it returns is noted."""
        results = tuple(mapped(arguments[:count], arguments[count:]))
        expected.extend(results)
        return results

    with collector_paused():
        with torch.no_grad():
            recording = record(flat, (*inputs, *tangents))
        simplify(recording.graph, count)
        if not compiles:  # the compiler chooses kernels itself, and what is written to
            choose_kernels(recording.graph, count)
        primal, tangent = partition(recording.graph, count, len(expected))
        allow_any_layout(tangent)
        if not compiles:
            reuse_memory(tangent)
        calls = sum(node.op == "call_function" for node in tangent.nodes)
        first, second = (fx.GraphModule(recording.constants, graph) for graph in (primal, tangent))
        program = Program(first, second, width, recording.seen, calls, _peak_bytes(tangent), _peak_bytes(primal))
    residuals = program.residuals(inputs)
    if compiles:
        run, why = compiled(program.tangent, (*residuals, *tangents))
        program = replace(program, compiled=run, not_compiled=why)
    start = time.perf_counter()
    found = program.products(residuals, tangents)
    seconds = time.perf_counter() - start
    program.compare(found, expected)
    return Traced(program, residuals, seconds)


@contextmanager
def collector_paused() -> Iterator[None]:
    """Python's garbage collector rests: the many small objects of a graph would set it off, 0.25 s each time beside PyTorch."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _peak_bytes(graph: fx.Graph) -> int:
    """Largest sum of live intermediate values, from the recorded shapes; views cost nothing."""
    last_read = {source: index for index, node in enumerate(graph.nodes) for source in node.all_input_nodes}
    live, peak = 0, 0
    ending: dict[int, int] = {}
    for index, node in enumerate(graph.nodes):
        in_place = getattr(node.target, "_schema", None) is not None and node.target._schema.is_mutable
        if node.op == "call_function" and node.target not in VIEWS and not in_place:
            size = node.meta.get("bytes", 0)
            live, peak = live + size, max(peak, live + size + _workspace(node))
            end = last_read.get(node, index)
            ending[end] = ending.get(end, 0) + size
        live -= ending.pop(index, 0)
    return peak


def _workspace(node: fx.Node) -> int:
    """Return the bytes that an operation of ours takes for itself, with the results that are bound after the call."""
    schema: Any = getattr(node.target, "_schema", None)
    namespace, _, name = schema.name.partition("::") if schema is not None else ("", "", "")
    if namespace != "curvscope":
        return 0
    tensors = [n.meta for n in node.args if isinstance(n, fx.Node) and "shape" in n.meta]
    arguments = [Argument(tuple(m["shape"]), m["dtype"].itemsize, m["device"].type == "cpu") for m in tensors]
    returned: int = sum(user.meta.get("bytes", 0) for user in node.users)
    return workspace_bytes(name, arguments) + returned
