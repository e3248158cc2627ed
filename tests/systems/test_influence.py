"""Influence scores against dense ones, and against training again without a sample."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import curvscope as cs
from curvscope.errors import InvalidArgument, InvalidType

torch.manual_seed(0)
X, Y = torch.randn(40, 3).double(), (torch.arange(40) * 7) % 3
TEST = torch.randn(10, 3).double(), torch.arange(10) % 3
DECAY = 0.05


INPUTS = torch.cat([X, torch.ones(40, 1).double()], dim=1)


def trained(weights):
    """Logistic regression with weight decay and weighted samples, at its minimum to rounding, by Newton's method."""
    theta = torch.zeros(3, 4).double()
    for _ in range(12):
        p = (INPUTS @ theta.T).softmax(dim=1)
        slope = (weights[:, None] * (p - functional.one_hot(Y))).T @ INPUTS / 40 + DECAY * theta
        curves = weights[:, None, None] * (torch.diag_embed(p) - p[:, :, None] * p[:, None, :])
        matrix = torch.einsum("nab,ni,nj->aibj", curves, INPUTS, INPUTS).reshape(12, 12) / 40
        theta = theta - torch.linalg.solve(matrix + DECAY * torch.eye(12).double(), slope.reshape(-1)).reshape(3, 4)
    model = nn.Linear(3, 3).double()
    with torch.no_grad():
        model.weight.copy_(theta[:, :3])
        model.bias.copy_(theta[:, 3])
    return model


def changes_by_training_again(weight):
    """Change of the test loss when each sample has another weight."""
    before, found = functional.cross_entropy(trained(torch.ones(40))(TEST[0]), TEST[1]).item(), []
    for i in range(40):
        weights = torch.ones(40).double()
        weights[i] = weight
        found.append(functional.cross_entropy(trained(weights)(TEST[0]), TEST[1]).item() - before)
    return torch.tensor(found).double()


def test_predictions_agree_with_training_again_without_a_sample():
    model = trained(torch.ones(40))
    H = cs.hessian(model, nn.CrossEntropyLoss(), [(X[:25], Y[:25]), (X[25:], Y[25:])])
    found = cs.influence(H, [TEST], damping=DECAY, tol=1e-10)
    changes = changes_by_training_again(0.0)
    assert float(torch.corrcoef(torch.stack([changes, found.removed]))[0, 1]) > 0.98
    assert len(set(found.top(5).tolist()) & set(changes.argsort()[:5].tolist())) >= 4
    assert found.top(5, helpful=True).tolist() == found.removed.argsort(descending=True)[:5].tolist()
    slightly = 100 * changes_by_training_again(0.99)  # first order is exact for small changes of weights
    assert float((slightly - found.removed).norm() / slightly.norm()) < 0.01


def gradients(model, loss, x, y):
    """The gradient of each sample's loss by itself, (D, n)."""
    columns = []
    for i in range(len(x)):
        found = torch.autograd.grad(loss(model(x[i : i + 1]), y[i : i + 1]), list(model.parameters()))
        columns.append(torch.cat([part.reshape(-1) for part in found]))
    return torch.stack(columns, dim=1)


class Averaged:
    """A criterion that is none of PyTorch's."""

    def __call__(self, output, target):
        return functional.cross_entropy(output, target).exp().log()


@pytest.mark.parametrize("kind", ["cross-entropy", "squares", "unknown", "callable"])
@pytest.mark.parametrize("each", [False, True])
def test_scores_agree_with_dense_ones(kind, each):
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    loss, targets, tests = {
        "cross-entropy": (nn.CrossEntropyLoss(), Y, TEST[1]),
        "squares": (nn.MSELoss(), functional.one_hot(Y).double(), functional.one_hot(TEST[1]).double()),
        "unknown": (nn.CrossEntropyLoss(), Y, TEST[1]),
        "callable": (nn.CrossEntropyLoss(), Y, TEST[1]),
    }[kind]
    given = {"unknown": Averaged(), "callable": lambda model, batch: functional.cross_entropy(model(batch[0]), batch[1])}
    data = [(X[:25], targets[:25]), (X[25:], targets[25:])]
    H = cs.hessian(model, given.get(kind, loss), data)
    found = cs.influence(H, [(TEST[0], tests)], damping=2.0, tol=1e-11, each=each)
    of_test = gradients(model, loss, TEST[0], tests)
    of_test = of_test if each else of_test.mean(dim=1, keepdim=True)
    dense = H.to_dense() + 2.0 * torch.eye(H.shape[0]).double()
    expected = -(of_test.T @ torch.linalg.solve(dense, gradients(model, loss, X, targets)))
    torch.testing.assert_close(found.scores, expected if each else expected[0], rtol=1e-6, atol=1e-10)
    torch.testing.assert_close(found.removed, -found.scores / 40, rtol=1e-9, atol=0)


def test_samples_without_a_label_score_zero_and_have_their_place():
    targets = Y.clone()
    targets[[3, 30]] = -100
    model = nn.Linear(3, 3).double()
    G = cs.ggn(model, nn.CrossEntropyLoss(), [(X, targets)])
    found = cs.influence(G, [TEST], damping=0.1)
    assert found.scores.shape == (40,)
    assert found.scores[[3, 30]].tolist() == [0, 0]
    assert int((found.scores == 0).sum()) == 2


def test_other_samples_gradients_and_sums_are_taken():
    model = nn.Linear(3, 3).double()
    G = cs.ggn(model, nn.CrossEntropyLoss(), [(X, Y)])
    plain = cs.influence(G, [TEST], damping=0.1, tol=1e-10)
    shifted = cs.influence(G + 0.1 * cs.identity(G), [TEST], tol=1e-10)
    torch.testing.assert_close(plain.scores, shifted.scores, rtol=1e-6, atol=1e-12)
    gradient = cs.Objective(model, nn.CrossEntropyLoss(), [TEST]).gradient()
    torch.testing.assert_close(cs.influence(G, gradient, damping=0.1, tol=1e-10).scores, plain.scores, rtol=1e-6, atol=1e-12)
    part = cs.influence(G, [TEST], [(X[:5], Y[:5])], damping=0.1, tol=1e-10)
    torch.testing.assert_close(part.scores, plain.scores[:5], rtol=1e-6, atol=1e-12)
    assert cs.influence(G, torch.stack([gradient, 2 * gradient], dim=1), damping=0.1).scores.shape == (2, 40)
    deflated = cs.influence(G, [TEST], damping=0.1, tol=1e-10, deflate=cs.eigsh(G, 5))
    torch.testing.assert_close(deflated.scores, plain.scores, rtol=1e-6, atol=1e-12)


def test_what_has_no_samples_is_refused():
    with pytest.raises(InvalidType, match="of no loss"):
        cs.influence(torch.eye(3), [TEST])
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).double()
    H = cs.hessian(model, nn.CrossEntropyLoss(), [(X, Y)], batchnorm="batch")
    with pytest.raises(InvalidArgument, match="depends on the others"):
        cs.influence(H, [TEST], damping=1.0)
    G = cs.ggn(nn.Linear(3, 3).double(), nn.CrossEntropyLoss(), [(X, Y)])
    with pytest.raises(InvalidArgument, match="test gradients"):
        cs.influence(G, torch.ones(5), damping=1.0)
    with pytest.raises(InvalidType, match="test is a str"):
        cs.influence(G, "test", damping=1.0)
