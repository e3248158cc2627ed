"""Do two independent routes to the second derivatives agree? Looked at on a few samples before the first number.

Three routes lead to the product with one vector:

- *reverse over reverse* (``double_backward``): the gradient's own graph, differentiated;
- *forward over reverse* (all traced strategies): the gradient of dual numbers. For J' C J: J v in forward mode;
- *central differences* of the gradient (of the output, for J' C J), in float64 where the model allows it.

Two that agree are taken for right. Where the first two differ, or one cannot run, differences decide.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

from curvscope.errors import NotDifferentiable, UnverifiedDerivatives
from curvscope.operators.fingerprint import fingerprint
from curvscope.operators.objective import Batch, check_substitution, tensors_of
from curvscope.operators.products._maps import BatchMap, SandwichMap
from curvscope.operators.products._output_curvature import check_loss_hessian
from curvscope.operators.products._routes import NUM_VECTORS, ROUTE_ERRORS, Products, Routes, apart, asymmetry

log = logging.getLogger(__name__)

CERTAIN = 100.0
"""Units in the last place that two routes may differ by in any case."""
ROUNDING = 30.0
"""How many times the measured rounding they may differ by."""
FINE = 1e-6
"""Error of float64 differences that needs no second look."""
FEWEST = 2
"""Samples of the comparison with float64 differences, which cost twice as much as those of a gradient in float32."""
FLOAT32 = torch.finfo(torch.float32).eps
COARSE = {torch.finfo(dtype).eps: str(dtype).removeprefix("torch.") for dtype in (torch.bfloat16, torch.float16)}
"""What is coarser, by machine epsilon: of a model with ``torch.autocast`` inside, for one."""
UNCERTAINTY = 10.0
"""How many times the scatter of differences with other steps a route may be off."""
UNDECIDED = 0.1
"""Scatter of differences that decides nothing."""

REMEDY = (
    "Write that operation with elementary ones; in backward(), do not use .data, .detach() or NumPy; or pass "
    "strategy='differences', whose products are not exact and whose error is measured"
)

FORWARD, REVERSE, DIFFERENCES = "forward over reverse", "reverse over reverse", "central differences of the gradient"

_verdicts: weakref.WeakKeyDictionary[nn.Module, dict[Any, Verdict]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Verdict:
    """Result of the verification of a model's derivatives.

    Attributes:
        forward, reverse: whether forward over reverse and reverse over reverse are right; None: not looked at.
        how: which routes agree, in words.
        error: largest relative difference of the routes that agree.
        reason: why a route is not used; "" when all that were looked at agree.
        rounding: measured relative rounding of a product; 0 where that was not needed.
        precision: how exact products are, in words, where they are computed in coarser numbers than float32.
        in_place: whether the values must be in the model's own parameters; see :mod:`.substitution`.
    """

    forward: bool | None
    reverse: bool | None
    how: str
    error: float
    reason: str = ""
    rounding: float = 0.0
    in_place: bool = False
    precision: str = ""

    @property
    def summary(self) -> str:
        """In a sentence, for provenance.

        >>> Verdict(True, True, "forward over reverse against reverse over reverse", 3e-7).summary
        'verified by forward over reverse against reverse over reverse to 3e-07'
        """
        return "; ".join(filter(None, (f"verified by {self.how} to {self.error:.0e}", self.reason, self.precision)))

    def covers(self, *, forward: bool) -> bool:
        """Return whether it is known if the strategies of one kind are right."""
        return (self.forward if forward else self.reverse) is not None


def verify(batch_map: BatchMap, *, forward: bool) -> Verdict:
    """Verify the derivatives of a map on a few samples of the first mini-batch; remembered for the model's lifetime.

    Args:
        batch_map: the matrix of one mini-batch.
        forward: whether strategies that use forward mode are about to be used; else reverse over reverse is all there is.

    Returns:
        What is right: at least one of the two.

    Cost: two gradients of the few samples for the substitution of parameters, five for two routes, three for one route and
    differences of half of the samples; more only where they do not agree. Memory: a copy of the parameters in float64 where
    differences are taken.

    Raises:
        UnverifiedDerivatives: no route agrees with another one.
        NotDeterministic, CapturedParameter: see :func:`.substitution.check_substitution`.
        NotDifferentiable: PyTorch has no second derivative for an operation. NotFinite: a product is NaN or infinite.
    """
    objective = batch_map.objective
    check_substitution(objective)
    forward = forward and objective.substitution != "in place"
    with objective.isolated():
        batch, _ = next(objective.batches())
        piece = objective.few_samples(batch)
        key = _key(batch_map, batch if piece is None else piece)
        known = _verdicts.get(objective.model, {}).get(key)
        if known is None or not known.covers(forward=forward):
            try:
                known = _found(batch_map, piece, batch, forward=forward)
            except UnverifiedDerivatives as error:
                known = _found_in_place(batch_map, piece, batch, error)
            log.debug("derivatives: %s", known.summary)
            _verdicts.setdefault(objective.model, {})[key] = known
    if known.in_place:
        objective.substitution = "in place"
    return replace(known, in_place=objective.substitution == "in place")


def against_differences(batch_map: BatchMap) -> tuple[float, float, float]:
    """Compare the product that is used with central differences on a few samples, whatever else was verified.

    Returns:
        The relative difference, what differences explain of it, and by how much differences with other steps scatter.

    Cost: about 17 gradients of the few samples.
    """
    objective = batch_map.objective
    with objective.isolated():
        batch, _ = next(objective.batches())
        piece = objective.few_samples(batch)
        check = _Check(batch_map, batch if piece is None else piece)
        try:
            routes, forward, reverse = check.running()
        except ROUTE_ERRORS:  # a part of a graph is no graph
            check = _Check(batch_map, batch)
            routes, forward, reverse = check.running()
        found = [routes.differences(step) for step in routes.steps]
        scatter, limit = check.explained(routes, found)
        return min(_error(route, found, routes) for route in (forward, reverse)), limit, scatter


def _found(batch_map: BatchMap, piece: Batch | None, batch: Batch, *, forward: bool) -> Verdict:
    """The verdict for a few samples; for the whole mini-batch where these are no batch or have no finite product."""
    if piece is not None and piece is not batch:
        try:
            return _Check(batch_map, piece).run(forward=forward)
        except UnverifiedDerivatives:
            raise
        except ROUTE_ERRORS as error:
            log.debug("derivatives of a few samples: %s", error)
    return _Check(batch_map, batch).run(forward=forward)


def _found_in_place(batch_map: BatchMap, piece: Batch | None, batch: Batch, refusal: UnverifiedDerivatives) -> Verdict:
    """The verdict with the values in the model's own parameters, where no route is right with exchanged ones.

    What is computed again in the backward pass, after the exchange (checkpointing), reads these.

    Raises:
        UnverifiedDerivatives: ``refusal``, where that does not help.
    """
    objective = batch_map.objective
    if objective.substitution == "in place":
        raise refusal
    objective.substitution = "in place"
    try:
        with objective.isolated():
            return replace(_found(batch_map, piece, batch, forward=False), in_place=True)
    except ROUTE_ERRORS as error:
        log.debug("derivatives with the values in the model's own parameters: %s", error)
        objective.substitution = "exchanged"
        raise refusal from error


def _key(batch_map: BatchMap, piece: Batch) -> Any:
    """Return the key of a verdict: kind of matrix, modules, loss, modes, and the samples as float32 numbers.

    And arithmetic coarser than float32, as the verdict says how exact products in it are.
    """
    objective = batch_map.objective
    samples = [t.float() if t.is_floating_point() else t for t in tensors_of(piece)]
    modes = objective.batchnorm, objective.dropout, objective.noise, objective.substitution
    kinds = tuple(type(module) for module in objective.model.modules())
    loss = objective.loss_name if isinstance(objective._loss, nn.Module) else _identity(objective._loss)
    coarse = (objective.arithmetic, objective.rounding) if objective.rounding > FLOAT32 else ()
    return type(batch_map), kinds, loss, modes, coarse, objective.parameters.names, fingerprint(samples)


def _identity(function: Any) -> Any:
    """Something that is equal for the same function alone, and does not keep it alive."""
    owner = getattr(function, "__self__", None)
    try:
        return weakref.ref(function if owner is None else owner), getattr(function, "__name__", "")
    except TypeError:
        return id(function)


class _Check:
    """The comparison of routes for one map and a few samples."""

    def __init__(self, batch_map: BatchMap, piece: Batch) -> None:
        self.map, self.piece = batch_map, piece

    def run(self, *, forward: bool) -> Verdict:
        """Compare the routes that are about to be used."""
        found = None if forward else self._reverse_alone()
        if found is None:
            found = self._decided() if self.map.objective.substitution == "in place" else self._both()
        precise = self._in(torch.float64, self._fewest) if isinstance(self.map, SandwichMap) else None
        check_loss_hessian(precise or Routes(self.map, self._fewest))
        return self._with_precision(found)

    def _reverse_alone(self) -> Verdict | None:
        """Reverse over reverse against float64 differences; None where these do not agree at once."""
        piece = self._fewest
        routes = Routes(self.map, piece) if self._own.is_precise else self._in(torch.float64, piece)
        if routes is None or not routes.is_precise:
            return None
        try:
            error = apart(routes.reverse(), routes.differences(routes.steps[0]))
        except ROUTE_ERRORS as reason:
            log.debug("reverse over reverse against differences: %s", reason)
            return None
        return Verdict(None, True, f"{REVERSE} against {DIFFERENCES} in float64", error) if error <= FINE else None

    def _both(self) -> Verdict:
        """Forward over reverse against reverse over reverse: in the arithmetic of the products, and then in float64."""
        measured = 0.0
        # In coarser arithmetic than float32 rounding alone may be a few per cent: float64 tells whether the rules are right.
        for precise in (False, True) if self._own.eps <= FLOAT32 else (True,):
            # Made only where it is needed: it evaluates the loss, and copies the parameters.
            routes, where = (self._double, " in float64") if precise else (self._own, "")
            forward, reverse = routes.attempt(routes.forward), routes.attempt(routes.reverse)
            if isinstance(forward, Exception) or isinstance(reverse, Exception):
                break
            error = apart(forward, reverse)
            rounding = 0.0 if error <= CERTAIN * routes.eps else routes.rounding(reverse)
            measured = max(measured, rounding)
            if error <= min(max(CERTAIN * routes.eps, ROUNDING * rounding), UNDECIDED):
                return Verdict(True, True, f"{FORWARD} against {REVERSE}{where}", error, rounding=measured)
            if routes.is_precise:
                break
        return self._decided()

    def _decided(self) -> Verdict:
        """Return which of the two differences agree with.

        Raises:
            UnverifiedDerivatives: with none.
        """
        routes, forward, reverse = self.running()  # with two vectors, which show asymmetry too
        found = [routes.differences(step) for step in routes.steps]
        scatter, limit = self.explained(routes, found)
        errors = [_error(route, found, routes) for route in (forward, reverse)]
        right = [error <= limit and scatter <= UNDECIDED for error in errors]
        if not any(right):
            raise UnverifiedDerivatives(_refusal(forward, reverse, errors, scatter, _suspects(routes)), REMEDY)
        if all(right) and apart(forward, reverse) > limit / UNCERTAINTY:
            right[0] = False  # differences do not tell: the gradient's own graph is less of a risk
        where = " in float64" if routes.is_precise else ""
        used, error = (REVERSE, errors[1]) if right[1] else (FORWARD, errors[0])
        told = [_told(*item) for item in zip((FORWARD, REVERSE), (forward, reverse), errors, strict=True)]
        reasons = "; ".join(reason for reason, good in zip(told, right, strict=True) if not good)
        if not right[0] and not isinstance(forward, Exception) and (names := routes.wrong_operations(forward=True)):
            reasons += f": PyTorch's rule for {' and '.join(names)} is wrong in forward mode"
        return Verdict(right[0], right[1], f"{used} against {DIFFERENCES}{where}", error, reasons)

    def _with_precision(self, verdict: Verdict) -> Verdict:
        """The verdict, and how far products are from float64 ones where they are computed in coarser numbers than float32."""
        objective = self.map.objective
        if objective.rounding <= FLOAT32:
            return verdict
        exact = self._in(torch.float64, self._fewest)
        if exact is None or not exact.is_precise:
            return verdict
        own = Routes(self.map, self._fewest)
        own.use([vector.to(objective.dtype) for vector in exact.vectors])
        by_reverse = verdict.reverse is not False
        found, expected = ((r.attempt(r.reverse if by_reverse else r.forward)) for r in (own, exact))
        if isinstance(found, Exception) or isinstance(expected, Exception):
            return verdict
        error = apart([product.double() for product in found], expected)
        name = COARSE.get(objective.rounding, objective.arithmetic)
        return replace(verdict, rounding=max(verdict.rounding, error), precision=f"products in {name} are exact to {error:.0e}")

    def explained(self, routes: Routes, differences: list[Products]) -> tuple[float, float]:
        """By how much differences with other steps scatter, and how far from them a right product may be."""
        scatter = min(apart(differences[0], other) for other in differences[1:])
        return scatter, max(FINE if routes.is_precise else CERTAIN * routes.eps, UNCERTAINTY * scatter)

    def running(self) -> tuple[Routes, Any, Any]:
        """Routes in float64, or else in the arithmetic of the products, of which one can run, and what they give."""
        for routes in dict.fromkeys((self._double, self._own)):
            routes.num_vectors = NUM_VECTORS
            forward, reverse = routes.attempt(self._forward_of(routes)), routes.attempt(routes.reverse)
            if not (isinstance(forward, Exception) and isinstance(reverse, Exception)):
                return routes, forward, reverse
        assert isinstance(reverse, Exception), "neither route could run"
        raise reverse

    def _forward_of(self, routes: Routes) -> Callable[[], Products]:
        def impossible() -> Products:
            """Refuse the route."""
            raise NotDifferentiable("the model reaches a parameter by a second reference, which torch.func does not see")

        return impossible if self.map.objective.substitution == "in place" else routes.forward

    @property
    def _fewest(self) -> Batch:
        """The samples for differences; two that are normalised by one another are -1 and 1, whatever the parameters."""
        objective = self.map.objective
        few = None if objective.batchnorm == "batch" else objective.few_samples(self.piece, FEWEST)
        return self.piece if few is None else few

    @cached_property
    def _own(self) -> Routes:
        """In the arithmetic of the products; in float32 where that is a coarser one."""
        objective = self.map.objective
        if objective.chosen_rounding > torch.finfo(torch.float32).eps:
            return self._in(torch.float32) or Routes(self.map, self.piece)
        return Routes(self.map, self.piece)

    @cached_property
    def _double(self) -> Routes:
        """In float64 where the model allows that; else as :attr:`_own`."""
        if self._own.is_precise:
            return self._own
        return self._in(torch.float64) or self._own

    def _in(self, dtype: torch.dtype, piece: Batch | None = None) -> Routes | None:
        objective = self.map.objective
        try:
            other = objective.like([self.piece if piece is None else piece], dtype=dtype)
            batch, _ = next(other.batches())
            batch_map = self.map.on(other)
        except ROUTE_ERRORS as error:
            log.debug("derivatives in %s are not possible: %s", dtype, error)
            return None
        return None if batch_map is None else Routes(batch_map, batch)


def _error(route: Products | Exception, differences: list[Products], routes: Routes) -> float:
    """Return the distance of a route from the nearest differences, or from symmetry if larger; infinite if it cannot run."""
    if isinstance(route, Exception):
        return float("inf")
    return max(asymmetry(route, routes.vectors), min(apart(route, other) for other in differences))


def _told(name: str, route: Products | Exception, error: float) -> str:
    if isinstance(route, Exception):
        reason = (str(route) or type(route).__name__).splitlines()[0]  # the rest asks for issues at PyTorch
        return f"{name} is not possible: {reason}"
    return f"{name} is off by {error:.0e}"


def _suspects(routes: Routes) -> str:
    """Name the likely cause of no route being right; "" where nothing that is looked at alone is wrong."""
    if names := routes.wrong_operations(forward=False) or routes.wrong_operations(forward=True):
        return f"{' and '.join(names)}, whose derivatives are wrong by central differences of that operation alone"
    if custom := routes.custom_functions():
        plural = "s" * (len(custom) > 1)
        return (
            f"the custom autograd function{plural} {', '.join(custom)}, whose backward is not differentiable itself or is wrong"
        )
    return ""


def _refusal(forward: Any, reverse: Any, errors: list[float], scatter: float, suspects: str) -> str:
    told = "; ".join(_told(*item) for item in zip((FORWARD, REVERSE), (forward, reverse), errors, strict=True))
    if scatter > UNDECIDED:
        told += f"; {DIFFERENCES} decide nothing, as other steps change them by {scatter:.0e} (kinks, or noise)"
    if not suspects:
        suspects = (
            "a custom autograd function whose backward is not differentiable itself, a gradient inside the loss through a "
            "fused operation, or a TorchScript function"
        )
    return f"no two routes to the second derivatives of this model and loss agree ({told}): likely because of {suspects}"
