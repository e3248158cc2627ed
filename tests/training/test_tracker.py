"""Eigenpairs along training against the dense Hessian at the same parameters."""

import sys
from types import ModuleType

import pytest
import torch
from torch import nn

import curvscope as cs
from curvscope.errors import InvalidArgument, InvalidType
from curvscope.training import lightning_callback, trainer_callback


def setting(norm=False):
    torch.manual_seed(3)
    layers = [nn.Linear(6, 8), *([nn.BatchNorm1d(8)] if norm else []), nn.Tanh(), nn.Linear(8, 3)]
    model = nn.Sequential(*layers).double()
    data = [(torch.randn(30, 6, dtype=torch.float64), torch.arange(30) % 3)]
    return model, nn.CrossEntropyLoss(), data


def trained(model, loss, data, tracker, updates=31):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    spectra = {}
    for i in range(updates):
        if i % tracker.every == 0:
            H = cs.hessian(model, loss, data, strategy="double_backward", batchnorm="batch")  # as training does
            spectra[i] = torch.linalg.eigh(H @ torch.eye(H.shape[0], dtype=torch.float64))
        tracker.step(i)
        optimizer.zero_grad()
        loss(model(data[0][0]), data[0][1]).backward()
        optimizer.step()
    return spectra


@pytest.mark.parametrize("norm", [False, True])
def test_pairs_are_those_of_the_dense_hessian_at_every_check(norm):
    model, loss, data = setting(norm)
    tracker = cs.Tracker(cs.Objective(model, loss, data), k=4, every=10, tol=1e-4)
    spectra = trained(model, loss, data, tracker)
    assert list(tracker.history) == [0, 10, 20, 30]
    for step, (values, vectors) in spectra.items():  # noqa: B007
        found, top = tracker.history[step], values.abs().argsort(descending=True)[:4]
        ours = torch.tensor([found[f"curvature/eigenvalue/{j}"] for j in range(1, 5)])
        assert torch.allclose(ours.double(), values[top], rtol=2e-4), step
        assert found["curvature/largest"] == pytest.approx(float(values[top].max()), rel=1e-3)
        assert found["curvature/error"] <= 1e-4
    chosen = vectors[:, top]
    assert float((chosen.T @ tracker.eigenvectors).square().sum()) == pytest.approx(4, abs=1e-3)
    H = cs.hessian(model, loss, data)
    assert all(isinstance(value, float) for value in found.values())
    assert 0 <= found["curvature/overlap_mask"] <= 1
    assert 0.2 < found["curvature/overlap_previous"] <= 1
    assert "curvature/overlap_previous" not in tracker.history[0]
    assert H.shape[0] == tracker.size


def test_gradient_fraction_loss_and_mask_are_those_of_the_library():
    model, loss, data = setting()
    tracker = cs.Tracker(cs.hessian(model, loss, data), k=3, every=1, tol=1e-6)
    found = tracker.check(0)
    H = cs.hessian(model, loss, data)
    solution = cs.eigsh(H, 3, method="exact")
    assert found["curvature/loss"] == pytest.approx(loss(model(data[0][0]), data[0][1]).item())
    assert found["curvature/gradient_fraction"] == pytest.approx(cs.gradient_fraction(H.gradient(), solution).at(3), abs=1e-4)
    assert found["curvature/overlap_mask"] == pytest.approx(cs.overlap(solution, cs.masks.by_magnitude(model)).at(3), abs=1e-4)


def test_a_warm_start_knows_what_the_last_check_found():
    model, loss, data = setting()
    tracker = cs.Tracker(cs.Objective(model, loss, data), k=4, every=1, tol=1e-4)
    found = [tracker.check(i) for i in range(3)]
    products = [each["curvature/products"] for each in found]
    assert all(5 <= later < 0.7 * products[0] for later in products[1:])  # a vector a pair, and one more to see that it ends
    for j in range(1, 5):
        name = f"curvature/eigenvalue/{j}"
        assert found[2][name] == pytest.approx(found[0][name], rel=2e-4)


def test_whole_spectrum_and_logging():
    model, loss, data = setting()
    seen = []
    tracker = cs.Tracker(
        cs.Objective(model, loss, data),
        k=2,
        every=5,
        trace_products=20,
        density_probes=2,
        log=lambda *event: seen.append(event),
    )
    assert tracker.step(3) is None
    found = tracker.step(5)
    assert tracker.step(5) is None  # not twice
    assert seen == [(found, 5)]
    H = cs.hessian(model, loss, data)
    exact = float((H @ torch.eye(H.shape[0], dtype=torch.float64)).trace())
    assert found["curvature/trace"] == pytest.approx(exact, abs=5 * found["curvature/trace_stderr"] + 1e-9)
    assert found["curvature/q10"] <= found["curvature/q50"] <= found["curvature/q90"]
    assert found["curvature/products"] > 20 + 60


def test_training_is_left_as_it_is():
    model, loss, data = setting(norm=True)
    plain, _, _ = setting(norm=True)
    tracker = cs.Tracker(cs.Objective(model, loss, data), k=2, every=2)
    for net, track in ((model, tracker), (plain, None)):
        torch.manual_seed(9)
        optimizer = torch.optim.Adam(net.parameters())
        for i in range(6):
            if track is not None:
                track.step(i)
            optimizer.zero_grad()
            loss(net(data[0][0]) + 0.01 * torch.randn(30, 3), data[0][1]).backward()
            optimizer.step()
    for ours, theirs in zip(model.state_dict().values(), plain.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_in_other_peoples_loops(monkeypatch):
    module = ModuleType("lightning.pytorch")
    module.Callback = type("Callback", (), {})
    monkeypatch.setitem(sys.modules, "lightning", ModuleType("lightning"))
    monkeypatch.setitem(sys.modules, "lightning.pytorch", module)
    model, loss, data = setting()
    tracker, logged = cs.Tracker(cs.Objective(model, loss, data), k=2, every=2), {}

    class Trainer:
        is_global_zero, global_step = True, 0
        loggers = (type("Logger", (), {"log_metrics": staticmethod(lambda metrics, step: logged.update({step: metrics}))}),)

    trainer, callback = Trainer(), lightning_callback(tracker)
    for trainer.global_step in range(5):
        callback.on_train_batch_start(trainer, model, None, 0)
    assert list(logged) == [0, 2, 4]
    assert logged[2]["curvature/overlap_previous"] == pytest.approx(1, abs=1e-3)
    transformers = pytest.importorskip("transformers")
    other = cs.Tracker(cs.Objective(model, loss, data), k=2, every=2)
    hook, state = trainer_callback(other), transformers.TrainerState(is_world_process_zero=True)
    for state.global_step in range(3):
        hook.on_step_begin(None, state, None)  # called by nobody that has reporters
    assert [entry["step"] for entry in state.log_history] == [0, 2]


def test_ill_requests():
    model, loss, data = setting()
    objective = cs.Objective(model, loss, data)
    with pytest.raises(InvalidType, match="Objective"):
        cs.Tracker(model)
    for options in ({"k": 0}, {"every": 0}, {"tol": 0.0}, {"k": 5, "max_products": 5}, {"trace_products": 3}):
        with pytest.raises(InvalidArgument):
            cs.Tracker(objective, **options)


def test_the_lowest_ritz_value_is_not_that_of_the_pairs_alone():
    model, loss, data = setting()
    tracker = cs.Tracker(cs.Objective(model, loss, data), k=1, every=1)
    values, _ = trained(model, loss, data, tracker, updates=1)[0]
    assert values[0] < 0 < values[values.abs().argsort(descending=True)[1]], "the two largest magnitudes are positive"
    assert tracker.history[0]["curvature/smallest"] == pytest.approx(float(values[0]), rel=1e-3)


def test_counts_by_itself_and_gives_the_largest_and_smallest():
    torch.manual_seed(0)
    A = torch.diag(torch.tensor([-5.0, -4.0, 3.0, 1.0, 0.5, 0.1]))
    point = torch.nn.Module()
    point.x = torch.nn.Parameter(torch.randn(6))
    point.forward = lambda batch: point.x @ (A @ point.x) / 2 + 0 * batch.sum()
    tracker = cs.Tracker(point, lambda model, batch: model(batch), [torch.zeros(1)], k=2, every=1)
    for _ in range(3):
        with torch.no_grad():
            point.x.add_(0.1)
        found = tracker.step()
    assert list(tracker.history) == [0, 1, 2]
    assert found["curvature/largest"] == pytest.approx(3.0, rel=1e-3)
    assert found["curvature/smallest"] == pytest.approx(-5.0, rel=1e-3)
    with pytest.raises(AttributeError, match="step"):
        tracker.update()


OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.3, momentum=0.9),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.003),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_curvature_that_the_optimizer_sees_is_that_of_the_dense_matrix(name):
    model, loss, data = setting()
    optimizer = OPTIMIZERS[name](list(model.parameters()))
    tracker = cs.Tracker(cs.Objective(model, loss, data), k=2, every=7, tol=1e-6, optimizer=optimizer, fraction=1e-3)
    for i in range(15):
        found = tracker.step(i)
        if found is not None and (i or name == "SGD"):
            seen = {key.removeprefix("curvature/preconditioned/"): value for key, value in found.items()}
            matrix = cs.preconditioned(cs.hessian(model, loss, data), optimizer)
            values = torch.linalg.eigvalsh(matrix.to_dense())
            assert seen["threshold"] == pytest.approx(float(cs.stability_threshold(optimizer)))
            assert seen["largest"] == pytest.approx(float(values[-1]), rel=1e-5)
            assert seen["smallest"] == pytest.approx(float(values[0]), rel=1e-4, abs=1e-8)
            assert seen["over_threshold"] == pytest.approx(float(values[-1]) / seen["threshold"], rel=1e-5)
            assert seen["above"] == float((values > 1e-3 * seen["threshold"]).sum())
            assert 0 < found["curvature/preconditioned/products"] <= found["curvature/products"]
        elif found is not None:
            assert found["curvature/preconditioned/over_threshold"] != found["curvature/preconditioned/over_threshold"]
        optimizer.zero_grad()
        loss(model(data[0][0]), data[0][1]).backward()
        optimizer.step()
    assert len(tracker.history) == 3


def test_an_optimizer_that_cannot_be_read_is_refused_at_once():
    model, loss, data = setting()
    with pytest.raises(InvalidArgument, match="Rprop is not known"):
        cs.Tracker(cs.Objective(model, loss, data), optimizer=torch.optim.Rprop(model.parameters()))
    with pytest.raises(InvalidArgument, match="fraction"):
        cs.Tracker(cs.Objective(model, loss, data), optimizer=torch.optim.SGD(model.parameters(), lr=0.1), fraction=-1.0)
