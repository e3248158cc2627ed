"""What a worker does: build the operator of a recipe once, make sure that it is the one that was meant, multiply."""

from __future__ import annotations

import os
import platform
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch
from torch import Tensor

from curvscope.errors import CurvscopeError, InvalidArgument, NotFinite, WorkerError
from curvscope.operators._identity import recorded, recorded_differences
from curvscope.operators.base import Operator
from curvscope.operators.remote._recipe import Recipe
from curvscope.system import long_work, products_to_come, threads

SHARE_OF_FREE = 0.5
"""Of a machine's free memory, what the products of all its workers may take together."""

_built: dict[Recipe, Operator] = {}
_views: dict[Recipe, _View] = {}
_one_at_a_time = threading.Lock()


class _View(NamedTuple):
    """A view of a built operator, and the report that it follows."""

    of: Operator
    report: dict[str, Any] | None
    operator: Operator


@dataclass(frozen=True)
class Order:
    """Description of the operator that a worker must have, and of how it computes products.

    Attributes:
        recipe: what it builds.
        expected: facts about the operator and the libraries that must be the same as where the order was written.
        report: how products are computed, see :meth:`.Capabilities.view`; None: each worker chooses.
        threads: PyTorch's, while it multiplies; None: what it has.
        share: of the free memory of its machine.
        to_come: products that it shall expect; see :func:`curvscope.execution.long_work`.
    """

    recipe: Recipe
    expected: tuple[tuple[str, Any], ...]
    report: dict[str, Any] | None = None
    threads: int | None = None
    share: float = 1.0
    to_come: int = 0

    def announced(self, workers: int = 1) -> Order:
        """The same, with the share that each of so many workers has of the products that are to come here."""
        return replace(self, to_come=products_to_come() // workers)


def order_for(operator: Operator, **how: Any) -> Order:
    """The order that makes workers multiply with this operator.

    Raises:
        InvalidArgument: it does not know its recipe.
    """
    if operator.recipe is None:
        raise InvalidArgument(
            "workers build the operator themselves, so they must be told how: put the code into a function of a module, make "
            "the operator by cs.Recipe('module:function', option=...).build(), and pass that"
        )
    return Order(operator.recipe, (*libraries(), *_facts(operator)), **how)


def multiply(order: Order, block: np.ndarray, adjoint: bool = False) -> np.ndarray:
    """The product with a (D, b) block that came over the wire; called in a worker.

    Raises:
        WorkerError: this worker has another operator or other libraries, or failed; it is named.
        NotFinite: a product has NaN in it.
    """
    return product(order, lambda operator: received(block).to(operator.device), adjoint).cpu().numpy()


def product(order: Order, directions: Any, adjoint: bool = False) -> Tensor:
    """The product with ``directions(operator)``, one at a time in every process; see :func:`multiply`."""
    with _one_at_a_time, threads(order.threads), long_work(order.to_come), _errors_named():
        operator = _ready(order)
        block = directions(operator)
        result = operator.adjoint_matmul(block) if adjoint else operator @ block
    if not bool(torch.isfinite(result.sum())) and not bool(torch.isfinite(result).all()):
        raise NotFinite(f"{_name()}: a product has NaN or infinite entries: try dtype=torch.float64")
    return result


def built(order: Order) -> tuple[Operator, Order]:
    """The operator of an order, and an order for this very operator; called in a worker."""
    with _one_at_a_time, threads(order.threads), _errors_named():
        operator = _ready(order)
    return operator, replace(order, expected=(*libraries(), *_facts(operator)))


def received(array: np.ndarray) -> Tensor:
    """An array that came over the wire, where its memory may be read-only, as a tensor."""
    return torch.from_numpy(array if array.flags.writeable else array.copy(order="K"))


def _ready(order: Order) -> Operator:
    """The operator of an order: the one that was built before, or a new one."""
    _refuse_if(order, dict(libraries()))
    operator = _built.get(order.recipe)
    if operator is not None and _differences(order, dict(_facts(operator))):
        operator = None  # a checkpoint or data that the recipe names have changed since
    if operator is None:
        operator = order.recipe.build()
        _refuse_if(order, dict(_facts(operator)))
        if order.share < 1:
            operator = operator.view(memory=int(SHARE_OF_FREE * order.share * psutil.virtual_memory().available))
        for other in [kept for kept in _built if kept.family != order.recipe.family]:
            del _built[other]  # of an earlier solve: what its products keep is wanted for this one
        _built[order.recipe] = operator
    # What a worker has chosen by itself holds from one order to the next: the view lasts as long as the report stays the same.
    used = _views.get(order.recipe)
    if used is None or used.of is not operator or used.report != order.report:
        used = _views[order.recipe] = _View(operator, order.report, operator.view(strategy_report=order.report))
    for other in [kept for kept in _views if kept not in _built]:
        del _views[other]
    return used.operator


@contextmanager
def _errors_named() -> Iterator[None]:
    """Turn errors of other libraries, which need not survive the way back, into WorkerError; also ``sys.exit()``."""
    try:
        yield
    except CurvscopeError:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 -- Dask waits for ever for a task that raises SystemExit
        raise WorkerError(f"{_name()} failed: {type(error).__name__}: {error}\n{traceback.format_exc()}") from None


def libraries() -> tuple[tuple[str, Any], ...]:
    """The versions that products depend on."""
    return (("curvscope", version("curvscope")), ("torch", torch.__version__))


def _facts(operator: Operator) -> tuple[tuple[str, Any], ...]:
    same = tuple(recorded(operator).items())
    return (("shape", tuple(operator.shape)), ("dtype", str(operator.dtype)), *same)


def _differences(order: Order, facts: dict[str, Any]) -> list[str]:
    expected = dict(order.expected)
    same = ("fingerprint", "identity")
    found = [
        f"{name} is {facts[name]} there, {value} here"
        for name, value in expected.items()
        if name in facts and name not in same and facts[name] != value
    ]
    if "fingerprint" in expected and "fingerprint" in facts:
        found += recorded_differences(expected, facts, there="here", here="there")
    return found


def _refuse_if(order: Order, facts: dict[str, Any]) -> None:
    if differing := _differences(order, facts):
        raise WorkerError(
            f"{_name()} is refused, it would compute something else: {'; '.join(differing)}. Give it the same libraries, code, "
            "data and checkpoint, or take it out, and run again"
        )


def _name() -> str:
    return f"worker {platform.node()}, process {os.getpid()},"
