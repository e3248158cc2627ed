"""Thresholds against the real optimizers stepped on quadratics; preconditioners against what a real step divided by."""

import math
from functools import partial

import pytest
import scipy.linalg
import torch
from torch import nn
from torch.optim import SGD, Adagrad, Adam, Adamax, AdamW, NAdam, RMSprop

import curvscope as cs
from curvscope.errors import InvalidArgument, InvalidType
from curvscope.testing import check_operator

STILL = 1 - 1e-13  # decay of a second moment that stays as it was set
FOREVER = 1e14  # steps after which no bias correction is left


def stepped(optimizer, parameter, gradient, steps):
    """Norm of the parameter after each of so many real steps."""
    norms = []
    for _ in range(steps):
        parameter.grad = gradient(parameter.detach())
        optimizer.step()
        norms.append(float(parameter.detach().norm()))
    return norms


def freeze(optimizer, second_moment):
    """Give every parameter a second moment that its next steps do not change."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.zeros_like(p)
    before = [p.detach().clone() for group in optimizer.param_groups for p in group["params"]]
    optimizer.step()
    for group in optimizer.param_groups:
        for p in group["params"]:
            state = optimizer.state[p]
            p.data.copy_(before.pop(0))
            for name in ("exp_avg_sq", "square_avg", "sum", "max_exp_avg_sq"):
                if name in state:
                    state[name].copy_(second_moment(p))
            if "exp_avg" in state:
                state["exp_avg"].zero_()
            if not isinstance(optimizer, NAdam | Adagrad):
                state["step"] = torch.tensor(FOREVER)


QUADRATICS = {
    "gradient descent": lambda p: SGD(p, lr=0.3),
    "heavy ball": lambda p: SGD(p, lr=0.3, momentum=0.9),
    "dampened": lambda p: SGD(p, lr=0.3, momentum=0.8, dampening=0.5),
    "averaged": lambda p: SGD(p, lr=0.3, momentum=0.9, dampening=0.9),
    "Nesterov": lambda p: SGD(p, lr=0.3, momentum=0.9, nesterov=True),
    "weak Nesterov": lambda p: SGD(p, lr=0.02, momentum=0.3, nesterov=True),
    "RMSprop": lambda p: RMSprop(p, lr=1e-2, alpha=STILL, eps=1e-3),
    "RMSprop with momentum": lambda p: RMSprop(p, lr=1e-2, alpha=STILL, momentum=0.7),
    "centered RMSprop": lambda p: RMSprop(p, lr=1e-2, alpha=STILL, centered=True),
    "Adagrad": lambda p: Adagrad(p, lr=0.1, eps=1e-4),
    "Adam": lambda p: Adam(p, lr=1e-3, betas=(0.9, STILL)),
    "Adam with other averages": lambda p: Adam(p, lr=2e-2, betas=(0.5, STILL), eps=0.1),
    "amsgrad": lambda p: Adam(p, lr=1e-3, betas=(0.9, STILL), amsgrad=True),
    "AdamW": lambda p: AdamW(p, lr=0.1, betas=(0.9, STILL), weight_decay=3.0),
    "decoupled Adam": lambda p: Adam(p, lr=0.1, betas=(0.8, STILL), weight_decay=4.0, decoupled_weight_decay=True),
    "NAdam": lambda p: NAdam(p, lr=1e-3, betas=(0.9, STILL), momentum_decay=0.0),
    "decoupled NAdam": lambda p: NAdam(
        p, lr=0.05, betas=(0.8, STILL), momentum_decay=0.0, weight_decay=2.0, decoupled_weight_decay=True
    ),
}
"""Optimizers whose threshold is tried step by step."""


@pytest.mark.parametrize("name", QUADRATICS)
def test_steps_shrink_below_the_threshold_and_grow_above_it(name):
    for share, grows in ((0.97, False), (1.03, True)):
        parameter = nn.Parameter(torch.full((1,), 1e-8, dtype=torch.float64))
        optimizer = QUADRATICS[name]([parameter])
        freeze(optimizer, lambda p: torch.full_like(p, 0.25))
        if name.endswith("NAdam"):  # the schedule of its momentum has come to its end
            optimizer.state[parameter]["mu_product"] = torch.zeros(())
            optimizer.state[parameter]["step"] = torch.tensor(FOREVER)
        size = 1.0 if isinstance(optimizer, SGD) else 0.5 + optimizer.param_groups[0]["eps"]
        curvature = share * size * float(cs.stability_threshold(optimizer))
        norms = stepped(optimizer, parameter, lambda theta, h=curvature: h * theta, 90)
        if grows:
            assert max(norms) > 10 * max(norms[:3])
        else:
            assert norms[-1] < 0.3 * max(norms[:3])


def random_hessian(size, seed):
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(size, size, generator=generator, dtype=torch.float64)
    return root @ root.T


GROUPS = {
    "learning rates": lambda a, b: SGD([{"params": [a]}, {"params": [b], "lr": 0.02}], lr=0.1),
    "heavy balls": lambda a, b: SGD([{"params": [a]}, {"params": [b], "lr": 0.02, "momentum": 0.5}], lr=0.1, momentum=0.9),
    "Nesterov": lambda a, b: SGD([{"params": [a]}, {"params": [b], "lr": 0.5}], lr=0.1, momentum=0.9, nesterov=True),
    "decays": lambda a, b: SGD([{"params": [a]}, {"params": [b], "lr": 0.3}], lr=0.1, momentum=0.9, weight_decay=0.7),
    "a group that stands still": lambda a, b: SGD([{"params": [a], "lr": 0.0}, {"params": [b]}], lr=0.1),
    "Adam": lambda a, b: Adam([{"params": [a]}, {"params": [b], "lr": 0.3}], lr=0.01, betas=(0.9, STILL)),
    "AdamW": lambda a, b: AdamW(
        [{"params": [a]}, {"params": [b], "weight_decay": 0.0, "betas": (0.6, STILL)}],
        lr=0.1,
        betas=(0.9, STILL),
        weight_decay=4,
    ),
    "RMSprop": lambda a, b: RMSprop([{"params": [a]}, {"params": [b], "momentum": 0.5}], lr=0.01, alpha=STILL),
}


@pytest.mark.parametrize("name", GROUPS)
def test_one_threshold_decides_for_all_groups(name):
    for share, grows in ((0.96, False), (1.04, True)):
        a, b = (nn.Parameter(torch.full((4,), 1e-8, dtype=torch.float64)) for _ in range(2))
        optimizer = GROUPS[name](a, b)
        freeze(optimizer, lambda p: torch.linspace(0.1, 2.0, len(p), dtype=p.dtype))
        A, tensors = random_hessian(8, 1), {"a": a, "b": b}
        made = [cs.preconditioned(cs.hessian(partial(quadratic, c * A), tensors), optimizer) for c in (0.0, 1.0)]
        decay, scaled = made[0].to_dense(), made[1].to_dense() - made[0].to_dense()
        wanted, low, high = share * float(made[0].threshold), 0.0, 1e9
        while high - low > 1e-9 * high:  # the factor of H that puts its largest eigenvalue there
            middle = (low + high) / 2
            above = float(torch.linalg.eigvalsh(decay + middle * scaled)[-1]) > wanted
            low, high = (low, middle) if above else (middle, high)
        norms = run_quadratic(optimizer, a, b, high * A, 150)
        assert (max(norms) > 5 * max(norms[:5])) == grows
        assert grows or norms[-1] < max(norms[:5])


def quadratic(A, tensors):
    theta = torch.cat([tensors["a"], tensors["b"]])
    return theta @ A @ theta / 2


def run_quadratic(optimizer, a, b, A, steps):
    norms = []
    for _ in range(steps):
        gradient = A @ torch.cat([a, b]).detach()
        a.grad, b.grad = gradient[:4].clone(), gradient[4:].clone()
        if optimizer.param_groups[0]["lr"] == 0:
            a.data.zero_()  # it stands still: only the other group's motion is looked at
        optimizer.step()
        norms.append(float(torch.cat([a, b]).detach().norm()))
    return norms


def test_groups_that_no_threshold_decides_for_are_refused():
    a, b = (nn.Parameter(torch.zeros(2)) for _ in range(2))
    optimizer = SGD([{"params": [a]}, {"params": [b], "momentum": 0.5}], lr=0.1, momentum=0.9, nesterov=True)
    with pytest.raises(InvalidArgument, match="momenta"):
        cs.stability_threshold(optimizer)


def network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    data = [(torch.randn(20, 3).double(), torch.arange(20) % 2)]
    return model, data


STATES = {
    "RMSprop": lambda p: RMSprop(p, lr=1e-2),
    "RMSprop centered": lambda p: RMSprop(p, lr=1e-2, centered=True),
    "RMSprop momentum": lambda p: RMSprop(p, lr=1e-2, momentum=0.5),
    "Adagrad": lambda p: Adagrad(p, lr=1e-2),
    "Adam": lambda p: Adam(p, lr=1e-3),
    "Adam amsgrad": lambda p: Adam(p, lr=1e-3, amsgrad=True, betas=(0.5, 0.9)),
    "AdamW": lambda p: AdamW(p, lr=1e-3, weight_decay=0.3),
    "fused Adam": lambda p: Adam(p, lr=1e-3, foreach=True),
}


@pytest.mark.parametrize("name", STATES)
def test_the_preconditioner_is_what_a_real_step_divided_by(name):
    model, data = network()
    optimizer, loss = STATES[name](list(model.parameters())), nn.CrossEntropyLoss()
    for _ in range(5):
        optimizer.zero_grad()
        loss(model(data[0][0]), data[0][1]).backward()
        before = [p.detach().clone() for p in model.parameters()]
        buffers = [optimizer.state[p].get("momentum_buffer", torch.zeros_like(p)).clone() for p in model.parameters()]
        optimizer.step()
    group, divided = optimizer.param_groups[0], []
    for p, old, buffer in zip(model.parameters(), before, buffers, strict=True):
        old = old * (1 - group["lr"] * group["weight_decay"]) if name == "AdamW" else old
        pushed = optimizer.state[p].get("exp_avg", p.grad)
        step = (old - p.detach()) / group["lr"] - group.get("momentum", 0) * buffer
        divided.append((pushed / step).reshape(-1))
    H = cs.hessian(model, loss, data)
    root = torch.cat(divided).rsqrt()
    expected = root[:, None] * H.to_dense() * root
    torch.testing.assert_close(
        cs.preconditioned(H, optimizer).to_dense(), expected, rtol=1e-6, atol=1e-9 * float(expected.max())
    )


def test_nadams_threshold_follows_the_schedule_of_its_momentum():
    parameter = nn.Parameter(torch.full((1,), 1e-4, dtype=torch.float64))
    optimizer = NAdam([parameter], lr=1e-3, betas=(0.9, STILL), momentum_decay=0.0)
    limit = float(cs.stability_threshold(optimizer))
    freeze(optimizer, lambda p: torch.full_like(p, 0.25))
    optimizer.state[parameter]["mu_product"] = torch.zeros(())
    optimizer.state[parameter]["step"] = torch.tensor(1e6)
    now = 0.45  # 0.9 (1 - 1/2): a schedule without decay stays where it begins
    assert float(cs.stability_threshold(optimizer)) == pytest.approx(3.8 / ((1 - now) * 1.9 + now * 0.1) / 1e-3)
    assert limit == pytest.approx(3.8 / (0.1 * 2.8) / 1e-3)


def test_weight_decay_in_the_gradient_adds_to_the_matrix_and_decoupled_decay_does_not():
    model, data = network()
    H = cs.hessian(model, nn.CrossEntropyLoss(), data)
    optimizer = SGD([{"params": [model[0].weight], "weight_decay": 0.5}, {"params": [model[2].weight]}], lr=0.1)
    part = cs.hessian(model, nn.CrossEntropyLoss(), data, params="*.weight")
    extra = torch.cat([torch.full((12,), 0.5), torch.zeros(8)]).double()
    made = cs.preconditioned(part, optimizer)
    torch.testing.assert_close(made.to_dense(), part.to_dense() + torch.diag(extra))
    torch.testing.assert_close(cs.preconditioned(part, optimizer, weight_decay=False).to_dense(), part.to_dense())
    with pytest.raises(InvalidArgument, match=r"no parameter '0\.bias'"):
        cs.preconditioned(H, optimizer)


def test_generalised_pairs_agree_with_scipy():
    model, data = network()
    H = cs.hessian(model, nn.CrossEntropyLoss(), data)
    P = torch.linspace(0.5, 3, H.shape[0]).double()
    made = cs.preconditioned(H, P)
    pairs = made.generalized_pairs(cs.eigsh(made, 4, tol=1e-10))
    values, _ = scipy.linalg.eigh(H.to_dense().numpy(), torch.diag(P).numpy())
    expected = torch.as_tensor(values[abs(values).argsort()[::-1][:4].copy()])
    torch.testing.assert_close(pairs.eigenvalues, expected, rtol=1e-8, atol=0)
    V = pairs.eigenvectors.to_tensor()
    torch.testing.assert_close(H @ V, P[:, None] * V * pairs.eigenvalues, rtol=0, atol=1e-7)
    torch.testing.assert_close(V.T @ (P[:, None] * V), torch.eye(4).double(), rtol=0, atol=1e-9)
    assert pairs.vector(0)["0.weight"].shape == (4, 3)
    with pytest.raises(InvalidArgument, match="no threshold"):
        _ = pairs.over_threshold


@pytest.mark.parametrize("kind", ["dense", "low rank", "by name"])
def test_other_preconditioners(kind):
    model, data = network()
    H = cs.hessian(model, nn.CrossEntropyLoss(), data)
    size = H.shape[0]
    if kind == "dense":
        given = dense = random_hessian(size, 3) + torch.eye(size).double()
    elif kind == "low rank":
        given = cs.eigsh(cs.ggn(model, nn.CrossEntropyLoss(), data), 5).low_rank(0.1)
        dense = given.to_dense() if hasattr(given, "to_dense") else given @ torch.eye(size).double()
    else:
        diagonal = torch.linspace(1, 2, size).double()
        given, dense = H.parameters.unflatten(diagonal), torch.diag(diagonal)
    values = torch.linalg.eigvalsh(cs.preconditioned(H, given).to_dense())
    expected = scipy.linalg.eigh(H.to_dense().numpy(), dense.numpy(), eigvals_only=True)
    torch.testing.assert_close(values, torch.as_tensor(expected), rtol=1e-8, atol=1e-10)


def test_sums_and_submatrices_find_the_model_or_are_told_it():
    model, data = network()
    H, G = cs.hessian(model, nn.CrossEntropyLoss(), data), cs.ggn(model, nn.CrossEntropyLoss(), data)
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    assert cs.preconditioned(0.5 * H + 0.5 * G, optimizer).threshold == pytest.approx(38)
    assert cs.preconditioned(H.submatrix("2.*"), optimizer).shape == (10, 10)
    assert cs.preconditioned(H @ H, optimizer, model=model).shape == H.shape
    with pytest.raises(InvalidArgument, match="knows no model"):
        cs.preconditioned(torch.eye(4), optimizer)


def test_what_cannot_be_read_is_named():
    model, data = network()
    H = cs.hessian(model, nn.CrossEntropyLoss(), data)
    with pytest.raises(InvalidArgument, match="at least one step"):
        cs.preconditioned(H, Adam(model.parameters(), lr=1e-3))
    with pytest.raises(InvalidArgument, match="Adamax is not known"):
        cs.stability_threshold(Adamax(model.parameters(), lr=1e-3))
    with pytest.raises(InvalidArgument, match="maximize"):
        cs.stability_threshold(SGD(model.parameters(), lr=1e-3, maximize=True))
    with pytest.raises(InvalidArgument, match="lr = 0"):
        cs.stability_threshold(SGD(model.parameters(), lr=0.0))
    with pytest.raises(InvalidType, match="optimizer is a Linear"):
        cs.stability_threshold(nn.Linear(2, 2))
    with pytest.raises(InvalidArgument, match="zero, negative"):
        cs.preconditioned(H, torch.zeros(H.shape[0]).double())
    other, _ = network()
    with pytest.raises(InvalidArgument, match="this very model"):
        cs.preconditioned(H, SGD(other.parameters(), lr=0.1))


class Wrapper:
    def __init__(self, optimizer):
        self.optimizer = optimizer


def test_wrappers_tensors_as_rates_and_subclasses():
    class Mine(Adam):
        pass

    p = [nn.Parameter(torch.zeros(2))]
    assert cs.stability_threshold(Wrapper(SGD(p, lr=0.1))) == pytest.approx(20)
    assert cs.stability_threshold(Adam(p, lr=torch.tensor(1e-3))) == pytest.approx(38000)
    assert cs.stability_threshold(Mine(p, lr=1e-3)) == pytest.approx(38000)
    threshold = cs.stability_threshold(SGD(p, lr=0.1, momentum=0.9))
    assert math.isclose(threshold + 1, 39)
    assert "momentum" in threshold.formula
    assert "quadratic" in threshold.conditions
    assert threshold.to_dict()["optimizer"] == "SGD"


def test_the_matrix_is_an_operator_like_others():
    model, data = network()
    H = cs.hessian(model, nn.CrossEntropyLoss(), data)
    first = cs.preconditioned(H, torch.linspace(1, 2, H.shape[0]).double())
    check_operator(first)
    second = cs.preconditioned(H, torch.linspace(1, 3, H.shape[0]).double())
    assert first.fingerprint != second.fingerprint
    assert cs.eigsh(first, 3).parameters == H.parameters
