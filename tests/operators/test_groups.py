"""Groups of vectors where calls do not take most of the time: tried once so many products are announced that it pays."""

import pytest
import torch

from curvscope.measurement import Meter
from curvscope.operators import hessian
from curvscope.operators.base import Operator
from curvscope.operators.products import _choice as choice, _patience as patience, _split as split
from curvscope.operators.products._choice import remembered
from curvscope.operators.products._survey import CALL_SECONDS, Survey
from curvscope.solvers import eigsh, hmt
from curvscope.solvers.sizing import default_width, expected_products
from curvscope.system import long_work, products_to_come

from .cases import build, dense_hessian

BLOCK = torch.randn(43, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
ENOUGH = 10**9


class Clock:
    """A model in which calls take a share of the time, and what the candidates of a trial take."""

    share, group, traced, alone = 0.2, 1.0, 0, 0.0

    def trace(self, function, inputs, tangents, width, **options):
        self.traced += width is not None
        traced = trace(function, inputs, tangents, width, **options)
        if width is None:
            self.alone = traced.program.num_calls * CALL_SECONDS / self.share
        return traced._replace(seconds=2 * self.alone)

    def time(self, run, device):
        pieces = run()
        return self.alone * (self.group if pieces[0].shape[0] > 1 else 1)


trace = split.trace


@pytest.fixture
def clock(monkeypatch):
    """Arithmetic takes most of the time; a group takes as long as one vector."""
    clock = Clock()
    monkeypatch.setattr(patience, "survey", lambda objective: Survey(calls=100, seconds=1e-2, bytes=1000, flops=10**9))
    monkeypatch.setattr(split, "trace", clock.trace)
    monkeypatch.setattr(choice, "seconds_of", clock.time)
    return clock


def operator(**options):
    model, criterion, batches = build("mlp")
    return hessian(model, criterion, batches, **options), dense_hessian(model, criterion, batches)


def way(H, dense, announced):
    """How a block was computed in long work of so many products; it is right."""
    with long_work(announced):
        torch.testing.assert_close(H @ BLOCK, dense @ BLOCK, rtol=1e-10, atol=1e-12)
    return H.strategy_report["choice"]


def test_groups_are_tried_from_as_many_products_as_pay_for_it(clock):
    H, dense = operator()
    assert way(H, dense, None) == way(H, dense, 0) == "split:1"
    # Per product 5/6 of the calls of two mini-batches may be saved, a quarter of that staked on a trace and 11 applications.
    calls = H._engine._kept.items[0][0].program.num_calls * CALL_SECONDS
    for share in (0.5, 0.2):  # at first nothing was timed, and calls take half of the time at most
        least = remembered(H._engine.map, 6).groups_from
        assert least * 0.25 * 2 * calls * 5 / 6 == pytest.approx(0.2 + 11 * 6 * calls / share, rel=2e-3)
        assert f"below {least} " in H.strategy_report["skipped"]["split_vmap, width 6"]
        if share == 0.5:
            assert way(H, dense, least) == "split:1"
    assert way(H, dense, least - 1) == "split:1"
    assert clock.traced == 0
    assert way(H, dense, least) == "split_vmap:6"
    assert way(H, dense, None) == "split_vmap:6"
    assert clock.traced == 1
    assert set(H.strategy_report["seconds_per_vector"]) == {"split, width 1", "split_vmap, width 6"}


def test_a_group_that_is_slower_is_not_taken_nor_tried_again(clock):
    clock.group = 6.5
    H, dense = operator()
    assert way(H, dense, 0) == "split:1"
    kept = H.strategy_report["kept_bytes"]
    assert way(H, dense, ENOUGH) == way(H, dense, ENOUGH) == "split:1"
    assert clock.traced == 1
    assert H.strategy_report["kept_bytes"] == kept


@pytest.mark.parametrize(("share", "options"), [(0.09, {}), (0.2, {"memory": 6000}), (0.2, {"strategy": "split"})])
def test_nothing_is_tried_where_arithmetic_takes_the_time_or_memory_is_short(clock, share, options):
    clock.share = share
    H, dense = operator(**options)
    assert way(H, dense, ENOUGH) == "split:1"
    assert clock.traced == 0


def test_a_recorded_choice_is_repeated_whatever_is_announced(clock):
    H, dense = operator()
    way(H, dense, 0)
    report = H.strategy_report
    again, _ = operator()
    again.replay(report)
    assert way(again, dense, ENOUGH) == "split:1"
    assert torch.equal(again @ BLOCK, H @ BLOCK)
    assert clock.traced == 0


def test_a_run_goes_on_as_it_began(clock, tmp_path):
    H, _ = operator()
    options = {"num_outer": 6, "block_size": 6, "run": tmp_path}
    announced = hmt(H, **options)
    assert announced.provenance["products"]["choice"] == "split:1"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choice, "MAX_TRIAL_COST", 1e9)
        fresh, _ = operator()
        assert hmt(fresh, **{**options, "num_outer": 12}).provenance["products"]["choice"] == "split:1"
        other, _ = operator()
        assert hmt(other, **{**options, "run": None}).provenance["products"]["choice"] == "split_vmap:6"


class Listening(Operator):
    """Diagonal; notes what was announced at each product."""

    shape, dtype, device, hermitian = (400, 400), torch.float64, torch.device("cpu"), True

    def __init__(self):
        self.heard = []

    def _apply(self, block):
        self.heard.append(products_to_come())
        return block * torch.linspace(1, 2, 400, dtype=torch.float64)[:, None]

    def _fingerprint(self):
        return "listening"


def test_solvers_announce_the_products_that_they_expect():
    A = Listening()
    with Meter(A).stage("products", 70):
        A @ torch.ones(400, dtype=torch.float64)
    assert A.heard == [70]
    assert products_to_come() == 0
    for tol, expected in ((1e-3, round(expected_products(3, default_width(3)))), (0.0, 200)):
        A = Listening()
        eigsh(A, 3, method="krylov", tol=tol, max_products=200, preflight=False)
        assert A.heard[0] == expected
    A = Listening()
    hmt(A, num_outer=30)
    assert A.heard[0] == 30
