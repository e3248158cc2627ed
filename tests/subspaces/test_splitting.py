"""H = G + E and the class structure of G, against dense matrices and explicit Jacobians."""

import pytest
import torch
from torch import nn

import curvscope as cs
from curvscope.errors import InvalidArgument, InvalidType


def setting(samples, classes=3, seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, classes)).double()
    x = torch.randn(samples, 5, dtype=torch.float64)
    y = torch.arange(samples) % classes
    half = samples // 2 or 1
    data = [(x[:half], y[:half]), (x[half:], y[half:])] if samples > 1 else [(x, y)]
    return model, nn.CrossEntropyLoss(), data


def dense(operator):
    return operator @ torch.eye(operator.shape[0], dtype=torch.float64)


def test_splitting_against_dense_matrices():
    made = setting(24)
    H, G, F = (build(*made, strategy="double_backward") for build in (cs.hessian, cs.ggn, cs.empirical_fisher))
    found = cs.splitting(H, G, k=4, others={"Fisher": F}, max_products=64, tol=1e-6)
    h, g = dense(H), dense(G)
    exact = float((h - g).norm() / h.norm())
    assert found.share == pytest.approx(exact, rel=0.3)
    assert found.remainder_norm.value == pytest.approx(float((h - g).norm()), abs=4 * found.remainder_norm.stderr)
    assert (
        found.remainder_bound.value
        <= float(torch.linalg.matrix_norm(h - g, 2)) * (1 + 1e-9)
        <= found.remainder_bound.upper * 1.001
    )
    assert found.weyl_holds
    tops = [torch.linalg.eigh(m)[1][:, torch.linalg.eigh(m)[0].abs().argsort(descending=True)[:4]] for m in (h, g, dense(F))]
    assert found.overlaps["ggn"].at(4) == pytest.approx(float((tops[0].T @ tops[1]).square().sum()) / 4, abs=1e-5)
    assert found.overlaps["Fisher"].at(4) == pytest.approx(float((tops[0].T @ tops[2]).square().sum()) / 4, abs=1e-5)
    assert "||E||_F / ||H||_F" in str(found)
    with pytest.raises(InvalidArgument, match="on other parameters"):
        cs.splitting(H, cs.ggn(*made, params="0.*"))


def test_rank_sign_and_weyl_of_the_split():
    """Theory, T8: rank G <= N (C - 1), G semidefinite, negative eigenvalues only with E."""
    made = setting(4)
    h, g = dense(cs.hessian(*made, strategy="double_backward")), dense(cs.ggn(*made, strategy="double_backward"))
    values = torch.linalg.eigvalsh(g)
    assert int((values > 1e-12 * values[-1]).sum()) <= 4 * 2
    assert float(values[0]) > -1e-12
    shift = (torch.linalg.eigvalsh(h) - values).abs().max()
    assert float(shift) <= float(torch.linalg.matrix_norm(h - g, 2)) + 1e-12
    assert float(torch.linalg.eigvalsh(h)[0]) < -1e-6


def test_one_sample_a_class_leaves_nothing_within():
    made = setting(3)
    found, G = cs.class_structure(cs.Objective(*made)), cs.ggn(*made, strategy="double_backward")
    exact = torch.linalg.eigvalsh(dense(G)).flip(0)
    assert torch.allclose(found.values[:6], exact[:6], rtol=1e-9, atol=1e-14)
    Q = found.top_space[:, :2]
    assert torch.allclose(Q.T @ Q, torch.eye(2, dtype=torch.float64), atol=1e-9)
    assert torch.allclose((dense(G) @ Q), Q * found.values[:2], atol=1e-9)


def test_means_against_explicit_jacobians():
    model, _, data = made = setting(20, classes=4)
    found = cs.class_structure(cs.hessian(*made))
    x, y = torch.cat([batch[0] for batch in data]), torch.cat([batch[1] for batch in data])
    parameters = dict(model.named_parameters())
    means = torch.zeros_like(found.means)
    for n in range(20):
        jacobian = torch.func.jacrev(lambda p, n=n: torch.func.functional_call(model, p, (x[n : n + 1],))[0])(parameters)
        J = torch.cat([jacobian[name].reshape(4, -1) for name in parameters], dim=1).detach()
        p = model(x[n : n + 1]).softmax(1)[0].detach()
        for asked in range(4):
            d = J.T @ (p - torch.eye(4, dtype=torch.float64)[asked])
            means[:, y[n], asked] += p[asked].sqrt() * d / (y == y[n]).sum()
    assert torch.allclose(found.means, means, atol=1e-12)
    assert bool((found.values[:8] <= torch.linalg.eigvalsh(dense(cs.ggn(*made))).flip(0)[:8] + 1e-12).all())
    assert len(found.class_values) == 4
    assert torch.allclose(found.class_means[:, 1], means[:, 1, [0, 2, 3]].mean(dim=1))


def test_ill_requests():
    model, loss, data = setting(9)
    with pytest.raises(InvalidType):
        cs.class_structure(model)
    with pytest.raises(InvalidArgument, match="CrossEntropyLoss"):
        cs.class_structure(cs.Objective(model, nn.CrossEntropyLoss(label_smoothing=0.1), data))
    with pytest.raises(InvalidArgument, match="have no sample"):
        cs.class_structure(cs.Objective(model, loss, [(data[0][0], torch.zeros(4, dtype=torch.long))]))
