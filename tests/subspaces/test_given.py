"""Masks in the forms that people hold, judged against sums of squared rows formed by hand."""

import copy

import numpy as np
import pytest
import torch
from torch.nn.utils import prune

import curvscope as cs
from curvscope.errors import InvalidArgument, InvalidType
from curvscope.subspaces import masks


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2))


@pytest.fixture(scope="module")
def solution(model):
    torch.manual_seed(1)
    return cs.eigsh(cs.hessian(model, torch.nn.MSELoss(), [(torch.randn(16, 4), torch.randn(16, 2))]), k=5)


def captured(solution, chosen):
    V = solution.eigenvectors.to_tensor().double()
    return torch.stack([(V[chosen][:, :k] ** 2).sum() / k for k in range(1, 6)])


def test_booleans_zeros_and_ones_places_lists_and_names_are_one_mask(model, solution):
    parts = {name: p.detach().abs() > 0.2 for name, p in model.named_parameters()}
    chosen = torch.cat([part.flatten() for part in parts.values()])
    right = captured(solution, chosen)
    other = dict(reversed(parts.items()))
    forms = [
        chosen,
        chosen[:, None],
        chosen.numpy(),
        chosen.tolist(),
        chosen.long(),
        chosen.float(),
        chosen.nonzero().flatten(),
        list(parts.values()),
        [part.numpy() for part in parts.values()],
        parts,
        other,
        masks.from_dict(parts),
        masks.from_dict(other),
        masks.from_dict(other, layers=model),
        masks.from_indices(chosen, len(chosen)),
        ~~masks.from_dict(parts),
    ]
    for form in forms:
        assert torch.allclose(cs.overlap(solution, form).value, right), form


def test_scores_are_ranked_and_signed_vectors_refused(model, solution):
    flat = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
    right = cs.overlap(solution, masks.by_magnitude(model)).value
    assert torch.equal(cs.overlap(solution, flat.abs()).value, right)
    assert torch.equal(cs.overlap(solution, flat.abs().numpy()).value, right)
    with pytest.raises(InvalidArgument, match="gradient_fraction"):
        cs.overlap(solution, flat)
    unit = solution.eigenvectors[:, 1]  # a vector of norm one is a space, as before
    assert cs.overlap(solution, unit).value.tolist() == pytest.approx([0.0], abs=1e-6)


def test_tensors_by_name_are_brought_into_the_solutions_order(model, solution):
    named = {name: p.detach() for name, p in model.named_parameters()}
    right = cs.overlap(solution, masks.by_magnitude(model)).value
    for mixed in (dict(reversed(named.items())), {name: named[name] for name in sorted(named)}):
        assert torch.allclose(cs.overlap(solution, masks.by_magnitude(mixed)).value, right)
        first = masks.by_magnitude(mixed, k=7)
        assert torch.allclose(cs.overlap(solution, first).value, cs.overlap(solution, masks.by_magnitude(model, k=7)).value)
    renamed = {f"other.{name}": part for name, part in named.items()}
    with pytest.raises(InvalidArgument, match=r"other\.0\.weight"):
        cs.overlap(solution, masks.by_magnitude(renamed))
    wrapped = {f"module.{name}": part for name, part in named.items()}
    assert torch.equal(cs.overlap(solution, masks.by_magnitude(wrapped)).value, right)


def test_wrong_masks_are_named(model, solution):
    size = solution.eigenvectors.shape[0]
    for wrong, word in (
        (torch.ones(size + 1, dtype=torch.bool), f"{size + 1} entries"),
        (torch.zeros(size, dtype=torch.bool), "no parameter"),
        (torch.tensor([3, 3]), "places"),
        ({"0.weight": torch.ones(3, 4)}, "0.bias"),
        ([torch.ones(4, 3), torch.ones(3), torch.ones(2, 3), torch.ones(2)], "shapes"),
    ):
        with pytest.raises((InvalidArgument, InvalidType), match=word):
            cs.overlap(solution, wrong)
    with pytest.raises(InvalidType, match="dictionary by parameter name"):
        cs.overlap(solution, ["a", "b"])


def test_pruned_models_in_the_order_that_pruning_leaves(model):
    pruned = copy.deepcopy(model)
    prune.l1_unstructured(pruned[0], "weight", amount=0.5)
    prune.l1_unstructured(pruned[2], "bias", amount=1)
    H = cs.hessian(pruned, torch.nn.MSELoss(), [(torch.randn(8, 4), torch.randn(8, 2))])
    solution = cs.eigsh(H, k=5)
    buffers = dict(pruned.named_buffers())
    parts = [buffers.get(name.removesuffix("_orig") + "_mask", torch.ones_like(p)) for name, p in pruned.named_parameters()]
    right = captured(solution, torch.cat([part.flatten() for part in parts]).bool())
    for form in (masks.from_pruned(pruned), buffers):
        assert torch.allclose(cs.overlap(solution, form).value, right)
    with pytest.raises(InvalidArgument, match=r"prune\.remove"):
        masks.from_pruned(model)


def test_sizes_complements_and_patterns(model):
    size = 23
    mask = masks.by_magnitude(model, fraction=0.3)
    assert mask.count == 7
    assert masks.by_magnitude(model, k=5).count == masks.random(size, 5).count == 5
    assert masks.random(model, fraction=0.5, seed=3).count == 12
    assert (~mask).count == size - 7
    assert (mask & ~mask).count == 0
    assert (mask | ~mask).count == size
    assert np.asarray(mask).sum() == mask.sum() == 7
    pattern = masks.n_of_m(model, 1, 2)
    kept = model[0].weight.detach().abs().reshape(-1, 2)
    assert torch.equal(pattern.to_bool()[:12].reshape(-1, 2).long().argmax(1), kept.argmax(1))
    for wrong in ({"k": 3, "fraction": 0.1}, {"fraction": 0.0}, {"fraction": 1.5}, {"k": 0}, {"k": 24}):
        with pytest.raises(InvalidArgument):
            masks.by_magnitude(model, **wrong)
    with pytest.raises(InvalidType, match="first"):
        ~masks.by_magnitude(model)


def test_names_lead_to_ours():
    with pytest.raises(AttributeError, match="by_magnitude"):
        _ = masks.top_k
    assert dir(masks) == sorted(masks.__all__)


def test_curves_end_where_asked(model, solution):
    whole = cs.overlap(solution, masks.by_magnitude(model))
    assert torch.equal(cs.overlap(solution, masks.by_magnitude(model), k=3).value, whole.value[:3])
    with pytest.raises(InvalidArgument, match="from 1 to 5"):
        cs.overlap(solution, masks.by_magnitude(model), k=6)


def test_masks_of_any_form_are_compared(model, solution):
    mask = cs.masks.by_magnitude(model, 7)
    flat = mask.to_bool()
    for form in (flat, flat.float(), flat.numpy(), mask.index, mask.index.numpy()):
        assert cs.grassmann.similarity(form, mask, "iou") == 1.0
        assert cs.grassmann.distance(solution, form, "overlap") == cs.grassmann.distance(solution, mask, "overlap")
        assert torch.equal(cs.grassmann.angles(form, solution), cs.grassmann.angles(mask, solution))
    other = torch.roll(flat, 1)
    shared = int((flat & other).sum())
    assert cs.grassmann.similarity(flat, other, "iou") == pytest.approx(shared / (14 - shared))
    with pytest.raises(InvalidArgument, match=r"a vector .D,. of booleans where a mask is"):
        cs.grassmann.angles(torch.rand(len(flat)) + 1, mask)


def test_a_mask_of_the_weights_alone_says_what_to_add(model, solution):
    weights = {name: p.abs() > 0.1 for name, p in model.named_parameters() if "weight" in name}
    with pytest.raises(InvalidArgument, match="zeros for those that the mask does not hold, ones for"):
        cs.overlap(solution, weights)
    whole = weights | {name: torch.ones_like(p) for name, p in model.named_parameters() if name not in weights}
    assert cs.overlap(solution, whole).dimension is not None
