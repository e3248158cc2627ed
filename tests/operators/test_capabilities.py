"""Solvers ask operators for abilities, not for their type; and a solve leaves the operator as it found it."""

import copy

import pytest
import torch
from torch import nn

import curvscope as cs
from curvscope.errors import NotFinite
from curvscope.measurement import Meter, Workspace
from curvscope.operators.base import Operator
from curvscope.operators.products._patience import Patience
from curvscope.solvers.driver import check_fit
from curvscope.solvers.sizing import footprint
from curvscope.store import Run
from curvscope.subspaces import plan_without_vectors
from curvscope.system import is_long_work

CACHED = ("fingerprint", "identity")


def objective(**options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))
    return model, nn.CrossEntropyLoss(), [(torch.randn(8, 5), torch.arange(8) % 3) for _ in range(3)]


class Own(Operator):
    """diag(1..n) of a stranger, who writes down how it is used."""

    hermitian, dtype, device = True, torch.float64, torch.device("cpu")

    def __init__(self, size=30, *, objective=None):
        self.shape, self.objective, self.asked = (size, size), objective, []
        self.scale, self.bound, self.report = 1.0, None, None

    @property
    def memory(self):
        return self.bound

    @property
    def strategy_report(self):
        return {"strategy": "own", "scale": self.scale}

    def view(self, *, memory=None, strategy_report=None):
        made = copy.copy(self)
        made.bound = self.bound if memory is None else memory
        made.report = strategy_report or self.report
        self.asked.append((memory, strategy_report))
        return made

    def predicted_bytes(self, columns):
        return 1000 + 16 * columns * self.shape[0]

    def cost_curve(self, widths):
        return dict.fromkeys(widths, 0.25)

    def exactly(self):
        self.asked.append("exactly")

    def derivatives(self):
        self.asked.append("derivatives")

    def _apply(self, block):
        return torch.arange(1, self.shape[0] + 1, dtype=self.dtype)[:, None] * block

    def _fingerprint(self):
        return f"own {self.shape}"


def state(H):
    """Everything that a caller can see of an operator, and what it keeps for its next products."""
    engine = H._engine
    return {
        "memory": H.memory,
        "report": {name: value for name, value in H.strategy_report.items() if not name.startswith(("kept", "budget"))},
        "attributes": {name: id(value) for name, value in vars(H).items() if name not in CACHED},
        "choice": (engine._choice, engine._fixed, set(engine._settled), dict(engine._replaced), dict(engine._narrowed)),
        "patience": engine._patience.spent,
    }


WORK = {
    "eigsh": lambda H, path: cs.eigsh(H, 2),
    "bounded": lambda H, path: cs.eigsh(H, 2, method="krylov", memory="4GiB"),
    "run": lambda H, path: cs.eigsh(H, 2, method="krylov", run=path / "run"),
    "sketch": lambda H, path: cs.seigh(H, num_outer=6),
    "certify": lambda H, path: cs.certify(H, cs.eigsh(H, 2)),
    "trace": lambda H, path: cs.trace(H),
    "density": lambda H, path: cs.density(H, num_probes=2, num_steps=5),
    "preflight": lambda H, path: cs.preflight(H),
}


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """An operator begins to trace after enough products by itself: here never, so that only a solve could change it."""
    monkeypatch.setattr(Patience, "waits", lambda self, columns: not is_long_work())


@pytest.mark.parametrize("strategy", ["auto", "split"])
@pytest.mark.parametrize("work", WORK)
def test_a_solve_leaves_the_operator_as_it_was(work, strategy, tmp_path):
    H, X = cs.hessian(*objective(), strategy=strategy), torch.randn(57, 4, generator=torch.Generator().manual_seed(1))
    H @ X
    product, before = H @ X, state(H)
    WORK[work](H, tmp_path)
    assert state(H) == before
    assert torch.equal(H @ X, product)


@pytest.mark.parametrize("error", [KeyboardInterrupt, NotFinite])
@pytest.mark.parametrize("run", [False, True])
def test_a_solve_that_is_cut_short_leaves_it_too(error, run, tmp_path, monkeypatch):
    H, X = cs.hessian(*objective()), torch.ones(57, 2)
    H @ X
    product, before = H @ X, state(H)
    multiply = Meter.multiply

    def cut(self, block, note=""):
        if self.products > 3:
            raise error("cut")
        return multiply(self, block, note)

    monkeypatch.setattr(Meter, "multiply", cut)
    with pytest.raises(error):
        cs.eigsh(H, 3, method="krylov", memory="4GiB", run=tmp_path / "run" if run else None)
    assert state(H) == before
    assert torch.equal(H @ X, product)


def test_sums_squares_and_blocks_leave_their_parts_too():
    H = cs.hessian(*objective(), strategy="split")
    before = state(H)
    for made in (2 * H + H, H.square(), H.submatrix("0.*"), H.submatrix(torch.arange(9)), H @ (H + H)):
        Meter(made, False, Workspace()).multiply(torch.ones(made.shape[1], 2))
        assert torch.equal(made.view(memory=1 << 30) @ torch.ones(made.shape[1]), made @ torch.ones(made.shape[1]))
        assert made.view().fingerprint == made.fingerprint
    assert (H.memory, before["memory"]) == (None, None)


def test_a_view_shares_what_was_traced():
    H = cs.hessian(*objective(), strategy="split")
    H @ torch.ones(57)
    view = H.view(memory=1 << 30)
    assert view._engine._strategies is H._engine._strategies
    assert view.memory == 1 << 30
    assert H.view(memory=5).view(memory=7).memory == 5  # a bound that is there is the caller's


def test_an_operator_of_ones_own_is_bounded_and_resumed_by_its_report(tmp_path):
    A = Own()
    Meter(A, False)
    place = Workspace()
    place.products = 12345
    assert Meter(A, False, place).operator.memory == 12345
    assert A.memory is None
    cs.eigsh(A, 2, method="krylov", run=tmp_path / "run")
    assert Run.open(tmp_path / "run").manifest["decisions"]["products"] == {"strategy": "own", "scale": 1.0}
    A.asked.clear()
    cs.eigsh(A, 4, method="krylov", run=tmp_path / "run")
    assert any(asked[1] == {"strategy": "own", "scale": 1.0} for asked in A.asked)


def test_an_operator_of_ones_own_predicts_bytes_and_seconds():
    A = Own()
    told = footprint("krylov", A, {"k": 2, "ncv": 8, "block_size": 1}, predict=True)
    assert told.product == 8 * A.shape[0]
    assert told.product_fixed == 1000
    plan = plan_without_vectors(A, num_probes=2, num_steps=3)
    assert plan.seconds == 0.25 * plan.products


def test_an_operator_of_ones_own_is_asked_for_exact_products_and_derivatives():
    A = Own()
    check_fit(A)
    cs.certify(A, cs.eigsh(A, 2))
    assert {"derivatives", "exactly"} <= {asked for asked in A.asked if isinstance(asked, str)}


def test_the_loss_of_an_operator_of_ones_own_is_found(tmp_path):
    model, criterion, data = objective()
    found = cs.Objective(model, criterion, data)
    A = Own(57, objective=found)
    assert torch.isfinite(cs.loss_along(A, torch.ones(57)).loss).all()
    assert cs.class_structure(A).values.shape == (9,)
    cs.eigsh(A, 2, method="krylov", run=tmp_path / "run", preflight=False)
    assert (tmp_path / "run" / "parameters.safetensors").exists()


def test_definiteness_follows_from_the_parts():
    model, criterion, data = objective()
    G, H = cs.ggn(model, criterion, data), cs.hessian(model, criterion, data)
    assert [A.semidefinite for A in (G, 2 * G + G, G.shift(1.0), H.square(), G.submatrix("0.*"))] == [True] * 5
    assert [A.semidefinite for A in (H, -G, G - G, G.shift(-1.0), G + H, H.submatrix("0.*"))] == [False] * 6
    concave = cs.ggn(model, lambda output, target: -output.square().mean(), data)
    assert not concave.semidefinite
    assert float(torch.linalg.eigvalsh(concave.view() @ torch.eye(57)).max()) <= 1e-6
