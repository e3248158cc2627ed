"""The tracer's rewriting keeps the map, shortens chains, and refuses what it cannot replay."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from curvscope.operators.products.tracing import NotRecordable, OtherBranch, _kernels as kernels, trace


def run(function, inputs, tangents, width=None):
    program = trace(function, inputs, tangents, width).program
    return program, program.products(program.residuals(inputs), tangents)


def test_chains_of_elementwise_operations_become_one_product():
    a, t = torch.rand(5, dtype=torch.float64) + 0.5, torch.randn(5, dtype=torch.float64)
    program, (found,) = run(lambda inputs, tangents: [-(tangents[0] * inputs[0] / 3 + 2 * tangents[0]) * inputs[0]], [a], [t])
    torch.testing.assert_close(found, -(t * a / 3 + 2 * t) * a)
    assert program.num_calls == 1


def test_differences_keep_their_signs():
    a, s, t = (torch.rand(5, dtype=torch.float64) + 0.5 for _ in range(3))

    def function(inputs: tuple, tangents: tuple) -> list[Tensor]:
        return [(tangents[0] - torch.sub(tangents[1], tangents[0], alpha=3) * inputs[0]) / inputs[0] - tangents[1]]

    _, (found,) = run(function, [a], [s, t])
    torch.testing.assert_close(found, function((a,), (s, t))[0])


def test_what_is_read_twice_is_not_overwritten():
    a, t = torch.randn(4, 4, dtype=torch.float64), torch.randn(4, 4, dtype=torch.float64)

    def linear(inputs: tuple, tangents: tuple) -> list[Tensor]:
        product = tangents[0] @ inputs[0]
        return [product * inputs[0], product @ inputs[0], product * 2]

    _, found = run(linear, [a], [t])
    for piece, expected in zip(found, linear((a,), (t,)), strict=True):
        torch.testing.assert_close(piece, expected)


def test_sums_of_matrix_products_accumulate_in_place():
    a, b, s, t = (torch.randn(4, 4, dtype=torch.float64) for _ in range(4))
    program, (found,) = run(lambda p, q: [p[0] @ q[0] + q[1] @ p[1]], [a, b], [s, t])
    torch.testing.assert_close(found, a @ s + t @ b)
    assert program.num_calls == 2


def test_tangents_and_residuals_are_never_written_to():
    a, t = torch.randn(4, 4, dtype=torch.float64), torch.randn(4, 4, dtype=torch.float64)
    kept = a.clone(), t.clone()
    program = trace(lambda p, q: [(q[0] * p[0] + q[0]) @ p[0] + q[0] * 2], [a], [t], None).program
    residuals = program.residuals([a])
    before = [r.clone() for r in residuals]
    first, second = (program.products(residuals, [t])[0] for _ in range(2))
    assert torch.equal(first, second)
    assert all(torch.equal(*pair) for pair in zip(before, residuals, strict=True))
    assert torch.equal(a, kept[0])
    assert torch.equal(t, kept[1])


def test_writes_to_views_are_followed():
    def function(inputs: tuple, tangents: tuple) -> list[Tensor]:
        scaled = tangents[0] * inputs[0]
        scaled[1:3].mul_(2)
        scaled.transpose_(0, 1)
        return [scaled]

    a, t = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    expected = function((a,), (t.clone(),))[0]
    torch.testing.assert_close(run(function, [a], [t])[1][0], expected)


def test_writes_reach_aliases_and_nothing_else_that_was_computed_alike():
    def function(inputs: tuple, tangents: tuple) -> list[Tensor]:
        first, second = tangents[0] * inputs[0], tangents[0] * inputs[0]
        first.detach().mul_(3)
        return [first, second, tangents[0] * inputs[0]]

    a, t = torch.randn(4, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    for piece, expected in zip(run(function, [a], [t])[1], (3 * a * t, a * t, a * t), strict=True):
        torch.testing.assert_close(piece, expected)


def test_a_write_looks_only_at_what_shares_its_memory(monkeypatch):
    looked_at, kept, steps = [], [], 50
    storage = Tensor.untyped_storage
    monkeypatch.setattr(Tensor, "untyped_storage", lambda tensor: looked_at.append(1) or storage(tensor))

    def function(inputs: tuple, tangents: tuple) -> list[Tensor]:
        value = tangents[0]
        for _ in range(steps):
            kept.append(value := (value * inputs[0]).mul_(2))
        return [value]

    a, t = torch.rand(4, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    torch.testing.assert_close(run(function, [a], [t])[1][0], t * (2 * a) ** steps)
    assert len(looked_at) <= 10 * steps


def test_values_that_scale_others_are_no_summands():
    def function(inputs: tuple, tangents: tuple) -> list[Tensor]:
        zero = tangents[0] * 0.0 * inputs[0]
        return [tangents[0] * inputs[0] + tangents[0] * zero, zero]

    a, t = torch.rand(4, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    torch.testing.assert_close(run(function, [a], [t])[1], (a * t, 0 * t))


def test_looking_at_values_is_remembered():
    def function(inputs: tuple, tangents: tuple) -> list[Tensor]:
        return [tangents[0] * (inputs[0] if bool(inputs[0].sum() > 0) else -1)]

    a = torch.ones(3, dtype=torch.float64)
    program = trace(function, [a], [torch.randn(3, dtype=torch.float64)], None).program
    program.residuals([2 * a])
    with pytest.raises(OtherBranch):
        program.residuals([-a])


@pytest.mark.parametrize(
    "function",
    [
        lambda inputs, tangents: [functional.dropout(tangents[0], 0.5)],
        lambda inputs, tangents: [tangents[0] if bool(tangents[0].sum() > 0) else 2 * tangents[0]],
    ],
    ids=["random", "looks at the vectors"],
)
def test_what_cannot_be_replayed_is_refused(function):
    a = torch.ones(3, dtype=torch.float64)
    with pytest.raises(NotRecordable):
        trace(function, [a], [a.clone()], None)


def test_second_derivatives_of_activations_are_short():
    layer = nn.Linear(3, 3).double()
    x = torch.randn(2, 3, dtype=torch.float64)

    def function(inputs: tuple, tangents: tuple) -> tuple[Tensor, ...]:
        gradient = torch.func.grad(lambda w: functional.gelu(x @ w).square().sum())
        return (torch.func.jvp(gradient, (inputs[0],), (tangents[0],))[1],)

    weight = layer.weight.detach()
    program, (found,) = run(function, [weight], [torch.ones_like(weight)])
    dense = torch.autograd.functional.hvp(lambda w: functional.gelu(x @ w).square().sum(), weight, torch.ones_like(weight))[1]
    torch.testing.assert_close(found, dense)
    # x @ tangent, times one coefficient, x' @ that.
    assert program.num_calls <= 5


@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_run_channels_last_and_give_the_same(monkeypatch, stride):
    monkeypatch.setattr(kernels, "onednn_multiplies_faster", lambda: torch.backends.mkldnn.is_available())
    torch.manual_seed(0)
    x, w, v = torch.randn(4, 3, 10, 10), torch.randn(8, 3, 3, 3), torch.randn(8, 8, 3, 3)

    def loss(w: Tensor, v: Tensor) -> Tensor:
        hidden = functional.max_pool2d(functional.conv2d(x, w, stride=stride).relu(), 2)
        return functional.conv2d(hidden, v, padding=1).tanh().square().sum()

    def function(inputs: tuple, tangents: tuple) -> tuple[Tensor, ...]:
        return torch.func.jvp(torch.func.grad(loss, argnums=(0, 1)), tuple(inputs), tuple(tangents))[1]

    tangents = [torch.randn_like(w), torch.randn_like(v)]
    program, found = run(function, [w, v], tangents)
    expected = torch.autograd.functional.hvp(loss, (w, v), tuple(tangents))[1]
    for piece, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(piece, reference, rtol=1e-4, atol=1e-4)
    targets = [node.target for node in program.tangent.graph.nodes]
    assert kernels.channels_last in targets
    assert torch.ops.aten.copy.default not in targets


def test_no_weight_gradient_is_computed_that_nobody_reads():
    torch.manual_seed(0)
    x, w, v = (torch.randn(*shape, dtype=torch.float64) for shape in ((2, 2, 6, 6), (3, 2, 3, 3), (3, 3, 3, 3)))

    def loss(w: Tensor, v: Tensor) -> Tensor:
        return functional.conv2d(functional.conv2d(x, w).tanh(), v).square().sum()

    def function(inputs: tuple, tangents: tuple) -> tuple[Tensor, ...]:
        return torch.func.jvp(torch.func.grad(loss, argnums=(0, 1)), tuple(inputs), tuple(tangents))[1]

    tangents = [torch.randn_like(w), torch.randn_like(v)]
    program, found = run(function, [w, v], tangents)
    for piece, reference in zip(found, torch.autograd.functional.hvp(loss, (w, v), tuple(tangents))[1], strict=True):
        torch.testing.assert_close(piece, reference)
    masks = {
        part: [n.args[10] for n in graph.graph.nodes if n.target is torch.ops.aten.convolution_backward.default]
        for part, graph in (("primal", program.primal), ("tangent", program.tangent))
    }
    # The gradient needs one gradient of an image; its product two, and of weights one for the first layer, two for the second.
    assert masks["primal"] == [[True, False, False]]
    assert sorted(masks["tangent"]) == [[False, True, False]] * 3 + [[True, False, False]] * 2


def test_large_float32_products_may_run_through_onednn(monkeypatch):
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        pytest.skip("needs a PyTorch with oneDNN")
    monkeypatch.setattr(kernels, "onednn_multiplies_faster", lambda: True)
    a, b, s, t = (torch.randn(256, 256) for _ in range(4))
    program, (found,) = run(lambda p, q: [q[0] @ p[0] + p[1].T @ q[1]], [a, b], [s, t])
    expected = s.double() @ a.double() + b.double().T @ t.double()
    assert float((found - expected).norm() / expected.norm()) < 1e-6
    assert [node.target for node in program.tangent.graph.nodes].count(kernels.onednn_product) == 2


def test_repeated_values_that_both_parts_read_stay():
    """Keys shared by several heads, as in grouped-query attention: views of a repeated tensor, read once without tangents."""
    k, t = torch.randn(3, 1, 2, dtype=torch.float64), torch.randn(12, dtype=torch.float64)

    def function(inputs: tuple, tangents: tuple) -> list[Tensor]:
        repeated = inputs[0].expand(3, 2, 2).clone()
        views = [repeated.view(6, 2)]
        for shape in ((2, 6), (4, 3), (3, 4), (12, 1), (1, 12), (12,)):
            views.append(views[-1].view(shape))
        return [tangents[0] * views[-1] + tangents[0] * repeated.view(12), tangents[0] * views[-1].exp()]

    _, found = run(function, [k], [t])
    torch.testing.assert_close(found, tuple(function((k,), (t,))))
