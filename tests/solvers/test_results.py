"""Solutions as people use them: unpacked, counted, cut, saved again, as plain data."""

import json

import numpy as np
import pytest
import torch

import curvscope as cs
from curvscope.errors import InvalidArgument, InvalidType, RunConflict

A = torch.diag(torch.tensor([5.0, -4.0, 3.0, 0.5, 0.1], dtype=torch.float64))


@pytest.fixture(scope="module")
def solution():
    return cs.certify(A, cs.eigsh(A, k=4))


def test_unpacks_as_torch_linalg_eigh_does(solution):
    w, V = solution
    assert torch.allclose(w, torch.tensor([5.0, -4.0, 3.0, 0.5], dtype=torch.float64))
    assert V.shape == (5, 4)
    assert torch.allclose(A @ V[:, 1], w[1] * V[:, 1])
    U, S, V = cs.svds(A, k=2)
    assert torch.allclose(U @ torch.diag(S) @ V.T, torch.diag(torch.tensor([5.0, -4.0, 0, 0, 0]).double()), atol=2e-2)


def test_counts_pairs_and_gives_them(solution):
    assert len(solution) == 4
    value, vector = solution[-1]
    assert value == pytest.approx(0.5)
    assert torch.allclose(A @ vector, value * vector, atol=1e-10)
    assert [round(value, 6) for value, _ in solution.pairs()] == [5, -4, 3, 0.5]
    with pytest.raises(IndexError, match="has 4"):
        solution[4]
    with pytest.raises(InvalidArgument, match="eigenvalues"):
        solution[[0, 1]]


def test_short_names_are_the_long_ones(solution):
    assert solution.values is solution.eigenvalues
    assert solution.vectors is solution.eigenvectors
    assert solution.residuals is solution.residual_norms
    assert solution.converged
    assert solution.converged.all()
    assert solution.products == solution.cost.products + solution.cost.certificate_products
    assert bool((solution.lower <= solution.values).all())
    assert bool((solution.upper >= solution.values).all())


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_certificate_of_the_first_pairs_holds(solution, count):
    part = solution[:count]
    assert len(part) == count
    assert part.eigenvectors.shape == (5, count)
    assert part.certificate.tail.bound >= float(A.diagonal().abs().sort(descending=True).values[count]) - 1e-12
    assert part.certificate.complete == count
    assert bool((part.intervals[:, 0] <= part.values).all())


def test_other_slices_prove_nothing_of_completeness(solution):
    part = solution[1:3]
    assert part.certificate is None
    assert torch.allclose(part.values, torch.tensor([-4.0, 3.0], dtype=torch.float64))
    assert torch.allclose(solution[::-1].vectors[:, 0], solution.vectors[:, 3])
    assert solution[:].certificate is solution.certificate
    ends = cs.certify(A, cs.eigsh(A, k=3, which="LA"))
    assert ends[:2].certificate is None
    with pytest.raises(InvalidArgument, match="no pair"):
        solution[4:]


def test_as_plain_data(solution, tmp_path):
    assert np.asarray(solution).shape == (4,)
    assert json.loads(json.dumps(solution.to_dict()))["eigenvalues"][0] == pytest.approx(5)
    np.savez(tmp_path / "x.npz", values=solution.values, vectors=solution.vectors)
    assert np.load(tmp_path / "x.npz")["vectors"].shape == (5, 4)
    pandas = pytest.importorskip("pandas")
    assert isinstance(solution.to_pandas(), pandas.DataFrame)
    assert repr(solution) == str(solution)
    assert "<pre>" in solution._repr_html_()


def test_torch_save_and_load(solution, tmp_path):
    torch.save(solution, tmp_path / "s.pt")
    again = torch.load(tmp_path / "s.pt", weights_only=False)
    assert torch.equal(again.values, solution.values)
    assert torch.equal(again.vectors[:], solution.vectors[:])


def test_saving_again_takes_the_place_of_a_saved_solution_alone(solution, tmp_path):
    solution.save(tmp_path / "run")
    with pytest.raises(RunConflict, match="overwrite=True"):
        solution.save(tmp_path / "run")
    solution[:2].save(tmp_path / "run", overwrite=True)
    assert len(cs.open(tmp_path / "run")) == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.tex").write_text("x")
    for folder in ("own", "run"):
        if folder == "run":
            (tmp_path / "run" / "notes.txt").write_text("x")
        with pytest.raises(RunConflict, match="something else"):
            solution.save(tmp_path / folder, overwrite=True)
    assert (tmp_path / "own" / "thesis.tex").exists()


def test_names_of_other_libraries_lead_to_ours(solution):
    words = {"eigvals": "eigenvalues", "certify": "cs.certify", "summary": "print", "eigenvalue": "eigenvalues"}
    for name, word in words.items():
        with pytest.raises(AttributeError, match=word):
            getattr(solution, name)
    assert not hasattr(solution, "__cuda_array_interface__")


def test_unknown_arguments_lead_to_ours():
    for name, word in {"num_probs": "num_probes", "sigma": "kernel width", "num_steeps": "num_steps"}.items():
        with pytest.raises(InvalidType, match=word):
            cs.density(A, **{name: 3})
    with pytest.raises(InvalidType, match="trace has no argument"):
        cs.trace(A, maxit=0.1, maxiter=3)


def test_shares_by_layer_are_those_of_the_unflattened_vectors():
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Tanh(), torch.nn.Linear(2, 1))
    solution = cs.eigsh(cs.hessian(model, torch.nn.MSELoss(), [(torch.randn(8, 3), torch.randn(8, 1))]), k=3)
    shares = solution.by_layer()
    for i in range(3):
        for name, tensor in solution.vector(i).items():
            assert float(shares[name][i]) == pytest.approx(float(tensor.double().square().sum()))
    assert torch.allclose(sum(shares.values()), torch.ones(3, dtype=torch.float64), atol=1e-6)
    assert solution.unflatten(0).keys() == solution.vector(0).keys()
