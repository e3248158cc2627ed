"""The three solvers on a real Hessian: 7,030 parameters, 100 steps into training."""

import pytest
import torch

import curvscope as cs
from curvscope.training import train


@pytest.fixture(scope="module")
def trained():
    problem = cs.problems.get("mnist16")
    model = problem.model()
    train(problem, model, cs.Recorder(model, [100]))
    return problem, model


@pytest.fixture(scope="module")
def exact(trained):
    """Independent of our solvers: the float64 matrix through SciPy."""
    from scipy.linalg import eigh

    problem, model = trained
    H = cs.hessian(model, problem.criterion, problem.curvature_batches(), dtype=torch.float64)
    matrix = torch.cat([H @ block for block in torch.eye(7030, dtype=torch.float64).split(64, dim=1)], dim=1)
    assert (matrix - matrix.T).abs().max() <= 1e-12 * matrix.abs().max()
    values, vectors = eigh(matrix.numpy(), overwrite_a=True, check_finite=False)
    values, vectors = torch.from_numpy(values), torch.from_numpy(vectors)
    order = values.abs().argsort(descending=True)[:350]
    return values[order], vectors[:, order]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_krylov_and_seigh_against_the_dense_solver(trained, exact):
    problem, model = trained
    values, vectors = exact
    H = cs.hessian(model, problem.criterion, problem.curvature_batches())
    ranking = cs.masks.by_magnitude(model)
    truth = cs.overlap(vectors, ranking)

    krylov = cs.eigsh(H, k=350, method="krylov", max_products=710, tol=0)
    assert krylov.cost.products == 710
    assert ((krylov.eigenvalues - values) / values).abs()[:300].max() <= 1e-5
    space = vectors[:, :100].T @ krylov.eigenvectors.columns(0, 100).double()
    assert 1 - float(space.square().sum()) / 100 <= 1e-6
    torch.testing.assert_close(cs.overlap(krylov, ranking).value[:300], truth.value[:300], rtol=1e-4, atol=1e-7)
    assert float(krylov.relative_residuals.median()) <= 1e-5

    sketch = cs.seigh(H, num_outer=355, num_inner=710, k=350)
    assert sketch.cost.products == 710
    assert cs.overlap(sketch, ranking).at(100) == pytest.approx(truth.at(100), rel=0.1)
    assert float(sketch.relative_residuals.median()) > 1e3 * float(krylov.relative_residuals.median())
