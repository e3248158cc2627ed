"""Derivatives are verified before the first number, by routes that do not share a mistake."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import curvscope as cs
from curvscope.errors import CapturedParameter, NotDeterministic, UnfitOperator, UnverifiedDerivatives
from curvscope.operators.objective import _substitution as substitution
from curvscope.operators.products import STRATEGIES, _routes as routes, _verification as verification
from curvscope.operators.products._suspects import wrong_operations
from curvscope.operators.rules import _mode as rules

from .cases import WrongForward

CE = nn.CrossEntropyLoss()


pytestmark = pytest.mark.usefixtures("double")


def data(samples=9, classes=3):
    return [(torch.randn(samples, 4), torch.randint(classes, (samples,)))]


def dense_hessian(model, batches, criterion=CE):
    """By PyTorch alone, on the user's own model: one row of double backward for each parameter."""
    own = [p for p in model.parameters() if p.requires_grad]
    total = sum(len(x) * criterion(model(x), y) for x, y in batches) / sum(len(x) for x, _ in batches)
    gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(total, own, create_graph=True, materialize_grads=True)])
    rows = [torch.autograd.grad(g, own, retain_graph=True, materialize_grads=True) for g in gradient]
    return torch.stack([torch.cat([piece.reshape(-1) for piece in row]) for row in rows])


def agree(found, expected, tolerance=1e-12):
    return float((found - expected).norm()) <= tolerance * float(expected.norm())


# --- weights reached by a second reference ---------------------------------------------------------------------------------


class InAList(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)
        self.weights = [self.a.weight, self.b.weight]

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.weights[0].T + self.a.bias) @ self.weights[1].T + self.b.bias


class InAClosure(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)
        weight = self.a.weight
        self.first = lambda x: x @ weight.T

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.tanh(self.first(x) + self.a.bias))


class InAView(nn.Module):
    """Fused weights, of which views are made once."""

    def __init__(self) -> None:
        super().__init__()
        self.fused = nn.Parameter(torch.randn(9, 4) / 2)
        self.a, self.b = self.fused[:6], self.fused[6:]

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.a.T)[:, :4] @ self.b.T


class InPart(nn.Module):
    """One of two uses of a weight is by another reference: its rows are wrong, not zero."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 3)
        self.__dict__["again"] = self.a

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.tanh(self.a(x) @ self.__dict__["held"].T))


def in_part():
    model = InPart()
    model.__dict__["held"] = model.a.weight
    return model


CAPTURED = {"list": InAList, "closure": InAClosure, "view": InAView, "in part": in_part}


@pytest.mark.parametrize("name", CAPTURED)
@pytest.mark.parametrize("strategy", ["auto", "split", "double_backward"])
def test_captured_weights_count(name, strategy):
    model, batches = CAPTURED[name](), data()
    expected = dense_hessian(model, batches)
    H = cs.hessian(model, CE, batches, strategy=strategy)
    assert agree(H @ torch.eye(H.shape[0]), expected)
    assert "second reference" in H.strategy_report["derivatives"] or H.strategy_report["verdict"]["in_place"]
    own = torch.autograd.grad(CE(model(batches[0][0]), batches[0][1]), list(model.parameters()))
    assert agree(H.gradient(), torch.cat([g.reshape(-1) for g in own]))


@pytest.mark.parametrize("name", CAPTURED)
def test_captured_weights_of_an_operator_that_the_model_left_behind(name):
    model, batches = CAPTURED[name](), data()
    expected = dense_hessian(model, batches)
    H = cs.hessian(model, CE, batches)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1.5)
    trained = [p.clone() for p in model.parameters()]
    assert agree(H @ torch.eye(H.shape[0]), expected)
    assert all(torch.equal(p, before) for p, before in zip(model.parameters(), trained, strict=True))
    H.move()
    assert agree(H @ torch.eye(H.shape[0]), dense_hessian(model, batches))


@pytest.mark.parametrize("make", [cs.ggn, cs.empirical_fisher, cs.monte_carlo_fisher])
def test_other_matrices_of_captured_weights(make):
    class Registered(InAList):
        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.tanh(self.a(x)))

    model, batches = InAList(), data()
    plain = Registered()
    plain.load_state_dict(model.state_dict())
    block = torch.randn(sum(p.numel() for p in model.parameters()), 3)
    assert agree(make(model, CE, batches) @ block, make(plain, CE, batches) @ block)


def test_solvers_and_estimators_of_captured_weights():
    model, batches = InAList(), data()
    dense = dense_hessian(model, batches)
    largest = torch.linalg.eigvalsh(dense)
    largest = largest[largest.abs().argsort(descending=True)]
    H = cs.hessian(model, CE, batches)
    assert torch.allclose(cs.eigsh(H, k=2).eigenvalues, largest[:2], rtol=1e-6)
    assert cs.trace(cs.hessian(model, CE, batches), max_products=100).value == pytest.approx(float(dense.trace()))


def test_a_copy_that_does_not_follow_is_refused_by_name():
    class Copied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 3)
            self.scaled = self.a.weight * 2

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(nn.functional.linear(x, self.scaled, self.a.bias))

    model, batches = Copied(), data()
    H = cs.hessian(model, CE, batches)
    with torch.no_grad():
        model.a.weight.mul_(1.5)
    with pytest.raises((UnfitOperator, RuntimeError)):  # the copy's graph is freed by the first gradient: never zero rows
        H @ torch.eye(H.shape[0])


def test_a_penalty_through_the_closure_of_a_loss_counts():
    model, batches = nn.Sequential(nn.Linear(4, 3)), data()

    def loss(model_, batch):
        return CE(model_(batch[0]), batch[1]) + captured.square().sum()

    captured = model[0].weight
    plain = cs.hessian(model, lambda model, batch: CE(model(batch[0]), batch[1]), batches)
    H = cs.hessian(model, lambda model, batch: loss(model, batch), batches)
    shift = torch.cat([2 * torch.ones(12), torch.zeros(3)])
    assert agree(H @ torch.eye(15), plain @ torch.eye(15) + torch.diag(shift))


def test_live_parameters_keep_their_bits_hooks_and_gradients():
    model, batches = InAList(), data()
    model.a.weight.register_hook(lambda gradient: gradient.zero_())
    model.b.bias.requires_grad_(False)
    model.a.weight.grad = torch.ones_like(model.a.weight)
    before = {name: p.clone() for name, p in model.named_parameters()}
    H = cs.hessian(model, CE, batches, dtype=torch.float64)
    H @ torch.ones(H.shape[0])
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert model.a.weight._backward_hooks
    assert not model.b.bias.requires_grad
    assert torch.equal(model.a.weight.grad, torch.ones_like(model.a.weight))


# --- what reverse mode holds constant -----------------------------------------------------------------------------------------


class NoGrad(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)

    def scale(self) -> Tensor:
        with torch.no_grad():
            return self.a.weight.abs().max()

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.tanh(nn.functional.linear(x, self.a.weight / self.scale(), self.a.bias)))


class Data(NoGrad):
    def scale(self) -> Tensor:
        return self.a.weight.data.norm()


class Detached(NoGrad):
    def scale(self) -> Tensor:
        return self.a.weight.square().sum().detach().sqrt()


class Decorated(NoGrad):
    @torch.no_grad()
    def scale(self) -> Tensor:
        total = torch.zeros(())
        for row in self.a.weight:
            total.add_(row.abs().sum())
        return total


class Target(NoGrad):
    """A target of the model's own, as in BYOL and Q-learning: nested, with gradients switched on inside and off again."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.a(x))
        with torch.no_grad():
            target = self.b(hidden)
            with torch.enable_grad():
                inner = self.b(hidden)
            target = target + inner
        return self.b(hidden) - target.square() + inner


@pytest.mark.parametrize("make", [NoGrad, Data, Detached, Decorated, Target])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_constants_of_reverse_mode_are_constants_of_every_strategy(make, strategy):
    model, batches = make(), data()
    H = cs.hessian(model, CE, batches, strategy=strategy)
    assert agree(H @ torch.eye(H.shape[0]), dense_hessian(model, batches))
    assert H.strategy_report["strategy"] == strategy  # none is refused for it


def test_constants_of_reverse_mode_in_a_ggn():
    model, batches = NoGrad(), data()
    block = torch.randn(sum(p.numel() for p in model.parameters()), 2)
    found = [cs.ggn(model, CE, batches, strategy=name) @ block for name in ("split", "split_vmap", "double_backward")]
    assert agree(found[0], found[2])
    assert agree(found[1], found[2])


def test_custom_functions_are_no_constants_of_differences():
    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            context.save_for_backward(x)
            return x * x * x

        @staticmethod
        def backward(context, gradient):
            (x,) = context.saved_tensors
            return 3 * x * x * gradient

    class Model(NoGrad):
        def forward(self, x: Tensor) -> Tensor:
            return self.b(Cube.apply(self.a(x)))

    model, batches = Model(), data()
    H = cs.hessian(model, CE, batches)
    assert agree(H @ torch.eye(H.shape[0]), dense_hessian(model, batches))


# --- noise ------------------------------------------------------------------------------------------------------------------


class Noisy(nn.Module):
    def __init__(self, draw=torch.randn_like) -> None:
        super().__init__()
        self.a, self.b, self.draw = nn.Linear(4, 6), nn.Linear(6, 3), draw

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.a(x))
        return self.b(hidden + 0.3 * self.draw(hidden))


def own_generator():
    generator = torch.Generator()
    return lambda like: torch.randn(like.shape, generator=generator)


FUNCTIONS = {
    "product": lambda H: H @ torch.ones(H.shape[0]),
    "eigsh": lambda H: cs.eigsh(H, k=1),
    "eigsh without preflight": lambda H: cs.eigsh(H, k=1, preflight=False),
    "trace": lambda H: cs.trace(H, max_products=60),
    "density": lambda H: cs.density(H, num_probes=2, num_steps=5),
    "diagonal": lambda H: cs.diagonal(H),
    "frobenius_norm": lambda H: cs.frobenius_norm(H),
    "spectral_norm": lambda H: cs.spectral_norm(H),
    "seigh": lambda H: cs.seigh(H, num_outer=5, num_inner=10),
    "gradient": lambda H: H.gradient(),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_noise_is_refused_by_name_everywhere(name):
    with pytest.raises(NotDeterministic, match="noise=0"):
        FUNCTIONS[name](cs.hessian(Noisy(), CE, data()))


@pytest.mark.parametrize("draw", [own_generator(), lambda like: torch.nn.functional.dropout(torch.ones_like(like), 0.5)])
def test_other_sources_of_noise_are_refused(draw):
    with pytest.raises(NotDeterministic):
        cs.hessian(Noisy(draw), CE, data()) @ torch.ones(51)


def test_noise_with_a_seed_is_one_fixed_matrix():
    model, batches = Noisy(), data()
    values = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        values.append(cs.trace(cs.hessian(model, CE, batches, noise=3), max_products=60).value)
    assert values[0] == values[1]
    torch.manual_seed(3)
    assert values[0] == pytest.approx(float(dense_hessian(model, batches).trace()))
    first, other = (cs.hessian(model, CE, batches, noise=seed) for seed in (3, 4))
    assert first.fingerprint != other.fingerprint
    assert cs.eigsh(first, k=1).status.code == "converged"


def test_noise_without_effect_is_none():
    class Draws(NoGrad):
        def forward(self, x: Tensor) -> Tensor:
            torch.rand(())  # as wav2vec2 does for its layer drop, in evaluation mode too
            return super().forward(x)

    model, batches = Draws(), data()
    H = cs.hessian(model, CE, batches)
    assert agree(H @ torch.eye(H.shape[0]), dense_hessian(model, batches))


# --- two routes ---------------------------------------------------------------------------------------------------------------


class Wrong(torch.autograd.Function):
    """x^2, with a backward that forgets that it depends on x."""

    @staticmethod
    def forward(context, x):
        context.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(context, gradient):
        return 2 * context.saved_tensors[0].detach() * gradient


class Through(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.a, self.b, self.function = nn.Linear(4, 6), nn.Linear(6, 3), function

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.function(self.a(x)))


@pytest.mark.parametrize("strategy", ["auto", "split", "double_backward"])
def test_wrong_derivatives_are_refused(strategy):
    with pytest.raises(UnverifiedDerivatives, match="the custom autograd function Wrong, whose backward"):
        cs.hessian(Through(Wrong.apply), CE, data(), strategy=strategy) @ torch.ones(51)


@torch.library.custom_op("test_verification::square", mutates_args=())
def square(x: Tensor) -> Tensor:
    """x^2, with a gradient that hides what it depends on, as kernels of one's own often have."""
    return x * x


square.register_fake(torch.empty_like)
square.register_autograd(
    lambda ctx, gradient: 2 * ctx.saved_tensors[0].detach() * gradient,
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(inputs[0]),
)


class Smooth(Through):
    def forward(self, x: Tensor) -> Tensor:
        return functional.layer_norm(self.b(self.function(torch.tanh(self.a(x)))), (3,))


def test_an_operation_with_wrong_derivatives_is_named():
    with pytest.raises(UnverifiedDerivatives, match=r"because of test_verification\.square, whose derivatives are wrong"):
        cs.hessian(Smooth(square), CE, data()) @ torch.ones(51)


def product_of_groups(x: Tensor) -> Tensor:
    """Products of pairs of columns: PyTorch's rule for them is wrong in forward mode (2.9 to 2.14 at least)."""
    groups = torch.arange(6).div(2, rounding_mode="floor").expand_as(x)
    return functional.pad(torch.zeros_like(x[:, :3]).scatter_reduce(1, groups, x, "prod", include_self=False), (0, 3))


@pytest.mark.parametrize("make", [cs.hessian, cs.ggn])
def test_an_operation_with_a_wrong_forward_rule_is_named(make, monkeypatch):
    for name in (torch.scatter_reduce, Tensor.scatter_reduce):
        monkeypatch.delitem(rules.RULES, name)
    H = make(Smooth(product_of_groups), CE, data(), strategy="split")
    H @ torch.eye(51)
    assert "PyTorch's rule for torch.Tensor.scatter_reduce is wrong in forward mode" in H.strategy_report["derivatives"]


def test_right_operations_are_not_suspected():
    x, weight = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), torch.ones(4, 3, requires_grad=True)

    def evaluate() -> None:
        y = functional.layer_norm(x @ weight, (3,))
        y = functional.relu(y) + torch.tanh_(x @ weight) + (y[:, [0, 0, 1]].cumsum(0) * weight.norm()).softmax(1)
        functional.cross_entropy(y, torch.zeros(5, dtype=torch.long), label_smoothing=0.1) + functional.dropout(y).sum()

    for forward in (True, False):
        assert wrong_operations(evaluate, forward=forward) == []


@pytest.mark.parametrize("name", ["trace", "density", "diagonal", "frobenius_norm", "seigh", "eigsh without preflight"])
def test_wrong_derivatives_are_refused_everywhere(name):
    with pytest.raises(UnverifiedDerivatives):
        FUNCTIONS[name](cs.hessian(Through(Wrong.apply), CE, data()))


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != "double_backward"])
@pytest.mark.parametrize("make", [cs.hessian, cs.ggn])
def test_a_wrong_forward_rule_is_not_used(strategy, make):
    model, batches = Through(WrongForward.apply), data()
    plain = Through(torch.square)
    plain.load_state_dict(model.state_dict())
    G = make(model, CE, batches, strategy=strategy)
    block = torch.eye(G.shape[0])
    assert agree(G @ block, make(plain, CE, batches) @ block)
    assert G.strategy_report["strategy"] == "double_backward"
    assert "forward over reverse is off by" in G.strategy_report["derivatives"]


def test_the_answer_does_not_change_when_products_are_traced():
    model, batches = Through(WrongForward.apply), data()
    H = cs.hessian(model, CE, batches)
    v = torch.randn(H.shape[0])
    first = H @ v
    with cs.execution.long_work():
        assert agree(H @ v, first)


def test_a_wrong_double_backward_is_not_used():
    class WrongTwice(WrongForward):
        """Right in forward mode over reverse; differentiated in reverse it is not."""

        @staticmethod
        def backward(context, gradient):
            return Slope.apply(context.saved_tensors[0], gradient)

        @staticmethod
        def jvp(context, tangent):
            return 2 * context.saved_tensors[0] * tangent

    class Slope(WrongForward):
        @staticmethod
        def forward(x, gradient):
            return 2 * x * gradient

        @staticmethod
        def backward(context, gradient):
            x, outer = context.saved_tensors
            return 2.5 * outer * gradient, 2 * x * gradient

        @staticmethod
        def jvp(context, x_tangent, gradient_tangent):
            x, outer = context.saved_tensors
            return 2 * (x_tangent * outer + x * gradient_tangent)

    model, batches = Through(WrongTwice.apply), data()
    plain = Through(torch.square)
    plain.load_state_dict(model.state_dict())
    for strategy in ("auto", "double_backward"):
        H = cs.hessian(model, CE, batches, strategy=strategy)
        assert agree(H @ torch.eye(H.shape[0]), dense_hessian(plain, batches))
        assert "reverse over reverse is off by" in H.strategy_report["derivatives"]


class Stiff(nn.Module):
    """An ill-conditioned loss: products lose ten digits, in every route."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.a(x)
        return ((hidden + 1e5) ** 2 - 1e10 - 2e5 * hidden)[:, :3] * hidden[:, 3:]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_an_ill_conditioned_loss_is_not_refused(dtype):
    H = cs.hessian(Stiff(), CE, data(), dtype=torch.float64)
    expected = dense_hessian(H.objective.model, H.objective.data)
    assert agree(H @ torch.eye(30), expected, 1e-4)
    assert cs.preflight(H, short=True).passed, str(cs.preflight(H, short=True))
    assert cs.eigsh(H, k=1).eigenvalues[0] == pytest.approx(float(torch.linalg.eigvalsh(expected).abs().max()), rel=1e-3)


@pytest.mark.parametrize("net", ["relu", "pool"])
def test_kinks_are_told_from_wrong_derivatives(net):
    layers = {
        "relu": [nn.ReLU(), nn.Linear(64, 3)],
        "pool": [nn.Unflatten(1, (1, 64)), nn.MaxPool1d(4), nn.Flatten(), nn.Linear(16, 3)],
    }
    model = nn.Sequential(nn.Linear(4, 64), *layers[net]).float()
    found = cs.preflight(cs.hessian(model, CE, [(torch.randn(64, 4).float(), torch.randint(3, (64,)))]))
    assert found.passed, str(found)


def test_preflight_reports_what_products_verify():
    H = cs.hessian(NoGrad(), CE, data())
    check = next(check for check in cs.preflight(H).checks if check.name == "derivatives")
    assert check.passed
    assert check.cause == H.strategy_report["derivatives"]
    assert check.cause.startswith("verified by")


def test_preflight_does_not_raise():
    class Broken(NoGrad):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) != 9:
                raise KeyError("nine or nothing")
            return super().forward(x)

    assert isinstance(cs.preflight(cs.hessian(Broken(), CE, data())), cs.Preflight)
    for model in (Noisy(), Through(Wrong.apply)):
        found = cs.preflight(cs.hessian(model, CE, data()))
        assert not found.passed
        assert found.checks[0].remedy


# --- what it costs ------------------------------------------------------------------------------------------------------------


def test_a_verdict_is_remembered_across_strategies_precisions_and_moves(monkeypatch):
    runs = []
    original = verification._Check.run
    monkeypatch.setattr(verification._Check, "run", lambda self, **how: runs.append(how) or original(self, **how))
    model, batches = NoGrad(), data()
    H = cs.hessian(model, CE, batches, strategy="split")
    v = torch.ones(H.shape[0])
    H @ v
    assert len(runs) == 1
    for strategy in STRATEGIES:
        cs.hessian(model, CE, batches, strategy=strategy) @ v
    H.in_dtype(torch.float32) @ v.float()
    H.move()
    H @ v
    assert len(runs) == 1
    cs.ggn(model, CE, batches, strategy="split") @ v
    assert len(runs) == 2


def test_a_report_carries_the_verdict_to_workers_and_runs(monkeypatch):
    model, batches = NoGrad(), data()
    H = cs.hessian(model, CE, batches, strategy="split")
    v = torch.ones(H.shape[0])
    product = H @ v
    other = cs.hessian(model, CE, batches)
    other.replay(H.strategy_report)
    monkeypatch.setattr(verification._Check, "run", lambda self, **how: pytest.fail("verified again"))
    torch.testing.assert_close(other @ v, product)
    assert other.strategy_report["derivatives"] == H.strategy_report["derivatives"]


def test_losses_of_the_same_name_are_not_taken_for_each_other():
    model, batches = Through(torch.square), data()
    right = lambda model, batch: CE(model(batch[0]), batch[1])  # noqa: E731
    wrong = lambda model, batch: CE(Wrong.apply(model(batch[0])), batch[1])  # noqa: E731
    cs.hessian(model, right, batches) @ torch.ones(51)
    with pytest.raises(UnverifiedDerivatives):
        cs.hessian(model, wrong, batches) @ torch.ones(51)


# --- parts --------------------------------------------------------------------------------------------------------------------


def test_few_samples_come_from_all_over_the_batch():
    seen = []
    model, batches = NoGrad(), [(torch.arange(36.0).view(9, 4), torch.randint(3, (9,)))]
    H = cs.hessian(model, CE, batches)
    with H.objective.isolated():
        batch, _ = next(H.objective.batches())
        seen = H.objective.few_samples(batch)[0][:, 0].tolist()
    assert seen == [0.0, 12.0, 20.0, 32.0]


def test_values_in_model_restores_after_an_error():
    model = InAList()
    before = [p.clone() for p in model.parameters()]
    values = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    with pytest.raises(ZeroDivisionError), substitution.values_in_model(model, values, ["a.weight"]) as chosen:  # noqa: PT012
        assert chosen[0] is model.a.weight
        assert float(model.weights[0].detach().abs().sum()) == 0
        raise ZeroDivisionError
    assert all(torch.equal(p, kept) for p, kept in zip(model.parameters(), before, strict=True))


def test_asymmetry_sees_what_differences_do_not():
    x, y = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    skew = torch.tensor([[1.0, 1.0], [-1.0, 1.0]])
    assert routes.asymmetry([skew @ x, skew @ y], [x, y]) > 0.5
    assert routes.asymmetry([x, y], [x, y]) == 0


def test_unfit_operators_are_one_family():
    assert issubclass(UnverifiedDerivatives, UnfitOperator)
    assert issubclass(CapturedParameter, UnfitOperator)
    assert issubclass(NotDeterministic, UnfitOperator)
