"""Laplace approximations against dense posteriors and laplace-torch: variances, limits of the truncation, evidence."""

import math

import pytest
import torch
from torch import nn

import curvscope as cs
from curvscope.errors import InvalidArgument, InvalidType

X, NEW = (
    torch.randn(40, 3, generator=torch.Generator().manual_seed(1)).double(),
    torch.linspace(-2, 2, 15).double().reshape(5, 3),
)
LABELS = torch.arange(40) % 3
TARGETS = torch.stack([X.sum(dim=1), X[:, 0].sin()], dim=1)


def network(outputs=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, outputs)).double()


def of(kind, model=None, reduction="mean"):
    model = model or network(3 if kind == "classes" else 2)
    criterion = nn.CrossEntropyLoss(reduction=reduction) if kind == "classes" else nn.MSELoss(reduction=reduction)
    targets = LABELS if kind == "classes" else TARGETS
    return cs.ggn(model, criterion, [(X[:25], targets[:25]), (X[25:], targets[25:])]), model


def dense_variance(G, model, scale, prior, inputs):
    covariance = torch.linalg.inv(scale * G.to_dense() + prior * torch.eye(G.shape[0]).double())
    J = cs.jacobian(model, [inputs]).to_dense().reshape(len(inputs), -1, G.shape[0])
    return J @ covariance @ J.mT


@pytest.mark.parametrize(("kind", "reduction", "scale"), [
    ("classes", "mean", 40.0), ("classes", "sum", 1.0), ("regression", "mean", 80 / (2 * 0.25)), ("regression", "sum", 2.0),
])  # fmt: skip
def test_all_pairs_give_the_dense_posterior(kind, reduction, scale):
    G, model = of(kind, reduction=reduction)
    posterior = cs.laplace(G, cs.eigsh(G, G.shape[0]), prior_precision=2.0, noise=0.5)
    found = posterior.variance(NEW)
    truth = dense_variance(G, model, scale, 2.0, NEW)
    assert posterior.scale == scale
    torch.testing.assert_close(found.covariance, truth, rtol=1e-8, atol=1e-10)
    assert found.is_proven
    determinant = torch.linalg.slogdet(scale * G.to_dense() / 2 + torch.eye(G.shape[0]).double())[1]
    assert posterior.evidence.log_det_ratio == pytest.approx(float(determinant), rel=1e-9)


@pytest.mark.parametrize("kind", ["classes", "regression"])
@pytest.mark.parametrize("k", [1, 5, 12])
@pytest.mark.parametrize("prior", [0.1, 10.0])
def test_limits_of_the_truncation_hold_the_dense_variances(kind, k, prior):
    G, model = of(kind)
    certified = cs.certify(G, cs.eigsh(G, k))
    posterior = cs.laplace(G, certified, prior_precision=prior)
    found, truth = posterior.variance(NEW), dense_variance(G, model, posterior.scale, prior, NEW).diagonal(dim1=1, dim2=2)
    assert found.is_proven
    assert bool((found.lower <= truth + 1e-12).all() & (truth <= found.upper + 1e-12).all())
    assert bool((found.value >= truth * (1 - 1e-6)).all())  # a truncated precision is too small
    whole = cs.laplace(G, cs.eigsh(G, G.shape[0]), prior_precision=prior).evidence.value
    assert posterior.evidence.lower - 1e-9 <= whole <= posterior.evidence.upper + 1e-9
    assert "proven" in str(found)


@pytest.mark.parametrize("kind", ["classes", "regression"])
def test_the_full_laplace_of_laplace_torch(kind):
    laplace_torch = pytest.importorskip("laplace")
    G, model = of(kind)
    names = {"classes": "classification", "regression": "regression"}
    other = laplace_torch.Laplace(model, names[kind], subset_of_weights="all", hessian_structure="full", prior_precision=2.0)
    targets = LABELS if kind == "classes" else TARGETS
    other.fit(torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, targets), batch_size=20))
    posterior = cs.laplace(G, cs.eigsh(G, G.shape[0]), prior_precision=2.0)
    _, variance = other._glm_predictive_distribution(NEW)
    torch.testing.assert_close(posterior.variance(NEW).covariance, variance.double(), rtol=1e-6, atol=1e-9)
    assert posterior.evidence.value == pytest.approx(float(other.log_marginal_likelihood()), rel=1e-6)


def test_without_a_certificate_limits_are_estimates():
    G, _ = of("classes")
    posterior = cs.laplace(G, k=4)
    found = posterior.variance(NEW)
    assert not found.is_proven
    assert "estimated" in str(found)
    assert posterior.evidence.lower == -math.inf
    assert "cs.certify" in str(posterior)


class OfMapping(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, batch):
        return self.inner(batch["features"] * batch["scale"])


def test_inputs_in_a_mapping_are_counted_by_their_tensors():
    model = OfMapping(network())
    G = cs.ggn(model, nn.CrossEntropyLoss(), [({"features": X, "scale": torch.ones(40, 1).double()}, LABELS)])
    found = cs.laplace(G, k=4).variance({"features": NEW, "scale": torch.ones(5, 1).double()})
    plain, _ = of("classes")
    torch.testing.assert_close(found.covariance, cs.laplace(plain, k=4).variance(NEW).covariance, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("prior", [0.1, 100.0])
@pytest.mark.parametrize("k", [1, 3])
def test_limits_hold_for_a_hessian_whose_negative_eigenvalues_were_left_out(prior, k):
    _, model = of("classes")
    H = cs.hessian(model, nn.CrossEntropyLoss(), [(X, LABELS)])
    certified = cs.certify(H, cs.eigsh(H, k, which="LA"))
    posterior = cs.laplace(H, certified, prior_precision=prior)
    found, truth = posterior.variance(NEW), dense_variance(H, model, 40.0, prior, NEW).diagonal(dim1=1, dim2=2)
    whole = 40.0 * H.to_dense() / prior + torch.eye(H.shape[0]).double()
    if float(torch.linalg.eigvalsh(whole)[0]) > 0:
        assert bool((found.lower <= truth + 1e-12).all() & (truth <= found.upper + 1e-12).all())
        value = posterior.evidence.log_likelihood - 0.5 * (float(torch.linalg.slogdet(whole)[1]) + posterior.evidence.scatter)
        assert posterior.evidence.lower - 1e-9 <= value <= posterior.evidence.upper + 1e-9
    else:
        assert bool(found.upper.isinf().all())
        assert posterior.evidence.upper == math.inf


def test_samples_have_the_covariance():
    G, _ = of("classes")
    posterior = cs.laplace(G, k=6, prior_precision=3.0)
    drawn = posterior.samples(20_000) - G.values()[:, None]
    covariance = posterior.precision.inverse().to_dense()
    assert float((drawn @ drawn.T / 20_000 - covariance).norm() / covariance.norm()) < 0.1
    assert torch.equal(posterior.samples(3, seed=5), posterior.samples(3, seed=5))


def test_what_is_no_posterior_is_refused():
    G, model = of("classes")
    with pytest.raises(InvalidType, match=r"cs\.ggn"):
        cs.laplace(torch.eye(3))
    with pytest.raises(InvalidArgument, match="prior_precision"):
        cs.laplace(G, prior_precision=0.0)
    with pytest.raises(InvalidArgument, match="noise"):
        cs.laplace(G, noise=-1.0)
    with pytest.raises(InvalidArgument, match="likelihoods"):
        cs.laplace(cs.ggn(model, nn.CrossEntropyLoss(label_smoothing=0.1), [(X, LABELS)]))
    H = cs.hessian(model, nn.CrossEntropyLoss(), [(X, LABELS)])
    with pytest.raises(InvalidArgument, match="eigenvalue"):
        cs.laplace(H, cs.eigsh(H, H.shape[0]))
    other = cs.ggn(network(), nn.CrossEntropyLoss(), [(X[:20], LABELS[:20])])
    with pytest.raises(InvalidArgument, match="solution is not a solution of this operator"):
        cs.laplace(G, cs.eigsh(other, 2))
    posterior = cs.laplace(G, k=3)
    with pytest.raises(InvalidArgument, match="no sample"):
        posterior.variance(NEW[:0])
    with torch.no_grad():
        model[0].weight.add_(1.0)
    with pytest.raises(InvalidArgument, match="not those of the operator"):
        posterior.variance(NEW)
