"""What the optimizers of torch.optim do in their next step: settings of a group, state of a parameter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import SGD, Adagrad, Adam, AdamW, NAdam, Optimizer, RMSprop

from curvscope.errors import InvalidArgument, InvalidType
from curvscope.operators.optimizers._dynamics import Dynamics

Group = Mapping[str, Any]
State = Mapping[str, Any]


class Reader(NamedTuple):
    """How one kind of optimizer is read.

    Attributes:
        dynamics: its next step, from a group and the state of a parameter of it (None: it has not stepped yet).
        denominator: the diagonal of P, from a group and a state; None: it has none.
        formula: the threshold as people know it.
        source: where it is from.
    """

    dynamics: Callable[[Group, State | None], Dynamics]
    denominator: Callable[[Group, State], Tensor] | None
    formula: str
    source: str


COHEN_2021 = "Cohen et al., ICLR 2021, arXiv 2103.00065"
COHEN_2022 = "Cohen et al., 2022, arXiv 2207.14484"


def _sgd(group: Group, state: State | None) -> Dynamics:
    rate, beta = float(group["lr"]), float(group["momentum"])
    if not beta:
        return Dynamics(rate)
    gain = 1 - float(group["dampening"])
    if group["nesterov"]:
        return Dynamics(rate, beta, gain, direct=1.0, through=beta)
    return Dynamics(rate, beta, gain, direct=0.0, through=1.0)


def _rmsprop(group: Group, state: State | None) -> Dynamics:
    beta = float(group["momentum"])
    return Dynamics(float(group["lr"]), beta, direct=0.0, through=1.0) if beta else Dynamics(float(group["lr"]))


def _adagrad(group: Group, state: State | None) -> Dynamics:
    steps = 0.0 if state is None else float(state["step"])
    return Dynamics(float(group["lr"]) / (1 + steps * float(group["lr_decay"])))


def _adam(group: Group, state: State | None) -> Dynamics:
    rate, beta = float(group["lr"]), float(group["betas"][0])
    decay = rate * float(group["weight_decay"]) if _is_decoupled(group) else 0.0
    return Dynamics(rate, beta, 1 - beta, direct=0.0, through=1.0, decay=decay)


def _nadam(group: Group, state: State | None) -> Dynamics:
    """Return the weights of gradient and momentum in the next step; without a state, those that they tend to."""
    rate, beta = float(group["lr"]), float(group["betas"][0])
    decay = rate * float(group["weight_decay"]) if _is_decoupled(group) else 0.0
    if state is None:
        return Dynamics(rate, beta, 1 - beta, direct=1 - beta, through=beta, decay=decay)
    step, each = float(state["step"]) + 1, float(group["momentum_decay"])
    now, following = (beta * (1 - 0.5 * 0.96 ** (count * each)) for count in (step, step + 1))
    product = float(state["mu_product"]) * now
    direct, through = (1 - now) / (1 - product), following / (1 - product * following)
    return Dynamics(rate, beta, 1 - beta, direct=direct, through=through, decay=decay)


def _is_decoupled(group: Group) -> bool:
    return bool(group.get("decoupled_weight_decay"))


def _root_mean_square(group: Group, state: State) -> Tensor:
    square: Tensor = state["square_avg"].double()
    if group["centered"]:
        square = square - state["grad_avg"].double().square()
    return square.clamp(min=0).sqrt() + float(group["eps"])


def _accumulated(group: Group, state: State) -> Tensor:
    total: Tensor = state["sum"].double()
    return total.sqrt() + float(group["eps"])


def _second_moment(group: Group, state: State) -> Tensor:
    """Return sqrt(v / (1 - beta_2^t)) + eps."""
    square: Tensor = state["max_exp_avg_sq" if group.get("amsgrad") else "exp_avg_sq"].double()
    corrected: Tensor = square / (1 - float(group["betas"][1]) ** float(state["step"]))
    return corrected.sqrt() + float(group["eps"])


def _corrected_second_moment(group: Group, state: State) -> Tensor:
    """Return what a step divides the momentum by: its bias correction is part of P, as in Cohen et al. (2022), section 2."""
    correction: float = 1 - float(group["betas"][0]) ** float(state["step"])
    return _second_moment(group, state) * correction


_ADAM = Reader(_adam, _corrected_second_moment, "(2 + 2 beta_1) / ((1 - beta_1) lr), 38/lr for beta_1 = 0.9", COHEN_2022)
READERS: dict[type[Optimizer], Reader] = {
    SGD: Reader(
        _sgd,
        None,
        "2/lr; momentum: 2 (1 + beta) / ((1 - dampening) lr); Nesterov: 2 (1 + beta) / ((1 + 2 beta) lr)",
        COHEN_2021,
    ),
    RMSprop: Reader(_rmsprop, _root_mean_square, "2/lr; with momentum: 2 (1 + momentum) / lr", COHEN_2022),
    Adagrad: Reader(_adagrad, _accumulated, "2 (1 + steps lr_decay) / lr", COHEN_2022),
    AdamW: _ADAM._replace(formula="(1 + beta_1) (2 - lr weight_decay) / ((1 - beta_1) lr), about 38/lr for beta_1 = 0.9"),
    Adam: _ADAM,
    NAdam: Reader(
        _nadam,
        _second_moment,
        "2 (1 + beta_1) / ((d (1 + beta_1) + c (1 - beta_1)) lr), d and c the weights of gradient and momentum in a step",
        COHEN_2022,
    ),
}
"""Optimizers that are read, subclasses before the classes that they derive from."""


def unwrapped(optimizer: Any) -> Optimizer:
    """Return the PyTorch optimizer in a wrapper (of Accelerate, Lightning), or the optimizer itself.

    Raises:
        InvalidType: there is none.
    """
    found = optimizer
    while not any(type(found) is kind for kind in READERS) and isinstance(getattr(found, "optimizer", None), Optimizer):
        found = found.optimizer
    if not isinstance(found, Optimizer):
        raise InvalidType(f"optimizer is a {type(optimizer).__name__}, expected one of torch.optim, such as {_names()}")
    return found


def reader_of(optimizer: Optimizer) -> Reader:
    """Return how an optimizer is read.

    Raises:
        InvalidArgument: it is of a kind whose step is not known here.
    """
    for kind, reader in READERS.items():
        if isinstance(optimizer, kind):
            return reader
    raise InvalidArgument(
        f"the step of {type(optimizer).__name__} is not known: pass one of {_names()}, or its preconditioner as a diagonal "
        "(D,) tensor, tensors by parameter name, or an operator, to cs.preconditioned"
    )


def check_descends(group: Group) -> None:
    """Raise InvalidArgument for a group that maximizes: its stability is decided by the other end of the spectrum."""
    if group.get("maximize"):
        raise InvalidArgument("a parameter group has maximize=True: build the optimizer to minimize the negative loss instead")


def coupled_decay(group: Group) -> float:
    """Return the weight decay that is part of the gradient, lambda in H + lambda I; 0 where it is decoupled."""
    return 0.0 if _is_decoupled(group) else float(group["weight_decay"])


def state_of(optimizer: Optimizer, parameter: Tensor, name: str) -> State:
    """Return the state of a parameter after at least one step.

    Raises:
        InvalidArgument: it has none.
    """
    state: State = optimizer.state.get(parameter, {})
    if "step" not in state or not float(state["step"]) > 0:
        raise InvalidArgument(
            f"{type(optimizer).__name__} holds no state for parameter {name!r}: make at least one step with a gradient for it "
            "(or load the optimizer's state_dict) before its preconditioner is read"
        )
    return state


def plain_state(optimizer: Optimizer, parameter: Tensor) -> State | None:
    """Return the state of a parameter, or None where no step was made."""
    state = optimizer.state.get(parameter, {})
    return state if isinstance(state.get("step"), Tensor | float | int) and float(state["step"]) > 0 else None


def place(tensor: Tensor) -> tuple[int, torch.Size, str]:
    """Return what two tensors on the same memory share: operators of functions hold the user's tensors as parameters."""
    return tensor.data_ptr(), tensor.shape, str(tensor.device)


def groups_of(optimizer: Optimizer) -> dict[tuple[int, torch.Size, str], tuple[Tensor, Group]]:
    """Return each parameter with its group, by where it lies."""
    return {place(parameter): (parameter, group) for group in optimizer.param_groups for parameter in group["params"]}


def flat(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a state tensor as a float64 vector on a device."""
    return tensor.detach().to(device, torch.float64).reshape(-1)


def _names() -> str:
    return ", ".join(sorted(kind.__name__ for kind in READERS))
