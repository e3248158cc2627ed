"""What users type, with the types they may count on; checked by mypy --strict, not run."""

from typing import assert_type

import torch
from torch import Tensor, nn

import curvscope as cs

model = nn.Sequential(nn.Linear(4, 3))
batches = [(torch.randn(8, 4), torch.randint(3, (8,)))]
H = cs.hessian(model, nn.CrossEntropyLoss(), batches)
assert_type(H @ torch.randn(H.shape[0]), Tensor)
assert_type(H.shape, tuple[int, int])
assert_type(H.fingerprint, str)

solution = cs.eigsh(H, k=3)
assert_type(solution, cs.Solution)
assert_type(solution.eigenvalues, Tensor)
assert_type(solution.eigenvectors.to_tensor(), Tensor)
assert_type(solution.vector(0), dict[str, Tensor])
assert_type(solution.status.converged, bool)
assert_type(solution.cost.products, int)
assert_type(cs.certify(H, solution), cs.Solution)
assert_type(cs.svds(H, 2), cs.SingularSolution)
assert_type(cs.eigsh_by_layer(H + cs.ggn(model, nn.CrossEntropyLoss(), batches)), dict[str, cs.Solution])

ranking = cs.masks.by_magnitude(model)
assert_type(ranking, cs.Ranking)
curve = cs.overlap(solution, ranking)
assert_type(curve.value, Tensor)
assert_type(curve.ratio, Tensor)
assert_type(cs.grassmann.angles(solution.eigenvectors, solution.eigenvectors), Tensor)
assert_type(cs.posterior_error(H, solution), cs.FrobeniusEstimate)
assert_type(cs.plan(H, 3), cs.Plan)
assert_type(cs.problems.get("mnist16").model(), nn.Module)

# options of other libraries, and results that unpack
assert_type(cs.eigsh(H, k=3, which="LA", method="krylov"), cs.Solution)
assert_type(cs.eigsh(H, k=3, which="SA", return_eigenvectors=False), Tensor)
assert_type(cs.eigsh(H, 3, maxiter=20, ncv=30), cs.Solution)
assert_type(cs.hessian(model, nn.CrossEntropyLoss(), batches, dtype="float64", strategy="auto").gradient(), Tensor)
assert_type(cs.ggn(model, nn.CrossEntropyLoss(), batches, damping=1e-3).offset, float)
assert_type(cs.masks.by_magnitude(model, 10), cs.Mask)
assert_type(float(cs.trace(H, method="hutch++")), float)
assert_type(curve.values, Tensor)
assert_type(cs.density(H).values, Tensor)
w, V = cs.eigsh(H, k=3)
cs.eigsh(H, k=3, which="XX")  # type: ignore[call-overload]
cs.trace(H, method="no such")  # type: ignore[arg-type]
