"""Weights of batches: verified by cutting a batch, or asked for; reductions that contradict the criterion."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from curvscope import masks
from curvscope.errors import InvalidArgument
from curvscope.operators import empirical_fisher, gradient_second_moment, hessian
from curvscope.operators.objective._losses import own_reduction
from curvscope.subspaces import mask_null

CE = functional.cross_entropy


class MessagePassing(nn.Module):
    """Sums messages along edges, then nodes of each graph."""

    def __init__(self) -> None:
        super().__init__()
        self.message, self.out = nn.Linear(6, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor, edges: Tensor, graph: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 4).index_add(0, edges[1], torch.tanh(self.message(torch.cat([x[edges[0]], x[edges[1]]], 1))))
        return self.out(h.new_zeros(int(graph.max()) + 1, 4).index_add(0, graph, h))


def graphs(nodes: int, edges: int, count: int) -> dict[str, Tensor]:
    return {
        "x": torch.randn(nodes, 3, dtype=torch.float64),
        "edges": torch.randint(nodes, (2, edges)),
        "graph": torch.arange(nodes) * count // nodes,
        "y": torch.randint(3, (count,)),
    }


def graph_loss(model: nn.Module, g: dict[str, Tensor]) -> Tensor:
    return CE(model(g["x"], g["edges"], g["graph"]), g["y"])


def product(loss: Tensor, model: nn.Module, vector: Tensor) -> Tensor:
    """H v by differentiating twice, the oracle."""
    ps = list(model.parameters())
    gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, ps, create_graph=True)])
    return torch.cat([g.reshape(-1) for g in torch.autograd.grad(gradient, ps, vector, materialize_grads=True)])


def test_weights_of_unequal_graphs_are_asked_for():
    torch.manual_seed(0)
    model, data = MessagePassing().double(), [graphs(12, 24, 2), graphs(5, 9, 4)]
    with pytest.raises(InvalidArgument, match=r"cannot be verified.*12, 2, 12, 2.*weight=lambda batch"):
        hessian(model, graph_loss, data)
    with pytest.raises(InvalidArgument, match="weight=lambda batch"):
        gradient_second_moment(model, graph_loss, data)
    vector = torch.randn(43, dtype=torch.float64)
    expected = product(sum(len(g["y"]) * graph_loss(model, g) for g in data) / 6, model, vector)
    weighted = {"weight": lambda g: len(g["y"])}
    torch.testing.assert_close(hessian(model, graph_loss, data, **weighted) @ vector, expected)
    G = gradient_second_moment(model, graph_loss, data, **weighted)
    slopes = [
        torch.cat([g.reshape(-1) for g in torch.autograd.grad(graph_loss(model, one), list(model.parameters()))])
        for one in data
    ]
    moment = sum(len(g["y"]) / 6 * s * (s @ vector) for g, s in zip(data, slopes, strict=True))
    torch.testing.assert_close(G @ vector, moment)
    # the sum over graphs needs no weights
    total = hessian(model, lambda model, g: graph_loss(model, g) * len(g["y"]), data, reduction="sum") @ vector
    torch.testing.assert_close(total, 6 * expected)


@pytest.mark.parametrize("count", [1, 3])
def test_equal_batches_need_no_weights(count):
    torch.manual_seed(0)
    model, data = MessagePassing().double(), [graphs(8, 12, 2) for _ in range(count)]
    vector = torch.randn(43, dtype=torch.float64)
    mean = sum(graph_loss(model, g) for g in data) / count
    torch.testing.assert_close(hessian(model, graph_loss, data) @ vector, product(mean, model, vector))


def test_pairs_whose_input_is_no_list_of_samples():
    """A set is pooled: rows of x are no samples, and the criterion is a function that nobody knows."""
    torch.manual_seed(0)

    class Pool(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, pair: tuple[Tensor, Tensor]) -> Tensor:
            x, owner = pair
            return x.new_zeros(int(owner.max()) + 1, 2).index_add(0, owner, self.layer(x).tanh())

    def data(rows: int, sets: int) -> tuple:
        return (torch.randn(rows, 3), torch.arange(rows) * sets // rows), torch.randint(2, (sets,))

    batches = [data(9, 3), data(4, 2)]
    with pytest.raises(InvalidArgument, match="weight=lambda batch"):
        hessian(Pool(), partial(CE, label_smoothing=0.1), batches)
    hessian(Pool(), partial(CE, label_smoothing=0.1), batches, weight=lambda batch: len(batch[1]))
    hessian(Pool(), nn.CrossEntropyLoss(), batches)  # counts its own terms
    with pytest.raises(InvalidArgument, match="weight=lambda batch"):
        empirical_fisher(Pool(), partial(CE, label_smoothing=0.1), batches)
    empirical_fisher(Pool(), partial(CE, label_smoothing=0.1), batches, weight=lambda batch: len(batch[1]))


def test_lists_of_images_have_no_samples_to_cut():
    model = nn.Conv2d(3, 2, 3)

    def loss(model: nn.Module, batch: list) -> Tensor:
        return torch.stack([model(image).square().mean() for image in batch]).mean()

    batches = [[torch.randn(3, 6, 6) for _ in range(count)] for count in (2, 4)]
    with pytest.raises(InvalidArgument, match="weight=lambda batch"):
        hessian(model, loss, [*batches, [torch.randn(4, 6, 6)[:3]]])
    hessian(model, loss, batches, weight=len)


def test_weights_that_are_wrong_on_the_last_batch_are_asked_for():
    """The first batch has as many counted labels in either half; the last has not."""
    torch.manual_seed(0)
    model, x = nn.Linear(4, 3).double(), torch.randn(6, 4).double()
    data = [(x[:4], torch.tensor([0, 1, 0, 1])), (x, torch.tensor([0, 0, 0, 1, 2, 1]))]

    def ignoring(output: Tensor, target: Tensor) -> Tensor:
        return CE(output, target, ignore_index=0)

    with pytest.raises(InvalidArgument, match=r"is no number of samples.*weight=lambda batch"):
        hessian(model, ignoring, data)
    vector = torch.randn(15).double()
    expected = product(CE(model(torch.cat([x[:4], x])), torch.cat([y for _, y in data]), ignore_index=0), model, vector)
    torch.testing.assert_close(
        hessian(model, ignoring, data, weight=lambda batch: float((batch[1] > 0).sum())) @ vector, expected
    )


@pytest.mark.parametrize(
    "loss",
    [
        lambda model, batch: CE(model(batch["x"]), batch["y"], ignore_index=2),  # a mapping without "labels"
        lambda model, batch: CE(model(batch["x"]), batch["y"], weight=torch.tensor([1.0, 9.0, 2.0])),
        lambda model, batch: CE(model(batch["x"]), batch["y"]).mul(9).exp(),  # no mean of anything
        lambda model, batch: CE(model(batch["x"]) @ model(batch["x"]).T, torch.arange(len(batch["x"]))),  # contrastive
    ],
)
def test_disproved_weights_of_unequal_batches_are_asked_for(loss, caplog):
    torch.manual_seed(1)
    model = nn.Linear(4, 3)
    data = [{"x": torch.randn(n, 4), "y": torch.tensor([0, 2, 1, 1, 2, 0, 1, 2][:n])} for n in (8, 5)]
    with pytest.raises(InvalidArgument, match="weight=lambda batch"):
        hessian(model, loss, data)
    hessian(model, loss, data, weight=lambda batch: 1.0)
    assert not caplog.messages
    hessian(model, loss, [data[0], {"x": -data[0]["x"], "y": data[0]["y"]}])  # of equal size: said in the log
    assert "other batches of the same data would give another matrix" in caplog.text


@pytest.mark.parametrize(
    ("loss", "reduction", "message"),
    [
        (nn.CrossEntropyLoss(), "sum", r"CrossEntropyLoss itself has reduction='mean'"),
        (nn.MSELoss(reduction="sum"), "mean", r"MSELoss itself has reduction='sum'"),
        (functional.mse_loss, "sum", "reduction='mean'"),
        (functional.l1_loss, "sum", "reduction='mean'"),
        (partial(functional.mse_loss, reduction="sum"), "mean", "reduction='sum'"),
        (nn.KLDivLoss(reduction="batchmean"), "sum", "batchmean"),
    ],
)
def test_reductions_that_contradict_the_criterion_are_refused(loss, reduction, message):
    data = [(torch.ones(3, 4), torch.ones(3, 2)), (torch.ones(2, 4), torch.ones(2, 2))]
    with pytest.raises(InvalidArgument, match=message):
        hessian(nn.Linear(4, 2), loss, data, reduction=reduction)


def test_sums_that_say_so_are_sums():
    torch.manual_seed(0)
    model, x, y = nn.Linear(4, 2).double(), torch.randn(6, 4).double(), torch.rand(6, 2).double()
    data, vector = [(x[:4], y[:4]), (x[4:], y[4:])], torch.randn(10).double()
    expected = hessian(model, nn.MSELoss(reduction="sum"), data) @ vector
    for loss in (partial(functional.mse_loss, reduction="sum"), nn.MSELoss(reduction="sum")):
        torch.testing.assert_close(hessian(model, loss, data) @ vector, expected)
    assert own_reduction(lambda output, target: output.sum()) is None


def test_filters_beside_anything_but_a_model_are_refused():
    flat, ranking = torch.arange(1.0, 5.0), masks.random(4)
    calls = (
        lambda: masks.largest(flat, 2, params="a.*"),
        lambda: masks.largest({"a.b": flat}, 2, params="a.*"),
        lambda: masks.random(4, params="a.*"),
        lambda: masks.by_magnitude(flat, params="a.*"),
        lambda: mask_null(torch.eye(4)[:, :1], ranking, params="a.*"),
        lambda: mask_null(torch.eye(4)[:, :1], ranking, layers={"a": flat}, params="a.*"),
    )
    for call in calls:
        with pytest.raises(InvalidArgument, match=r"params='a\.\*' selects from a model"):
            call()
