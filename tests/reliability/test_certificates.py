"""Certificates keep within memory, resume where they were stopped, and leave nothing behind."""

import pytest
import torch

import curvscope as cs
from curvscope.errors import OutOfBudget, RunConflict
from curvscope.solvers.certification import _certificate_room as certificate_room
from curvscope.store import Run

from . import solves


class Stopping(solves.Counting):
    """Stops its caller at a product."""

    stop_at = None

    def _apply(self, block):
        if self.stop_at is not None and self.products >= self.stop_at:
            raise KeyboardInterrupt
        return super()._apply(block)


@pytest.fixture
def run(tmp_path):
    operator = Stopping(1200)
    solution = cs.eigsh(operator, 4, method="krylov", tol=1e-5, run=tmp_path / "run", progress=False)
    operator.products = 0
    return operator, solution, tmp_path / "run"


@pytest.mark.parametrize("stop_at", [3, 13, 14, 50])
def test_a_stopped_certificate_is_resumed(run, stop_at):
    operator, solution, place = run
    before = sorted(path.name for path in place.rglob("*"))
    operator.stop_at = stop_at
    with pytest.raises(KeyboardInterrupt):
        cs.certify(operator, solution, run=place, progress=False)
    spent, operator.stop_at = operator.products, None
    resumed = cs.certify(operator, solution, run=place, progress=False)
    total, operator.products = operator.products, 0
    alone = cs.certify(operator, solution, progress=False)
    assert spent > 0
    assert total <= operator.products + 9  # the block in hand, at most
    assert resumed.certificate.tail == alone.certificate.tail
    assert resumed.certificate.noise == alone.certificate.noise
    assert torch.equal(resumed.residual_norms, alone.residual_norms)
    assert resumed.cost.certificate_products == alone.cost.certificate_products
    assert sorted(path.name for path in place.rglob("*")) == before, "nothing is left of what was kept"


def test_memory_bounds_a_certificate(run, monkeypatch):
    operator, solution, place = run
    vector, base = 1200 * 4, 1 << 30
    monkeypatch.setattr(certificate_room, "resident_bytes", lambda: base)
    for vectors in (10, 50, 67):
        with pytest.raises(OutOfBudget, match="a certificate of 4 pairs takes"):
            cs.certify(operator, solution, memory=base + vectors * vector, progress=False)
    assert operator.products == 0
    with pytest.raises(OutOfBudget):
        cs.certify(operator, solution, memory=base + 41 * vector, run=place, progress=False)
    on_disk = cs.certify(operator, solution, memory=base + 43 * vector, run=place, progress=False)
    alone = cs.certify(operator, solution, memory=base + 69 * vector, progress=False)
    assert on_disk.certificate.tail.bound == pytest.approx(alone.certificate.tail.bound, rel=1e-5)
    assert not (place / "certificate").exists()


def test_a_run_is_certified_by_one_process_at_a_time(run):
    operator, solution, place = run
    with Run.open(place).session(), pytest.raises(RunConflict, match="in use"):
        cs.certify(operator, solution, run=place, progress=False)
    assert operator.products == 0


def test_a_damaged_state_is_measured_again(run, caplog):
    operator, solution, place = run
    operator.stop_at = 40
    with pytest.raises(KeyboardInterrupt):
        cs.certify(operator, solution, run=place, progress=False)
    operator.stop_at = None
    tile = sorted(place.glob("certificate/*/c/*/3"))[0]
    tile.write_bytes(tile.read_bytes()[:-1] + b"x")
    again = cs.certify(operator, solution, run=place, progress=False)
    assert "measured again" in caplog.text
    assert again.certificate.tail == cs.certify(operator, solution, progress=False).certificate.tail
