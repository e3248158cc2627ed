"""Papyan's class and cross-class structure of the Gauss-Newton matrix: a cheap predictor of its outliers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from curvscope.errors import InvalidArgument, InvalidType
from curvscope.operators import Objective, Operator
from curvscope.operators.objective import check_substitution
from curvscope.system import Displayed, Hinted, checked

MOST_CLASSES = 100


@dataclass(frozen=True, repr=False)
class ClassStructure(Displayed, Hinted):
    r"""Means of the output gradients by true class c and by the class c' that the loss is asked for.

    With p_n the predicted probabilities, J_n the Jacobian of the logits and shares w_c = N_c / N,

    .. math:: G = \frac1N \sum_n \sum_{c'} p_{nc'} d_{nc'} d_{nc'}^\top, \quad d_{nc'} = J_n^\top (p_n - e_{c'}), \quad
              d_{cc'} = \frac1{N_c} \sum_{n \in c} \sqrt{p_{nc'}}\, d_{nc'}

    and G is the part between the (c, c') means, sum w_c d_cc' d_cc'^T, and a rest within them, both semidefinite.

    Attributes:
        means: d_cc', (D, C, C): true class first.
        shares: w_c, float64 (C,).

    >>> import curvscope as cs
    >>> model, data = torch.nn.Linear(3, 2), [(torch.eye(3), torch.tensor([0, 1, 1]))]
    >>> structure = cs.class_structure(cs.Objective(model, torch.nn.CrossEntropyLoss(), data))
    >>> structure.means.shape, [round(float(share), 2) for share in structure.shares]
    (torch.Size([8, 2, 2]), [0.33, 0.67])
    """

    means: Tensor
    shares: Tensor

    _instead: ClassVar[Mapping[str, str]] = {
        "eigenvalues": "structure.class_values",
        "values": "structure.class_values",
        "outliers": "structure.class_values",
        "classes": "structure.num_classes",
        "weights": "structure.shares",
        "save": "torch.save(structure.means, path), and json.dumps(structure.to_dict())",
    }

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON; without the means."""
        return {"D": self.means.shape[0], "shares": self.shares.tolist(), "class_values": self.class_values.tolist()}

    def __str__(self) -> str:
        values = [f"{float(value):.4g}" for value in self.class_values[:12]]
        more = ", ..." if self.num_classes > 12 else ""
        return (
            f"Class structure of {self.num_classes} classes, D = {self.means.shape[0]}\n"
            f"shares of the classes: {float(self.shares.min()):.3g} to {float(self.shares.max()):.3g}\n"
            f"eigenvalues of the class part (predicted outliers): {', '.join(values)}{more}"
        )

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.shares)

    @property
    def class_means(self) -> Tensor:
        """d_c, the mean of d_cc' over c' != c, (D, C)."""
        other = ~torch.eye(self.num_classes, dtype=torch.bool, device=self.means.device)
        return (self.means * other).sum(dim=2) / (self.num_classes - 1)

    @property
    def class_values(self) -> Tensor:
        """Eigenvalues of the class part, sum_c w_c (C - 1) d_c d_c^T: the C predicted outliers, largest first."""
        scale = (self.shares * (self.num_classes - 1)).sqrt().to(self.means.device)
        return _squares(self.class_means.double() * scale)

    @property
    def values(self) -> Tensor:
        """Eigenvalues of everything between the means, sum_cc' w_c d_cc' d_cc'^T: at most C^2, largest first.

        The i-th is a lower bound for the i-th eigenvalue of G.
        """
        return _squares(self._between())

    @property
    def top_space(self) -> Tensor:
        """Orthonormal directions of :attr:`values`, in their order, (D, r): to compare with the top space of G or H."""
        block = self._between()
        sizes, turn = torch.linalg.eigh(block.T @ block)
        keep = sizes > len(sizes) * torch.finfo(torch.float64).eps * sizes[-1]
        directions: Tensor = (block @ turn[:, keep] / sizes[keep].sqrt()).flip(1)
        return directions

    def _between(self) -> Tensor:
        scaled = self.means.double() * self.shares.sqrt().to(self.means.device)[:, None]
        return scaled.flatten(1)


@checked
def class_structure(objective: Objective | Operator) -> ClassStructure:
    """The class and cross-class structure of a classifier under cross-entropy, without any product.

    Args:
        objective: with ``nn.CrossEntropyLoss()`` (mean, no smoothing or weights) on batches (x, y) of class indices; or a
            curvature operator of it.

    Cost: C gradients of all data, in C^2 pieces (one pass over each class for every c'); memory: C^2 vectors.

    Raises:
        InvalidType, InvalidArgument: another loss, targets that are no class indices, more than 100 classes, an empty class.
    Source: Papyan, Traces of class/cross-class structure pervade deep learning spectra (JMLR 2020).

    >>> model, data = nn.Linear(4, 3), [(torch.randn(9, 4), torch.arange(9) % 3)]
    >>> class_structure(Objective(model, nn.CrossEntropyLoss(), data)).values.shape
    torch.Size([9])
    """
    found = objective.objective if isinstance(objective, Operator) else objective
    if not isinstance(found, Objective):
        raise InvalidType(f"pass a curvscope.Objective or a curvature operator, not a {type(objective).__name__}")
    objective = found
    _check_loss(objective)
    check_substitution(objective)
    sums: Tensor | None = None
    counts = torch.zeros(0, dtype=torch.float64, device="cpu")
    with objective.isolated():
        for number, (batch, _) in enumerate(objective.batches()):
            objective.seed(number)
            targets = batch[1]
            _check_targets(targets)
            with torch.enable_grad():
                leaves = objective.leaves(objective.values)
                logits = objective.output(leaves, batch)
            if sums is None:
                classes = logits.shape[-1]
                if logits.ndim != 2 or not 2 <= classes <= MOST_CLASSES:
                    raise InvalidArgument(f"logits of shape {tuple(logits.shape)}: expected (samples, 2 to {MOST_CLASSES})")
                sums = torch.zeros(objective.parameters.size, classes, classes, dtype=logits.dtype, device=logits.device)
                counts = torch.zeros(classes, dtype=torch.float64, device="cpu")
            counts += torch.bincount(targets.cpu(), minlength=len(counts)).double()
            _add(sums, objective, leaves, logits, targets)
    if sums is None or bool((counts == 0).any()):
        empty = (counts == 0).nonzero().flatten().tolist()
        raise InvalidArgument(f"classes {empty} have no sample: the structure needs one of each")
    return ClassStructure(sums / counts.to(sums.device, sums.dtype)[:, None], counts / counts.sum())


def _add(sums: Tensor, objective: Objective, leaves: tuple[Tensor, ...], logits: Tensor, targets: Tensor) -> None:
    """Add the batch's sqrt(p_nc') J_n' (p_n - e_c') to the sums of its classes."""
    probabilities = logits.detach().softmax(dim=1)
    classes = logits.shape[1]
    for true in targets.unique().tolist():
        members = targets == true
        for asked in range(classes):
            weights = torch.zeros_like(probabilities)
            weights[members] = probabilities[members]
            weights[members, asked] -= 1
            weights *= probabilities[:, asked, None].sqrt()
            pieces = torch.autograd.grad(logits, leaves, weights, retain_graph=True, materialize_grads=True)
            sums[:, true, asked] += objective.parameters.join(pieces)


def _squares(block: Tensor) -> Tensor:
    squares: Tensor = torch.linalg.eigvalsh(block.T @ block).clamp(min=0).flip(0).cpu()
    return squares


def _check_loss(objective: Objective) -> None:
    loss = objective.criterion
    plain = (
        isinstance(loss, nn.CrossEntropyLoss) and loss.weight is None and not loss.label_smoothing and loss.reduction == "mean"
    )
    if not (objective.has_criterion and plain):
        raise InvalidArgument(f"class structure is about nn.CrossEntropyLoss() without weights, not {objective.loss_name}")


def _check_targets(targets: Tensor) -> None:
    if targets.ndim != 1 or targets.is_floating_point() or bool((targets < 0).any()):
        raise InvalidArgument(f"targets of shape {tuple(targets.shape)}, {targets.dtype}: expected one class index a sample")
