"""With "auto" nothing is traced before that pays, unless long work is announced; then one way of computing serves it all."""

import sys

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from curvscope.measurement import Meter
from curvscope.operators import Hessian, hessian, preflight
from curvscope.operators.products import _engine as engine, _patience as patience
from curvscope.operators.products._double_backward import DoubleBackward
from curvscope.operators.products._survey import Survey, survey
from curvscope.solvers import eigsh
from curvscope.system import long_work, stage

from .cases import build, dense_hessian

# Setting up is estimated as 0.2 s for the calls and 10 gradients of 3 ms for the arithmetic.
SURVEY = Survey(calls=100, seconds=1e-3, bytes=1000, flops=1000)
BLOCK = torch.randn(43, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True, scope="module")
def loaded():
    """What the first trace of a process loads is not waited for."""
    hessian(nn.Linear(2, 1), nn.MSELoss(), [(torch.ones(3, 2), torch.ones(3, 1))], strategy="split") @ torch.ones(3)


@pytest.fixture
def clock(monkeypatch):
    """A model that is surveyed as above, and whose every block takes 0.1 s."""

    def run(work, device):
        work()
        return 0.1

    monkeypatch.setattr(patience, "survey", lambda objective: SURVEY)
    monkeypatch.setattr(engine, "seconds_of", run)


def operator(**options) -> tuple[Hessian, torch.Tensor]:
    model, criterion, batches = build("mlp")
    return hessian(model, criterion, batches, **options), dense_hessian(model, criterion, batches)


def ways(H: Hessian, dense: torch.Tensor, block: torch.Tensor, count: int) -> list[str]:
    """How each of so many products was computed; all are right."""
    found = []
    for _ in range(count):
        torch.testing.assert_close(H @ block, dense @ block, rtol=1e-10, atol=1e-12)
        found.append("waits" if H.strategy_report["provisional"] else H.strategy_report["strategy"])
    return found


def test_tracing_waits_until_products_have_taken_as_long(clock):
    H, dense = operator()
    assert ways(H, dense, BLOCK, 5) == ["waits"] * 3 + ["split_vmap"] * 2
    # What one width was paid with does not pay for another.
    assert ways(H, dense, BLOCK[:, :1], 5) == ["waits"] * 3 + ["split"] * 2
    assert ways(H, dense, BLOCK, 1) == ["split_vmap"]


def test_one_program_serves_all_widths_where_arithmetic_takes_the_time(clock, monkeypatch):
    monkeypatch.setattr(patience, "survey", lambda objective: Survey(100, 5e-3, 1000, 10**9))
    H, dense = operator()
    assert ways(H, dense, BLOCK[:, :1], 5) == ["waits"] * 4 + ["split"]
    H @ BLOCK
    assert not H.strategy_report["provisional"]


def test_a_block_that_pays_for_itself_is_not_waited_for(clock):
    H, dense = operator()
    assert ways(H, dense, BLOCK.repeat(1, 30), 1) == ["split_vmap"]


@pytest.mark.parametrize("option", [{"memory": 1000}, {"strategy": "split"}])
def test_nothing_waits_where_memory_is_short_or_a_strategy_was_asked_for(clock, option):
    H, dense = operator(**option)
    assert ways(H, dense, BLOCK, 1) == ["split"]


def test_loading_what_tracing_needs_is_counted(clock, monkeypatch):
    monkeypatch.delitem(sys.modules, "torch._decomp.decompositions_for_jvp")
    H, _ = operator()
    for _ in range(15):
        assert H._engine._patience.waits(1)
        H._engine._patience.spent += 0.1
    H._engine._patience.spent += 0.3
    assert not H._engine._patience.waits(1)


def test_long_work_is_of_one_kind_from_the_first_product_on(clock):
    for announced in (long_work(), stage("products", 2)):
        H, dense = operator()
        with announced:
            first = H @ BLOCK
        assert ways(H, dense, BLOCK, 1) == ["split_vmap"]
        assert torch.equal(H @ BLOCK, first)
    H, _ = operator()
    meter = Meter(H)
    meter.multiply(BLOCK)
    assert not meter.report["provisional"]
    assert set(H.strategy_report) == {"derivatives"}  # the choice is that of the view which the meter multiplies
    H, _ = operator()
    solution = eigsh(H, 2)
    assert not solution.provenance["products"]["provisional"]


def test_predictions_are_of_the_way_that_is_taken(clock):
    H, dense = operator()
    assert H.predicted_bytes(3) > 0
    assert ways(H, dense, BLOCK, 1) == ["split_vmap"]


def test_sums_and_squares_announce_long_work_to_their_parts(clock):
    H, _ = operator()
    composed = (2 * H).shift(1.0).square()
    with long_work():
        composed @ BLOCK
    assert not H.strategy_report["provisional"]


def test_waiting_is_not_taken_for_noise(clock):
    H, _ = operator()
    H._engine._patience.spent = 0.15  # enough for the second product to be another one
    determinism = next(check for check in preflight(H).checks if check.name == "determinism")
    assert determinism.error == 0


def test_deterministic_algorithms_are_chosen_at_once(clock):
    H, dense = operator()
    torch.use_deterministic_algorithms(True)
    try:
        assert ways(H, dense, BLOCK, 1) == ["split_vmap"]
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("error", [RuntimeError("no second derivative"), torch.OutOfMemoryError("out of memory (simulated)")])
def test_what_cannot_wait_is_traced_at_once(clock, monkeypatch, error):
    def refuse(self, batch, number, width):
        raise error

    monkeypatch.setattr(DoubleBackward, "linearize", refuse)
    H, dense = operator()
    assert ways(H, dense, BLOCK, 2) == ["split_vmap"] * 2


def test_waiting_over_a_loader_does_not_keep_residuals_from_being_kept(clock):
    model, criterion, batches = build("mlp")
    loader = torch.utils.data.DataLoader(batches, batch_size=None)
    H = hessian(model, criterion, loader)
    ways(H, dense_hessian(model, criterion, batches), BLOCK, 5)
    assert H.strategy_report["kept_batches"] == 2


def test_a_survey_counts_the_operations_of_the_loss():
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh())
    H = hessian(model, lambda net, x: net(x).square().sum(), [torch.ones(5, 4)])
    found = survey(H.objective)
    # t, addmm, tanh, square (a power), sum; of views the bytes of what is viewed.
    assert found.calls == 5
    assert found.bytes == 4 * (12 + 15 + 15 + 15 + 1)
    assert found.flops == 2 * 5 * 4 * 3
    assert found.seconds > 0


@pytest.mark.parametrize(
    ("layer", "size", "flops"),
    [
        (nn.Conv2d(3, 4, 3, padding=1), (2, 3, 8, 8), 2 * 2 * 64 * 3 * 9 * 4),
        (nn.Conv2d(4, 4, 3, groups=2), (2, 4, 8, 8), 2 * 2 * 36 * 2 * 9 * 4),
        (nn.ConvTranspose1d(3, 4, 2), (2, 3, 5), 2 * 2 * 5 * 3 * 4 * 2),
        (nn.Bilinear(3, 4, 2), (5, 3), None),
    ],
)
def test_a_survey_counts_products_as_torch_does(layer, size, flops):
    """PyTorch's own counter is the oracle."""
    inputs = torch.ones(size)

    def loss(net, x):
        return (net(x, torch.ones(5, 4)) if isinstance(net, nn.Bilinear) else net(x)).square().sum()

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        loss(layer, inputs)
    found = survey(hessian(layer, loss, [inputs]).objective)
    assert found.flops == counter.get_total_flops()
    assert flops is None or found.flops == flops


def test_groups_are_chosen_by_counts_not_by_the_clock():
    """However long an evaluation took on a busy machine, small calls are shared."""
    assert Survey(calls=20, seconds=100.0, bytes=400_000, flops=4_000_000).shares_calls
    assert not Survey(calls=20, seconds=1e-9, bytes=400_000, flops=4 * 10**9).shares_calls
    assert not Survey(calls=20, seconds=1.0, bytes=400_000, flops=4 * 10**7, device="cuda").computes
