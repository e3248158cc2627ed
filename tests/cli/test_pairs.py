"""What is done with the pairs of runs: overlap with another run or a mask in a file, compare, show, export, diagonal."""

import csv
import json
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import curvscope as cs
from curvscope.errors import InvalidArgument, RunConflict, RunNotFound

MODULE = """
import torch
from torch import nn

def make(scale=1.0):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    return model, nn.CrossEntropyLoss(), [(scale * torch.randn(20, 4), torch.arange(20) % 3)]
"""
D = 4 * 5 + 5 + 5 * 3 + 3


@pytest.fixture
def runs(curvscope, tmp_path, monkeypatch):
    """Two runs of the same network on other data; their solutions."""
    name = f"pairs_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    for run, scale in (("a", 1.0), ("b", 1.5)):
        assert curvscope("eigs", f"{name}.py", "--arg", f"scale={scale}", "-k", 6, "-o", run).status == 0
    yield cs.open("a"), cs.open("b")
    sys.modules.pop(name, None)


def shares(V, W):
    """The overlap |V_k' W_k|^2 / k of the first k columns, k = 1, 2, ..., in float64."""
    V, W = V.eigenvectors.to_tensor().double(), W.eigenvectors.to_tensor().double()
    return [float((V[:, :k].T @ W[:, :k]).square().sum() / k) for k in range(1, V.shape[1] + 1)]


def test_overlap_and_comparison_of_two_runs(curvscope, runs):
    expected = shares(*runs)
    curve = json.loads(curvscope("overlap", "a", "b", "--json").output)
    assert curve["overlap"] == pytest.approx(expected, rel=1e-6)
    compared = json.loads(curvscope("compare", "a", "b", "--json").output)
    assert compared["overlap"] == pytest.approx(expected, rel=1e-6)
    assert compared["eigenvalues"] == [run.eigenvalues.tolist() for run in runs]
    shown = curvscope("compare", "a", "b").output
    first, second = (float(run.eigenvalues[0]) for run in runs)
    assert f"{(second - first) / first:+.1e}" in shown
    assert "Overlap of the eigenspaces of a and b" in curvscope("overlap", "a", "b").output
    assert isinstance(curvscope("compare", "a", "nowhere").error, RunNotFound)
    assert "--mask random and b: pass one of them" in str(curvscope("overlap", "a", "b", "--mask", "random").error)


def test_runs_of_other_sizes_are_compared_by_eigenvalue_alone(curvscope, runs, tmp_path):
    cs.eigsh(torch.diag(torch.tensor([3.0, 2.0, 1.0])), k=2, run=tmp_path / "small")
    told = curvscope("compare", "a", "small")
    assert told.status == 0
    assert f"No overlap: a has D = {D}, small 3" in told.output
    assert "a has 6 pairs, small 2: the first 2 of both" in told.output


@pytest.mark.parametrize("form", ["bool.pt", "bool.npy", "row.npz", "named.npz", "named.safetensors", "named.pt", "places.npy"])
def test_a_mask_in_a_file(curvscope, runs, tmp_path, form):
    solution = runs[0]
    mask = torch.zeros(D, dtype=torch.bool)
    mask[torch.randperm(D, generator=torch.Generator().manual_seed(1))[:9]] = True
    shapes = dict(zip(solution.parameters.names, solution.parameters.shapes, strict=True))
    parts = mask.split([int(np.prod(shape)) for shape in shapes.values()])
    named = {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
    file = tmp_path / form
    match form:
        case "bool.pt":
            torch.save(mask, file)
        case "named.pt":
            torch.save(dict(reversed(named.items())), file)  # by name, not by order
        case "bool.npy":
            np.save(file, mask.numpy())
        case "places.npy":
            np.save(file, mask.nonzero().flatten().numpy())
        case "row.npz":
            np.savez(file, mask=mask.numpy())
        case "named.npz":
            np.savez(file, **{name: part.numpy() for name, part in named.items()})
        case "named.safetensors":
            save_file({name: part.to(torch.uint8) for name, part in named.items()}, file)
    V = solution.eigenvectors.to_tensor().double()
    captured = V[mask].square().sum(0).cumsum(0)
    expected = cs.overlap(solution, mask).value
    torch.testing.assert_close(expected, captured / torch.arange(1, 7).clamp(max=9), rtol=1e-6, atol=1e-9)
    found = json.loads(curvscope("overlap", "a", "--mask", form, "--json").output)
    assert found["overlap"] == pytest.approx(expected.tolist(), rel=1e-6)
    assert found["chance"] == pytest.approx(cs.overlap(solution, mask).chance.tolist())


def test_masks_that_cannot_be_read(curvscope, runs, tmp_path):
    np.save(tmp_path / "pickled.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "short.npy", np.ones(D - 1, dtype=bool))
    (tmp_path / "text.npz").write_text("no archive")
    save_file({"fc9.weight": torch.ones(D), "fc9.bias": torch.ones(2)}, tmp_path / "other.safetensors")
    for file, message in (
        ("nowhere.pt", "nowhere.pt: there is no such file"),
        ("pickled.npy", "pickled.npy cannot be read as a mask"),
        ("text.npz", "text.npz cannot be read as a mask"),
        ("short.npy", f"{D - 1} entries"),
        ("other.safetensors", "there is no mask for parameter '0.weight'"),
        ("mask.txt", "ends with one of .pt"),
        ("smallest", "--mask 'smallest': choose one of magnitude"),
    ):
        refused = curvscope("overlap", "a", "--mask", file)
        assert refused.status == 2
        assert message in str(refused.error), file


def test_a_curve_goes_into_a_file(curvscope, runs, tmp_path):
    curve = cs.overlap(runs[0], cs.masks.by_magnitude(sys.modules[next(n for n in sys.modules if n[:6] == "pairs_")].make()[0]))
    for name in ("new/c.csv", "c.json", "c.png", "c.svg"):
        told = curvscope("overlap", "a", "-o", name)
        assert f"Written: {name}" in told.output
        assert (tmp_path / name).stat().st_size > 0
    with (tmp_path / "new" / "c.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["overlap"]) for row in rows] == curve.value.tolist()
    assert [int(row["k"]) for row in rows] == list(range(1, 7))
    assert json.loads((tmp_path / "c.json").read_text())["chance"] == curve.chance.tolist()
    assert isinstance(curvscope("overlap", "a", "-o", "c.json").error, RunConflict)
    assert "ends with one of .csv" in str(curvscope("overlap", "a", "-o", "c.xlsx").error)


def test_show_and_export_of_a_run_and_of_saved_pairs(curvscope, runs, tmp_path):
    solution = runs[0]
    solution.save(tmp_path / "saved")
    values, vectors = solution.eigenvalues, solution.eigenvectors.to_tensor()
    assert json.loads(curvscope("info", "saved", "--json").output)["pairs"] == 6
    for place in ("a", "saved"):
        assert json.loads(curvscope("show", place, "--json").output)["eigenvalues"] == values.tolist()
        shown = curvscope("show", place, "-k", 2).output
        assert f"{values[1]:.6e}" in shown
        assert f"{values[2]:.6e}" not in shown
        assert curvscope("export", place, f"{place}.npz").status == 0
        assert np.array_equal(np.load(tmp_path / f"{place}.npz")["eigenvectors"], vectors.numpy())
        assert curvscope("export", place, "-o", f"new/{place}.safetensors").status == 0
        assert torch.equal(load_file(tmp_path / f"new/{place}.safetensors")["eigenvectors"], vectors)
        assert curvscope("export", place, f"{place}.csv").status == 0
        with (tmp_path / f"{place}.csv").open() as stream:
            rows = list(csv.DictReader(stream))
        assert [float(row["eigenvalue"]) for row in rows] == values.tolist()
        assert [float(row["residual_norm"]) for row in rows] == solution.residual_norms.tolist()
    for words, message in (
        (("export", "a"), "name a file, as in `curvscope export a x.npz`"),
        (("export", "a", "x.mat"), "ends with one of .h5"),
        (("export", "a", "x.npz", "-o", "y.npz"), "pass one of them"),
        (("export", "a", "a.csv"), "a.csv exists"),
        (("show", "nowhere"), "nowhere is no run"),
    ):
        refused = curvscope(*words)
        assert refused.status == 2
        assert message in str(refused.error)
    cs.ssvd(torch.eye(3), num_outer=2, run=tmp_path / "triplets")
    assert isinstance(curvscope("show", "triplets").error, InvalidArgument)


def test_a_diagonal_by_layer_and_in_a_file(curvscope, runs, tmp_path):
    made = sys.modules[next(n for n in sys.modules if n.startswith("pairs_"))].make()
    dense = cs.hessian(*made, dtype=torch.float64) @ torch.eye(D, dtype=torch.float64)
    exact = dense.diagonal()
    found = json.loads(curvscope("diagonal", "a", "--method", "exact", "-o", "d.npz", "--json").output)
    assert found["value"] == pytest.approx(exact.tolist(), abs=1e-6)
    assert found["layers"]["0.weight"][0] == pytest.approx(float(exact[:20].sum()), abs=1e-5)
    assert found["layers"]["all"][3] == pytest.approx(float(exact.max()), abs=1e-6)
    np.testing.assert_allclose(np.load(tmp_path / "d.npz")["value"], exact.numpy(), atol=1e-6)
    assert curvscope("diagonal", "a", "--method", "exact", "-o", "d.npy").status == 0
    np.testing.assert_allclose(np.load(tmp_path / "d.npy"), exact.numpy(), atol=1e-6)
    name = next(n for n in sys.modules if n.startswith("pairs_"))
    told = curvscope("diagonal", f"{name}.py", "-o", "d.safetensors", "--method", "hutchinson", "--max-products", 40)
    assert "Written: d.safetensors" in told.output
    estimate = load_file(tmp_path / "d.safetensors")
    assert float((estimate["value"] - exact).norm()) < 5 * float(estimate["stderr"].norm())


def test_a_report_goes_where_it_is_wanted(curvscope, runs, tmp_path):
    assert curvscope("report", "a", "-o", "pages/a.html").status == 0
    assert "eigenpairs" in (tmp_path / "pages" / "a.html").read_text()
    assert not (tmp_path / "a" / "report.html").exists()
    assert isinstance(curvscope("report", "a", "-o", "pages/a.html").error, RunConflict)
    assert "curvscope compare a b shows both" in str(curvscope("report", "a", "b").error)


def test_info_of_a_problem_and_list_of_studies(curvscope):
    assert json.loads(curvscope("info", "mnist16", "--json").output)["D"] == 7030
    listed = curvscope("study", "--list").output
    assert listed == curvscope("study", "list").output == curvscope("study").output
    assert "mnist16" in listed
