"""What every result does: it is kept in a file, told as a table, and shown on one screen."""

import html
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import curvscope as cs
from curvscope.errors import DamagedData, InvalidArgument, InvalidType, RunConflict, RunNotFound
from curvscope.store import ROOMS, Saved

torch.manual_seed(0)
MODEL = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))
X, Y = torch.randn(12, 3), torch.arange(12) % 3
SETTING = MODEL, nn.CrossEntropyLoss(), [(X, Y)]
H, G = cs.hessian(*SETTING), cs.ggn(*SETTING)
SOLUTION = cs.eigsh(H, k=4)
RANKING = cs.masks.by_magnitude(MODEL)


def line():
    return cs.loss_along(H, SOLUTION.eigenvectors[:, 0], radius=0.1, points=5)


KEPT = {
    "Estimate": lambda: cs.trace(H, method="hutchinson", max_products=20),
    "DiagonalEstimate": lambda: cs.diagonal(H),
    "NormBound": lambda: cs.spectral_norm(H),
    "Density": lambda: cs.density(H, num_probes=2, num_steps=5),
    "OverlapCurve": lambda: cs.overlap(cs.certify(H, SOLUTION), RANKING),
    "FractionCurve": lambda: cs.gradient_fraction(H.gradient(), SOLUTION),
    "OverlapEstimate": lambda: cs.overlap_without_vectors(H, RANKING, 3, num_probes=2, num_steps=5),
    "NullModel": lambda: cs.mask_null(SOLUTION, RANKING),
    "OverlapMatrix": lambda: cs.overlap_matrix([SOLUTION, cs.eigsh(G, k=4)], [1, 3]),
    "ProxyCurve": lambda: cs.proxies.sub_trace(H, RANKING),
    "LineProfile": line,
    "Scree": lambda: cs.scree(H, SOLUTION, confidence=0.9),
    "FrobeniusEstimate": lambda: cs.posterior_error(H, SOLUTION),
    "Population": lambda: cs.population(H, SOLUTION, folds=4, progress=False),
    "PopulationTrace": lambda: cs.population_trace(H, folds=4, progress=False),
    "LearningCurve": lambda: cs.learning_curve(H, SOLUTION, KEPT["Population"](), halvings=1, repeats=2, progress=False),
}
SHOWN = KEPT | {
    "Solution": lambda: SOLUTION,
    "SingularSolution": lambda: cs.svds(H, 2),
    "Splitting": lambda: cs.splitting(H, G, k=2),
    "ClassStructure": lambda: cs.class_structure(cs.Objective(*SETTING)),
    "Plan": lambda: cs.plan(H, 3),
    "Preflight": lambda: cs.preflight(H),
    "Ranking": lambda: RANKING,
    "Mask": lambda: RANKING.first(5),
    "Tracker": lambda: followed(),
    "LinearSolution": lambda: cs.solve(G, H.gradient(), damping=0.1),
    "FunctionResult": lambda: cs.function(G, H.gradient(), "sqrt", damping=0.1),
    "RayleighQuotient": lambda: cs.rayleigh_quotient(H, cs.eigsh(G, k=2)),
    "Posterior": lambda: cs.laplace(G, k=2),
    "Comparison": lambda: cs.compare(H, G, k=3, damping=0.5),
    "Influence": lambda: cs.influence(G, [(X, Y)], damping=0.1),
    "GeneralizedPairs": lambda: seen_by_optimizer().generalized_pairs(cs.eigsh(seen_by_optimizer(), k=2)),
    "StabilityThreshold": lambda: seen_by_optimizer().threshold,
}


def seen_by_optimizer():
    return cs.preconditioned(H, torch.optim.SGD(MODEL.parameters(), lr=0.1, momentum=0.9))


def followed():
    tracker = cs.Tracker(H, k=2, every=1)
    tracker.step()
    return tracker


def same(first, second):
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(torch.nan_to_num(first), torch.nan_to_num(second))
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[name], second[name]) for name in first)
    if hasattr(first, "__dataclass_fields__"):
        return type(first) is type(second) and all(
            same(getattr(first, f), getattr(second, f)) for f in first.__dataclass_fields__
        )
    return first == second or first != first


@pytest.mark.parametrize("name", KEPT)
def test_a_saved_result_is_the_same_when_it_is_opened(name, tmp_path):
    made = KEPT[name]()
    assert type(made).__name__ == name
    made.save(tmp_path / "kept")
    assert same(made, cs.open(tmp_path / "kept"))
    assert same(made, type(made).load(tmp_path / "kept"))
    with pytest.raises(RunConflict, match="overwrite=True"):
        made.save(tmp_path / "kept")
    made.save(tmp_path / "kept", overwrite=True)
    assert json.loads((tmp_path / "kept").read_text())["curvscope result"] == name


def test_results_are_opened_by_a_process_that_imported_nothing_else(tmp_path):
    assert {kind.__module__.split(".")[1] for kind in Saved._kinds.values()} <= set(ROOMS)
    kinds = ["OverlapCurve", "FrobeniusEstimate", "LineProfile"]
    for name in kinds:
        KEPT[name]().save(tmp_path / name)
    script = f"import curvscope as cs; print([type(cs.open(name)).__name__ for name in {kinds}])"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == str(kinds), done.stderr


@pytest.mark.parametrize("name", KEPT)
def test_a_result_is_plain_data_and_a_frame(name):
    pandas = pytest.importorskip("pandas")
    made = KEPT[name]()
    assert json.loads(json.dumps(made.to_dict()))
    table = made.to_pandas()
    assert isinstance(table, pandas.DataFrame)
    assert len(table) >= 1
    assert not table.isna().all(axis=None)


@pytest.mark.parametrize("name", SHOWN)
def test_a_result_is_shown_on_one_screen(name):
    made = SHOWN[name]()
    text = repr(made)
    assert text == str(made)
    assert len(text.splitlines()) <= 30
    assert max(map(len, text.splitlines())) <= 180
    assert not any(word in text for word in ("object at", "tensor(", "dtype="))
    assert made._repr_html_() == f"<pre>{html.escape(text)}</pre>"


@pytest.mark.parametrize("name", [name for name in SHOWN if name not in ("Solution", "SingularSolution", "Preflight")])
def test_a_name_that_is_nearly_right_is_answered(name):
    made = SHOWN[name]()
    real = next(found for found in dir(type(made)) if not found.startswith("_") and len(found) > 5)
    with pytest.raises(AttributeError, match=f"did you mean '{real}'|use "):
        getattr(made, real[:-1] + "zz" if real + "zz" not in dir(made) else real[:-2])


def test_what_is_no_saved_result_stays(tmp_path):
    (tmp_path / "notes.txt").write_text("thesis")
    curve = KEPT["OverlapCurve"]()
    with pytest.raises(RunConflict, match="something else"):
        curve.save(tmp_path / "notes.txt", overwrite=True)
    assert (tmp_path / "notes.txt").read_text() == "thesis"
    with pytest.raises(RunNotFound, match="no directory"):
        curve.save(tmp_path / "missing" / "curve.json")
    with pytest.raises(InvalidType, match="overwrite"):
        curve.save(tmp_path / "curve.json", overwite=True)
    with pytest.raises(RunNotFound):
        cs.OverlapCurve.load(tmp_path / "curve.json")


@pytest.mark.parametrize(
    "content",
    [
        "thesis",
        "[]",
        "{}",
        '{"curvscope result": "Estimate", "fields": {"value": 1.0}}',
        '{"curvscope result": "Solution", "fields": {}}',
        '{"curvscope result": "Estimate", "fields": {"no_such": 1}}',
        '{"curvscope result": "OverlapCurve", "fields": {"k": {"tensor": ["x"], "dtype": "float64", "shape": [1]}}}',
        '{"curvscope result": "OverlapCurve", "fields": {"k": {"tensor": [1], "dtype": "load", "shape": [1]}}}',
    ],
)
def test_another_file_is_refused(content, tmp_path):
    (tmp_path / "file").write_text(content)
    with pytest.raises(DamagedData):
        cs.open(tmp_path / "file")


def test_a_file_of_another_kind_names_it(tmp_path):
    cs.trace(H).save(tmp_path / "trace")
    with pytest.raises(DamagedData, match="Estimate, not a Density"):
        cs.Density.load(tmp_path / "trace")


def test_numbers_without_end_are_kept(tmp_path):
    cs.Estimate(2.0, float("inf"), 1).save(tmp_path / "trace")
    assert cs.open(tmp_path / "trace").stderr == float("inf")


def test_a_diagonal_is_told_by_name():
    found = cs.diagonal(H)
    assert {name: part.shape for name, part in found.unflatten().items()} == {n: p.shape for n, p in MODEL.named_parameters()}
    assert torch.equal(torch.cat([part.flatten() for part in found.unflatten().values()]), found.value)
    assert sum(found.by_layer().values()) == pytest.approx(float(found.value.sum()))
    with pytest.raises(InvalidArgument, match="no named parameters"):
        cs.diagonal(torch.eye(3)).unflatten()


def test_a_mask_is_told_by_name():
    mask = cs.masks.by_magnitude(MODEL, k=7)
    flat = torch.cat([part.flatten() for part in mask.unflatten().values()])
    assert torch.equal(flat, mask.to_bool())
    assert cs.overlap(SOLUTION, mask.unflatten()).value.tolist() == cs.overlap(SOLUTION, mask).value.tolist()
    with pytest.raises(InvalidArgument, match=r"H\.unflatten"):
        cs.masks.from_indices([1], 5).unflatten()


def test_vectors_are_projected_in_every_form():
    V = SOLUTION.eigenvectors.to_tensor()
    v = torch.randn(V.shape[0])
    expected = V @ (V.T @ v)
    assert torch.allclose(SOLUTION.project(v), expected, atol=1e-6)
    assert torch.allclose(H.flatten(SOLUTION.project(H.unflatten(v))), expected, atol=1e-6)
    assert np.allclose(SOLUTION.project(v.numpy()), expected, atol=1e-6)
    assert torch.allclose(SOLUTION.project(torch.stack([v, v], dim=1))[:, 1], expected, atol=1e-6)
    for wrong in (v[:-1], 3, None):
        with pytest.raises(InvalidArgument, match="cannot project"):
            SOLUTION.project(wrong)


def test_gradients_are_taken_in_every_form():
    g = H.gradient()
    expected = cs.gradient_fraction(g, SOLUTION).value
    by_name = H.unflatten(g)
    for form in (by_name, list(by_name.values()), tuple(by_name.values()), g.numpy()):
        assert torch.allclose(cs.gradient_fraction(form, SOLUTION).value, expected)
    backwards = dict(reversed(by_name.items()))
    assert torch.allclose(cs.gradient_fraction(backwards, SOLUTION).value, expected)
    with pytest.raises(InvalidArgument, match="in order"):
        cs.gradient_fraction(list(backwards.values()), SOLUTION)
    with pytest.raises(InvalidType, match="cannot read a vector"):
        cs.gradient_fraction("gradient", SOLUTION)


def test_estimates_are_rounded_and_compared():
    trace, norm = cs.trace(H), cs.spectral_norm(H)
    exact = float(torch.trace(H.to_dense()))
    assert round(trace, 2) == round(exact, 2)
    assert int(trace * 100) == int(trace.value * 100)
    assert norm <= norm.value
    assert norm >= norm.value
    assert np.asarray(norm) == norm.value


def test_densities_are_drawn_linear_and_with_a_label():
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    found = cs.density(H)
    axes = [found.plot(Figure().subplots(), log=log, label="step 7") for log in (True, False)]
    assert [ax.get_yscale() for ax in axes] == ["log", "linear"]
    assert "step 7" in axes[0].get_legend_handles_labels()[1]
    curve = KEPT["OverlapCurve"]().plot(Figure().subplots(), log=False, label="mine")
    assert (curve.get_xscale(), curve.get_legend_handles_labels()[1][0]) == ("linear", "mine")
