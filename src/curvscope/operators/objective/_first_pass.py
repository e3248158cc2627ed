"""The first pass over the data of an objective: what its batches weigh, its mean loss, and what is wrong with either."""

from __future__ import annotations

from dataclasses import dataclass
from math import isclose

import torch
from torch import Tensor

from curvscope.errors import CurvscopeError, InvalidArgument, NotDifferentiable
from curvscope.operators._layouts import equal
from curvscope.operators._parameters import leaves
from curvscope.operators.fingerprint import fingerprint
from curvscope.operators.objective._arithmetic import CoarsestArithmetic
from curvscope.operators.objective._batch_loss import BatchLoss
from curvscope.operators.objective._batches import Batch, check_batch, move, split
from curvscope.operators.objective._isolation import isolated
from curvscope.operators.objective._labels import predicts_next_token
from curvscope.operators.objective._losses import COUNTED, advice_on, checked_value, depends_on, independent, name_of
from curvscope.operators.objective._weights import Sizes, ask_for_weights, is_mean_of_pieces, verified
from curvscope.operators.objective._writes import refuse_written


@dataclass(frozen=True)
class FirstPass:
    """Facts about the data of an objective, from one pass over it.

    Attributes:
        num_batches: how many there are.
        num_pieces: (micro-)batches that have loss terms.
        total_terms: loss terms of all batches, what the weights are divided by; 1 for a loss that sums.
        mean_loss: at the parameters.
        digest: of batches and their weights.
        sizes: of the batches, to check their weights by.
    """

    num_batches: int
    num_pieces: int
    total_terms: float
    mean_loss: float
    digest: str
    sizes: Sizes


def look_through(objective: BatchLoss, *, new: bool) -> FirstPass:
    """Evaluate the loss of every batch once. Notes in ``objective`` what evaluating it needs.

    Args:
        objective: not evaluated yet, or at other data or values than before.
        new: whether the model's own tensors are what was copied, so that differences tell which were written to.

    Raises:
        InvalidArgument: no batch, no loss terms, a loss that is no scalar. NotFinite: NaN or infinity in one.
        NotDifferentiable: the loss does not depend on the parameters. WrittenParameter: the model writes to one.
    """
    count, pieces, total, weighted, digests = 0, 0, 0.0, 0.0, []
    sizes = Sizes()
    objective.evaluation.looking = True
    with objective.isolated(), torch.no_grad():
        for count, batch in enumerate(objective.data, start=1):
            check_batch(batch, count, pairs=objective.has_criterion)
            cut = []
            sizes.add(batch)
            for piece in split(batch, objective.microbatch):
                if objective.weight is None and objective.shifted is None and not objective.has_criterion:
                    objective.shifted = predicts_next_token(objective.model, lambda part: _loss_here(objective, part), piece)
                moved, terms = move(piece, objective.device, objective.dtype), objective.terms(piece)
                cut.append(terms)
                if objective.draws:  # every piece has masks of its own
                    digests.append(fingerprint(moved, terms))
                if terms:
                    objective.seed(pieces)
                    weighted += terms * _checked_loss(objective, moved, count)
                    total, pieces = total + terms, pieces + 1
            if not objective.draws:
                digests.append(_digest(objective, batch, cut))
    objective.evaluation.looking = False
    if new:
        _refuse_written(objective)
    if count == 0:
        raise InvalidArgument("data yielded no batch: curvature needs at least one")
    if not total > 0:
        raise InvalidArgument(f"the batches hold {total:g} loss terms together, expected more than 0")
    if not objective.depends and not _depends_in_place(objective):
        raise NotDifferentiable(independent(objective.parameters.names))
    terms_of_all = 1.0 if objective.sums else total
    return FirstPass(count, pieces, terms_of_all, weighted / terms_of_all, fingerprint(digests), sizes)


def weights_are_right(objective: BatchLoss, found: FirstPass) -> bool | None:
    """Verify that batches are weighted by what the loss averages over, on two of them; None where nothing can tell.

    With dropout off and running statistics: they have no part in the weights, and would hide them.

    Raises:
        InvalidArgument: batches of unequal size whose weights are wrong, or cannot be verified.
    """
    if found.num_pieces < 2 or objective.weight is not None or type(objective.criterion) in COUNTED:
        return None
    limit = min(1e2 * objective.rounding, 0.1)

    def is_mean(batch: Batch) -> bool | None:
        return is_mean_of_pieces(lambda part: _loss_here(objective, part), objective.terms, batch, objective.microbatch, limit)

    with isolated(objective.model, objective.device, batch_statistics=False, dropout=False), torch.enable_grad():
        verdict = verified(found.sizes, is_mean)
    if not objective.sums:
        ask_for_weights(found.sizes, verdict)
    return verdict


def _refuse_written(objective: BatchLoss) -> None:
    """Raise WrittenParameter where the copies and the model's own parameters, which were equal, no longer are."""
    own, projected = dict(objective.model.named_parameters()), objective.evaluation.projected
    copies = objective.copies
    refuse_written(
        [
            name
            for name, tensor in own.items()
            if name in copies
            and copies[name].untyped_storage().data_ptr() not in projected
            and not equal(objective.placed(tensor), copies[name])
        ]
    )


def _depends_in_place(objective: BatchLoss) -> bool:
    """Return whether the loss depends on the model's own parameters, where it does not on exchanged ones."""
    batch = move(next(iter(objective.data)), objective.device, objective.dtype)
    try:
        with objective.isolated(), objective.in_own_parameters() as chosen, torch.enable_grad():
            return depends_on(objective.loss(chosen, batch), chosen)
    except (RuntimeError, TypeError, ValueError, LookupError):
        return False


def _digest(objective: BatchLoss, batch: Batch, terms: list[float]) -> str:
    """Of a batch and its weight, whatever the pieces are that it is taken in, where these change nothing but rounding."""
    whole = objective.terms(batch)
    additive = all(terms) if objective.sums else isclose(sum(terms), whole, rel_tol=1e-6)
    return fingerprint(move(batch, torch.device("cpu"), objective.dtype), whole, *(() if additive else terms))


def _loss_and_arithmetic(objective: BatchLoss, batch: Batch) -> Tensor:
    """The loss at these parameters; the first one also tells what it is computed in, and whether it depends on them."""
    if objective.loss_rounding and objective.depends:
        return objective.loss_value(objective.values, batch)
    values = leaves(objective.values)
    with torch.enable_grad(), CoarsestArithmetic() as arithmetic:
        loss = objective.loss(values, batch)
    objective.loss_rounding = max(objective.loss_rounding, arithmetic.rounding or objective.chosen_rounding)
    objective.depends = objective.depends or depends_on(loss, values)
    return loss.detach() if isinstance(loss, Tensor) else loss


def _loss_here(objective: BatchLoss, batch: Batch) -> Tensor:
    objective.seed(0)
    return objective.loss_value(objective.values, move(batch, objective.device, objective.dtype))


def _checked_loss(objective: BatchLoss, batch: Batch, number: int) -> float:
    try:
        loss = _loss_and_arithmetic(objective, batch)
    except (RuntimeError, ValueError, LookupError) as error:
        if isinstance(error, CurvscopeError | torch.OutOfMemoryError | KeyError):
            raise
        told = f"the loss of batch {number} cannot be evaluated: {type(error).__name__}: {error}"
        raise InvalidArgument(f"{told}. {advice_on(str(error), objective.dtype)}") from error
    except (TypeError, AttributeError) as error:
        if not objective.has_criterion:
            raise
        called = name_of(objective.criterion).split()[0]
        raise InvalidArgument(
            f"batch {number} (x, y): {type(error).__name__}: {error}. Called were model(x) and, with what it returned, "
            f"{called}(output, y): for anything else pass a function loss(model, batch), whose first parameter has the name "
            "model, or loss='model' for Hugging Face models and batches"
        ) from error
    return checked_value(loss, f"the loss of batch {number}")
