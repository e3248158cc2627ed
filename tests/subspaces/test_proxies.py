"""Sub-traces against dense matrices, sharpness-aware deltas against a loss with closed-form differences."""

import pytest
import torch
from torch import nn

import curvscope as cs
from curvscope.errors import InvalidArgument, InvalidType
from curvscope.operators.objective import loss_differences


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    x, y = torch.randn(40, 4), torch.arange(40) % 3
    return model, nn.CrossEntropyLoss(), [(x[:25], y[:25]), (x[25:], y[25:])]


def dense(operator):
    return operator @ torch.eye(operator.shape[0], dtype=operator.dtype)


@pytest.mark.parametrize("power", [1, 2])
def test_sub_traces_are_exact(network, power):
    make = cs.ggn if power == 1 else cs.hessian
    A = make(*network, dtype=torch.float64)
    ranking = cs.masks.by_magnitude(network[0])
    diagonal = torch.linalg.matrix_power(dense(A), power).diagonal()
    curve = cs.proxies.sub_trace(A, ranking, power=power, block_size=7)
    for k in (1, 10, 51):
        assert curve.at(k) == pytest.approx(float(diagonal[ranking.order[:k]].sum() / diagonal.sum()))
    assert curve.at(51) == 1
    assert float(curve.ratio[50]) == 1


@pytest.mark.parametrize("power", [1, 2])
def test_estimates_are_unbiased_with_honest_errors(network, power):
    A = (cs.ggn if power == 1 else cs.hessian)(*network, dtype=torch.float64)
    A = cs.as_operator(dense(A))
    ranking = cs.masks.by_magnitude(network[0])
    exact = cs.proxies.sub_trace(A, ranking, power=power)
    one = cs.proxies.sub_trace(A, ranking, power=power, num_probes=400, block_size=33)
    error = (one.value - exact.value)[:-1].abs()
    assert bool((error <= 5 * one.stderr[:-1] + 1e-12).all())
    few = torch.stack([cs.proxies.sub_trace(A, ranking, power=power, num_probes=40, seed=s).value for s in range(60)])
    claimed = torch.stack([cs.proxies.sub_trace(A, ranking, power=power, num_probes=40, seed=s).stderr for s in range(60)])
    # the scatter of 60 estimates is known to 1/sqrt(120) = 9%; the claims themselves scatter, and the bias is O(1/q)
    torch.testing.assert_close(claimed.mean(0)[5:45], few.std(0)[5:45], rtol=0.4, atol=0)


class Quadratic(nn.Module):
    """L = mean over outputs of (w_i x_i - t_i)^2: differences along one parameter in closed form."""

    def __init__(self, weights):
        super().__init__()
        self.w = nn.Parameter(weights)

    def forward(self, x):
        return self.w * x


def quadratic(scale=1.0):
    generator = torch.Generator().manual_seed(1)
    w, x = torch.randn(30, generator=generator), torch.rand(30, generator=generator) + 0.5
    target = w * x + torch.logspace(-6, 0, 30) * scale  # gradients over six orders of magnitude
    return Quadratic(w), nn.MSELoss(), [(x[None], target[None])], w.double(), x.double(), target.double()


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-6])
def test_sam_deltas_of_a_float32_model_are_right_at_every_size(scale):
    model, loss, data, w, x, t = quadratic()
    H = cs.hessian(model, loss, data)
    gradient = 2 * x * (w * x - t) / 30
    step = scale * gradient / gradient.norm()
    exact = (step * (2 * x * (w * x - t) + x**2 * step) / 30).abs()
    curvature = 2 * x**2 / 30
    deltas = cs.proxies.sam_deltas(H, scale, diagonal=curvature)
    assert deltas.dtype == torch.float64
    assert float(exact.min() / exact.max()) < 1e-10
    torch.testing.assert_close(deltas, exact, rtol=1e-5, atol=0)
    taylor = cs.proxies.sam_deltas(H, scale, method="taylor")
    torch.testing.assert_close(taylor, exact, rtol=1e-5, atol=0)  # a quadratic is its own expansion
    first = cs.proxies.sam_deltas(H, scale, method="first_order")
    torch.testing.assert_close(first, (step * gradient).abs())
    raw = cs.proxies.sam_deltas(H, scale, normalize=False, diagonal=curvature)
    step = scale * gradient
    torch.testing.assert_close(raw, (step * (30 * gradient + x**2 * step) / 30).abs(), rtol=1e-5, atol=0)


def test_float32_losses_would_not_do():
    """The trap that the float64 evaluation avoids: by float32 losses most of these deltas are lost."""
    model, loss, data, w, x, t = quadratic()
    gradient = 2 * x * (w * x - t) / 30
    step = (1e-3 * gradient / gradient.norm()).float()
    with torch.no_grad():
        reference = loss(model(data[0][0]), data[0][1])
        lost = 0
        for i in range(30):
            shifted = Quadratic(model.w + step[i] * torch.eye(30)[i])
            lost += bool(loss(shifted(data[0][0]), data[0][1]) == reference)
    assert lost > 15


def test_differences_on_a_network(network):
    model, loss, data = network
    H = cs.hessian(model, loss, data)
    before = [p.clone() for p in model.parameters()]
    steps = torch.cat([torch.full((26,), 0.3), torch.full((25,), 1e-7)]).double()
    found = loss_differences(H.objective, steps, diagonal=dense(H).diagonal())
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    import mpmath

    mpmath.mp.dps = 40
    flat = torch.nn.utils.parameters_to_vector(model.parameters()).detach().double().tolist()
    x = torch.cat([x for x, _ in data]).double().tolist()
    y = torch.cat([y for _, y in data]).tolist()

    def exact_loss(theta):
        W1, b1, W2, b2 = theta[:24], theta[24:30], theta[30:48], theta[48:51]
        total = mpmath.mpf(0)
        for sample, label in zip(x, y, strict=True):
            hidden = [mpmath.tanh(sum(W1[4 * i + j] * sample[j] for j in range(4)) + b1[i]) for i in range(6)]
            logits = [sum(W2[6 * i + j] * hidden[j] for j in range(6)) + b2[i] for i in range(3)]
            total += mpmath.log(sum(mpmath.exp(logit) for logit in logits)) - logits[label]
        return total / len(y)

    theta = [mpmath.mpf(value) for value in flat]
    reference = exact_loss(theta)
    for place in (0, 25, 26, 50):
        moved = list(theta)
        moved[place] += mpmath.mpf(float(steps[place]))
        assert float(found[place]) == pytest.approx(float(exact_loss(moved) - reference), rel=1e-6)


def test_sam_curves(network):
    H, ranking = cs.hessian(*network), cs.masks.by_magnitude(network[0])
    deltas = cs.proxies.sam_deltas(H, 0.3)
    curve = cs.proxies.sam(H, ranking, 0.3)
    assert curve.at(10) == pytest.approx(float(deltas[ranking.order[:10]].sum() / deltas.sum()))
    # in the limit it is the gradient's share on the mask
    g = H.gradient().double()
    small = cs.proxies.sam(H, ranking, 1e-6)
    assert small.at(10) == pytest.approx(float(g[ranking.order[:10]].square().sum() / g.square().sum()), rel=1e-4)
    sampled = cs.proxies.sam(H, ranking, 0.3, method="sampled", num_samples=3000)
    assert bool(((sampled.value - curve.value).abs() <= 5 * sampled.stderr + 1e-12).all())
    assert 0 < float(sampled.stderr[10]) < 0.05


def test_bad_input_is_named(network):
    H, ranking = cs.hessian(*network), cs.masks.by_magnitude(network[0])
    with pytest.raises(InvalidArgument, match="power=3"):
        cs.proxies.sub_trace(H, ranking, power=3)
    with pytest.raises(InvalidArgument, match="the ranking has 9 parameters, the operator 51"):
        cs.proxies.sub_trace(H, cs.masks.random(9))
    with pytest.raises(InvalidArgument, match="at least 2"):
        cs.proxies.sub_trace(H, ranking, num_probes=1)
    with pytest.raises(InvalidArgument, match="the total is -"):
        cs.proxies.sub_trace(torch.diag(torch.tensor([1.0, -2.0])), cs.masks.random(2))
    with pytest.raises(InvalidArgument, match="choose one of exact, taylor, first_order"):
        cs.proxies.sam_deltas(H, 1.0, method="finite")
    with pytest.raises(InvalidArgument, match="a positive lambda"):
        cs.proxies.sam(H, ranking, 0.0)
    with pytest.raises(InvalidType, match="operator is of type Tensor: pass one of type Operator"):
        cs.proxies.sam_deltas(torch.eye(3), 1.0)
    with pytest.raises(InvalidArgument, match="one step a place"):
        loss_differences(H.objective, torch.ones(3))
