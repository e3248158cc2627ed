"""Closed choices as users type them: an editor completes the right ones, and a type checker finds the others.

Checked by tests/typing/test_editors.py, not run: every line that ends with ``# wrong`` must be refused, and no other one.
"""

import torch
from torch import nn

import curvscope as cs
from curvscope.solvers import hmt, nystrom, singlepass
from curvscope.subspaces import proxies, similarity_matrix

model = nn.Linear(4, 3)
data = [(torch.randn(8, 4), torch.randint(3, (8,)))]
A = cs.ggn(model, nn.CrossEntropyLoss(), data)
Q, values = torch.eye(15)[:, :3], torch.arange(15.0)

cs.eigsh(A, 3, which="BE", method="nystrom")
cs.eigsh(A, 3, which="LR")  # wrong
cs.eigsh(A, 3, method="lanczo")  # wrong
cs.eigsh(A, 3, method=cs.Seigh(num_outer=6, core="published", sketch="ssrft", left_sketch="gaussian"))
cs.Seigh(core="publishd")  # wrong
cs.Seigh(left_sketch="sparse")  # wrong
cs.HMT(sketch="normal")  # wrong
cs.seigh(A, num_outer=6, core="hermitian", sketch="rademacher")
cs.seigh(A, num_outer=6, core="symmetric")  # wrong
cs.seigh(A, num_outer=6, sketch="sign")  # wrong
cs.adaptive_seigh(A, sketch="gauss")  # wrong
hmt(A, num_outer=6, sketch="gausian")  # wrong
nystrom(A, num_outer=6, which="LARGEST")  # wrong
singlepass(A, num_outer=6, sketch="srft")  # wrong
cs.ssvd(A, num_outer=6, method="hmt", left_sketch="phase")
cs.ssvd(A, num_outer=6, method="randomized")  # wrong
cs.plan(A, 3, method="krylv")  # wrong

cs.grassmann.distance(Q, Q, "chordal_f", unequal="metric")
cs.grassmann.distance(Q, Q, "chordal")  # wrong
cs.grassmann.distance(Q, Q, unequal="pad")  # wrong
cs.grassmann.similarity(Q, Q, metric="iou")
cs.grassmann.similarity(Q, Q, metric="jaccard")  # wrong
cs.grassmann.baseline(15, 3, kind="masks", metric="hamming")
cs.grassmann.baseline(15, 3, kind="mask")  # wrong
for metric in cs.grassmann.METRICS:
    cs.grassmann.largest_distance(metric, (3, 3))
similarity_matrix([Q, Q], "overlaps")  # wrong
proxies.sam(A, cs.masks.random(15), 0.1, method="sampled")
proxies.sam(A, cs.masks.random(15), 0.1, method="monte carlo")  # wrong
proxies.sam_deltas(A, 0.1, method="sampled")  # wrong

cs.density(A, method="exact").outliers("elbow")
cs.density(A, method="slq")  # wrong
cs.density(A).outliers("knee")  # wrong
cs.density(A).bulk_edges("knee")  # wrong
cs.count_outliers(values, rule="ratios")  # wrong
cs.trace(A, method="hutchinson")
cs.trace(A, method="hutch")  # wrong
cs.diagonal(A, method="xdiag")  # wrong

cs.hessian(model, nn.CrossEntropyLoss(), data, reduction="sum", batchnorm="batch", weights="copy", dtype="float64")
cs.hessian(model, nn.CrossEntropyLoss(), data, reduction="none")  # wrong
cs.hessian(model, nn.CrossEntropyLoss(), data, batchnorm="train")  # wrong
cs.ggn(model, nn.CrossEntropyLoss(), data, precision="bf16")  # wrong
cs.problems.spectrum("plus_minus", 100)
cs.problems.spectrum("powerlaw", 100)  # wrong
cs.problems.get("mnist16").curvature_batches("test")
cs.problems.get("mnist16").curvature_batches("validation")  # wrong
cs.Workers.cluster("slurm", jobs=2)
cs.Workers.cluster("kubernetes", jobs=2)  # wrong
