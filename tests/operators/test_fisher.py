"""Fisher matrices and gradient moments against gradients of single samples."""

import pytest
import torch
from torch import nn

from curvscope.errors import InvalidArgument
from curvscope.operators import empirical_fisher, ggn, gradient_second_moment, monte_carlo_fisher


def problem(criterion: nn.Module, samples: int = 6) -> tuple:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3)).double()
    x = torch.randn(samples, 3, dtype=torch.float64)
    y = torch.rand(samples, 3, dtype=torch.float64)
    if isinstance(criterion, nn.CrossEntropyLoss):
        y = torch.randint(0, 3, (samples,))
        y[2] = -100
    return model, x, y


def sample_gradients(model: nn.Module, criterion: nn.Module, x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
    rows = []
    for i in range(len(x)):
        if y.is_floating_point() or y[i] != -100:
            loss = criterion(model(x[i : i + 1]), y[i : i + 1])
            rows.append(torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(model.parameters()))]))
    return rows


@pytest.mark.parametrize("criterion", [nn.CrossEntropyLoss(), nn.MSELoss(), nn.BCEWithLogitsLoss()], ids=str)
@pytest.mark.parametrize("strategy", ["auto", "double_backward"])
def test_empirical_fisher_is_the_mean_outer_product(criterion, strategy):
    model, x, y = problem(criterion)
    rows = torch.stack(sample_gradients(model, criterion, x, y))
    F = empirical_fisher(model, criterion, [(x[:4], y[:4]), (x[4:], y[4:])], strategy=strategy)
    found = F @ torch.eye(F.shape[0], dtype=torch.float64)
    # A sample's negative log-likelihood is the sum of its terms, of which the mean loss has that many.
    terms = 1 if isinstance(criterion, nn.CrossEntropyLoss) else y.shape[1]
    torch.testing.assert_close(found, terms * rows.T @ rows / len(rows), rtol=1e-10, atol=1e-12)


def test_empirical_fisher_of_a_sum():
    criterion = nn.CrossEntropyLoss(reduction="sum")
    model, x, y = problem(criterion)
    rows = torch.stack(sample_gradients(model, criterion, x, y))
    F = empirical_fisher(model, criterion, [(x, y)])
    torch.testing.assert_close(F @ torch.eye(F.shape[0], dtype=torch.float64), rows.T @ rows, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("criterion", [nn.CrossEntropyLoss(), nn.MSELoss(), nn.BCEWithLogitsLoss()], ids=str)
def test_monte_carlo_fisher_tends_to_the_ggn(criterion):
    model, x, y = problem(criterion)
    if isinstance(criterion, nn.CrossEntropyLoss):
        y = y.clamp(min=0)
    G = ggn(model, criterion, [(x, y)])
    exact = G @ torch.eye(G.shape[0], dtype=torch.float64)
    errors = []
    for draws in (20, 2000):
        F = monte_carlo_fisher(model, criterion, [(x[:3], y[:3]), (x[3:], y[3:])], num_draws=draws, seed=2)
        found = F @ torch.eye(F.shape[0], dtype=torch.float64)
        errors.append(float((found - exact).norm() / exact.norm()))
    # Seeded: 1 / sqrt(6 * draws) with a factor for the spread of one draw.
    assert errors[1] < 0.05
    assert errors[1] < errors[0] / 3


def test_monte_carlo_fisher_is_one_matrix_for_a_seed():
    criterion = nn.CrossEntropyLoss()
    model, x, y = problem(criterion)
    x_probe = torch.ones(24, dtype=torch.float64)
    first, again, other = (monte_carlo_fisher(model, criterion, [(x, y)], seed=s) @ x_probe for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    with pytest.raises(InvalidArgument, match="L1Loss"):
        monte_carlo_fisher(model, nn.L1Loss(), [(x, x)])
    with pytest.raises(InvalidArgument, match="num_draws=0"):
        monte_carlo_fisher(model, criterion, [(x, y)], num_draws=0)


@pytest.mark.parametrize("criterion", [nn.CrossEntropyLoss(), nn.MSELoss(), nn.BCEWithLogitsLoss()], ids=str)
def test_monte_carlo_draws_belong_to_samples_not_to_batches(criterion):
    model, x, y = problem(criterion, samples=9)
    probes = torch.eye(24, dtype=torch.float64)
    whole = monte_carlo_fisher(model, criterion, [(x, y)], num_draws=3) @ probes
    for sizes in ([2, 1, 6], [3, 3, 3], [8, 1]):
        parts = list(zip(x.split(sizes), y.split(sizes), strict=True))
        torch.testing.assert_close(
            monte_carlo_fisher(model, criterion, parts, num_draws=3) @ probes, whole, rtol=1e-10, atol=1e-12
        )
    pieces = monte_carlo_fisher(model, criterion, [(x, y)], num_draws=3, microbatch=2) @ probes
    torch.testing.assert_close(pieces, whole, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "criterion",
    [nn.MSELoss(), lambda output, target: nn.functional.mse_loss(output, target), nn.PoissonNLLLoss()],
    ids=["module", "function", "Poisson"],
)
def test_empirical_fisher_of_any_mean_over_the_outputs_of_a_sample(criterion):
    torch.manual_seed(0)
    model, x, y = nn.Linear(4, 3).double(), torch.randn(5, 4, dtype=torch.float64), torch.rand(5, 3, dtype=torch.float64)
    found = empirical_fisher(model, criterion, [(x[:3], y[:3]), (x[3:], y[3:])]) @ torch.eye(15, dtype=torch.float64)
    gradients = []
    for i in range(5):
        parts = torch.autograd.grad(criterion(model(x[i : i + 1]), y[i : i + 1]), list(model.parameters()))
        gradients.append(torch.cat([part.flatten() for part in parts]))
    terms = 3 if isinstance(criterion, nn.Module) else 1  # of a label; a function does not say that it averages over them
    torch.testing.assert_close(found, terms * sum(g.outer(g) for g in gradients) / 5)


@pytest.mark.parametrize("kind", [nn.MSELoss, nn.BCEWithLogitsLoss])
def test_monte_carlo_fisher_of_a_sum_is_as_many_times_that_of_the_mean(kind):
    model, x, y = problem(kind())
    probes, entries = torch.eye(24, dtype=torch.float64), y.numel()
    mean, total = (monte_carlo_fisher(model, kind(reduction=how), [(x, y)], num_draws=2) @ probes for how in ("mean", "sum"))
    torch.testing.assert_close(total, entries * mean)


def test_monte_carlo_fisher_leaves_ignored_labels_out():
    criterion = nn.CrossEntropyLoss()
    model, x, y = problem(criterion)
    counted = y != -100
    probes = torch.eye(24, dtype=torch.float64)
    found = monte_carlo_fisher(model, criterion, [(x, y)]) @ probes
    torch.testing.assert_close(found, monte_carlo_fisher(model, criterion, [(x[counted], y[counted])]) @ probes)
    with pytest.raises(InvalidArgument, match="label_smoothing"):
        monte_carlo_fisher(model, nn.CrossEntropyLoss(label_smoothing=0.1), [(x, y)])


@pytest.mark.parametrize("centered", [False, True])
def test_gradient_second_moment(centered):
    criterion = nn.MSELoss()
    model, x, y = problem(criterion)
    M = gradient_second_moment(model, criterion, [(x[:4], y[:4]), (x[4:], y[4:])], centered=centered)
    slopes = []
    for part in (slice(0, 4), slice(4, 6)):
        gradients = torch.autograd.grad(criterion(model(x[part]), y[part]), list(model.parameters()))
        slopes.append(torch.cat([g.reshape(-1) for g in gradients]))
    expected = 2 / 3 * torch.outer(slopes[0], slopes[0]) + 1 / 3 * torch.outer(slopes[1], slopes[1])
    if centered:
        mean = 2 / 3 * slopes[0] + 1 / 3 * slopes[1]
        expected -= torch.outer(mean, mean)
    torch.testing.assert_close(M @ torch.eye(M.shape[0], dtype=torch.float64), expected, rtol=1e-10, atol=1e-13)


class Shaped(nn.Module):
    """An output of any shape: (N, *shape), affine in the parameters and then bent."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.shape, self.layer = shape, nn.Linear(2, int(torch.tensor(shape).prod())).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x).tanh().view(len(x), *self.shape) * 2


def jacobian(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """(outputs, D) by one backward pass an output."""
    rows = [torch.autograd.grad(entry, list(model.parameters()), retain_graph=True) for entry in model(x).flatten()]
    return torch.stack([torch.cat([g.reshape(-1) for g in row]) for row in rows])


def drawn_labels(criterion: nn.Module, output: torch.Tensor) -> torch.Tensor:
    if isinstance(criterion, nn.CrossEntropyLoss):
        return torch.distributions.Categorical(logits=output.movedim(1, -1)).sample()
    if isinstance(criterion, nn.MSELoss):
        return output + 0.5**0.5 * torch.randn_like(output)
    return torch.bernoulli(output.sigmoid())


SHAPES = [(nn.CrossEntropyLoss, (3,)), (nn.CrossEntropyLoss, (3, 4)), (nn.CrossEntropyLoss, (3, 2, 2))]
SHAPES += [(kind, shape) for kind in (nn.MSELoss, nn.BCEWithLogitsLoss) for shape in ((), (3,), (4, 3))]


PLAIN = {"strategy": "double_backward"}  # nothing is traced


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(("kind", "shape"), SHAPES)
def test_fisher_matrices_have_one_scale_and_one_grouping(kind, shape, reduction):
    """Scores of single labels, gathered by hand: one label is what shares all axes but that of the classes or outputs."""
    torch.manual_seed(3)
    criterion, model, x = kind(reduction=reduction), Shaped(*shape), torch.randn(5, 2, dtype=torch.float64)
    with torch.no_grad():
        output = model(x)
        y = drawn_labels(criterion, output)
    logits = output.clone().requires_grad_()
    (score,) = torch.autograd.grad(kind(reduction="sum")(logits, y), logits)
    axis = 1 if kind is nn.CrossEntropyLoss else output.ndim - 1
    labels = torch.arange(output.numel()).view(output.shape).movedim(axis, -1) if shape else torch.arange(5)[:, None]
    rows = score.flatten()[:, None] * jacobian(model, x)
    g = torch.stack([rows[label].sum(0) for label in labels.reshape(-1, labels.shape[-1])])
    terms = (len(g) if kind is nn.CrossEntropyLoss else output.numel()) if reduction == "mean" else 1
    eye = torch.eye(rows.shape[1], dtype=torch.float64)
    F = empirical_fisher(model, criterion, [(x[:3], y[:3]), (x[3:], y[3:])], **PLAIN) @ eye
    torch.testing.assert_close(F, g.T @ g / terms, rtol=1e-9, atol=1e-12)
    # the draws' mean is the GGN, in scale and in grouping
    G = ggn(model, criterion, [(x, y)], **PLAIN) @ eye
    M = monte_carlo_fisher(model, criterion, [(x[:2], y[:2]), (x[2:], y[2:])], num_draws=60, **PLAIN) @ eye
    assert float((M.trace() - G.trace()).abs() / G.trace()) < 0.3  # a wrong factor would be 2 or more


@pytest.mark.parametrize("kind", [nn.CrossEntropyLoss, nn.MSELoss, nn.BCEWithLogitsLoss])
def test_labels_drawn_from_the_model_give_equal_traces(kind):
    """Many labels for one small data set: the empirical Fisher then is a Monte-Carlo one."""
    torch.manual_seed(5)
    criterion, model, x = kind(), Shaped(4), torch.randn(3, 2, dtype=torch.float64).repeat(2000, 1)
    with torch.no_grad():
        y = drawn_labels(criterion, model(x))
    eye = torch.eye(12, dtype=torch.float64)
    G, F = ggn(model, criterion, [(x, y)], **PLAIN) @ eye, empirical_fisher(model, criterion, [(x, y)], **PLAIN) @ eye
    assert float((F.trace() - G.trace()).abs() / G.trace()) < 0.04
    assert float((F - G).norm() / G.norm()) < 0.1


def test_criteria_of_ones_own_have_the_scale_of_their_weights():
    torch.manual_seed(0)
    model, x, y = Shaped(3), torch.randn(4, 2, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    probe, data = torch.randn(9, dtype=torch.float64), [(x, y)]

    def own(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (output - target).square().mean()

    expected = empirical_fisher(model, nn.MSELoss(), data, **PLAIN) @ probe
    torch.testing.assert_close(empirical_fisher(model, own, data, **PLAIN) @ probe, expected / 3)
    torch.testing.assert_close(
        empirical_fisher(model, own, data, weight=lambda batch: batch[1].numel(), **PLAIN) @ probe, expected
    )


@pytest.mark.parametrize("shape", [(3,), (3, 4)])
@pytest.mark.parametrize("kind", [nn.CrossEntropyLoss, nn.MSELoss, nn.BCEWithLogitsLoss])
def test_scales_are_those_of_curvlinops(kind, shape):
    curvlinops = pytest.importorskip("curvlinops")
    torch.manual_seed(1)
    model, x = Shaped(*shape), torch.randn(6, 2, dtype=torch.float64)
    with torch.no_grad():
        y = drawn_labels(kind(), model(x))
    data, params, eye = [(x, y)], list(model.parameters()), torch.eye(sum(p.numel() for p in model.parameters())).double()
    theirs = curvlinops.EFLinearOperator(model, kind(), params, data, check_deterministic=False) @ eye
    torch.testing.assert_close(empirical_fisher(model, kind(), data, **PLAIN) @ eye, theirs, rtol=1e-9, atol=1e-12)
    theirs = curvlinops.GGNLinearOperator(model, kind(), params, data, check_deterministic=False) @ eye
    torch.testing.assert_close(ggn(model, kind(), data, **PLAIN) @ eye, theirs, rtol=1e-9, atol=1e-12)
