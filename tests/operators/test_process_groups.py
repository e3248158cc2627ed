"""One matrix over the processes of a group: the same for any number of them, decided in one place."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import curvscope as cs
from curvscope.errors import InvalidArgument
from curvscope.operators.collective._grouped import DIGESTS, samples_digest

from .cases import dense_hessian
from .group_members import SAMPLES, problem


@pytest.fixture(scope="module", params=[2, pytest.param(3, marks=pytest.mark.slow)])
def found(request, tmp_path_factory):
    """What each of several processes found."""
    folder = tmp_path_factory.mktemp("group")
    command = [sys.executable, str(Path(__file__).with_name("group_members.py"))]
    started = [
        subprocess.Popen([*command, str(rank), str(request.param), str(folder)], stderr=subprocess.PIPE, text=True)
        for rank in range(request.param)
    ]
    errors = [process.communicate(timeout=300)[1] for process in started]
    assert not any(process.returncode for process in started), "\n".join(errors)
    return [torch.load(folder / f"found{rank}.pt", weights_only=False) for rank in range(request.param)]


@pytest.fixture(scope="module")
def whole():
    model, criterion, data = problem()
    return model, criterion, [data[:]]


def close(result, expected):
    torch.testing.assert_close(result, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["hessian", "ggn", "empirical_fisher"])
def test_the_matrix_is_that_of_all_data_in_every_process(found, whole, name):
    """Samples that the sampler repeats are counted once: 23 are no multiple of 2 or 3."""
    assert SAMPLES % len(found)
    H = getattr(cs, name)(*whole)
    expected = H @ torch.eye(H.shape[1], dtype=H.dtype)
    if name == "hessian":
        close(expected, dense_hessian(*whole))
    for one in found:
        close(one[name], expected)
    assert torch.equal(found[0][name], found[1][name])


def test_parts_of_unequal_size_are_weighted_by_loss_terms(found, whole):
    for one in found:
        close(one["uneven"], dense_hessian(*whole))
        close(one["damped"], (dense_hessian(*whole) + 0.5 * torch.eye(len(one["damped"]))).sum(1))


def test_gradient_and_loss_are_those_of_all_data(found, whole):
    H = cs.hessian(*whole)
    for one in found:
        close(one["gradient"], H.gradient())
        assert one["loss"] == pytest.approx(H.loss(), rel=1e-12)


def test_a_solve_gives_the_same_bits_to_all_and_the_right_pairs(found, whole):
    dense = dense_hessian(*whole)
    values, vectors = torch.linalg.eigh(dense)
    order = values.abs().argsort(descending=True)[:3]
    for one in found:
        assert one["converged"].all()
        close(one["values"], values[order])
        torch.testing.assert_close((one["vectors"].T @ vectors[:, order]).abs(), torch.eye(3).double(), rtol=0, atol=1e-6)
        assert torch.equal(one["vectors"], found[0]["vectors"])
        assert one["trace"] == found[0]["trace"] == pytest.approx(float(dense.trace()), rel=1e-6)
        close(one["shifted"], 2 * values[order[:2]] + 1)


def test_a_run_is_written_once_and_resumed_by_all(found):
    assert all(one["again"] == one["products"] == found[0]["products"] for one in found)


def test_a_moved_operator_is_that_of_the_new_weights(found, whole):
    model, criterion, data = whole
    model = problem()[0]
    with torch.no_grad():
        model[0].weight.mul_(1.5)
    for one in found:
        close(one["moved"], dense_hessian(model, criterion, data))


def test_a_part_of_the_data_is_not_taken_for_all(found):
    assert all("group='world'" in one["part"] and f"1/{len(found)} of the data" in one["part"] for one in found)


def test_errors_reach_every_process(found):
    for rank, one in enumerate(found):
        assert one["bad k"].startswith("InvalidArgument: k=10000")
        assert ("width=0" in one["bad option"]) if rank else ("process 1 of the group failed" in one["bad option"])
        assert "process 1 has another matrix, model, loss or dtype than process 0" in one["other model"]
        assert "use ggn, whose expectation it estimates" in one["order"]
        assert "process 1 of the group does" in one["calls"]
        assert "all processes must make the same calls" in one["calls"]


def test_a_process_that_fails_in_a_solve_ends_it_in_all(found):
    for rank, one in enumerate(found):
        assert "no more" in one["failing"]
        assert one["failing"].startswith("WorkerError: process 1 of the group failed" if rank != 1 else "ArithmeticError")


def test_another_precision_is_of_all_data(found, whole):
    """float32 parameters and inputs, rounded first, multiplied in float64."""
    _, criterion, data = whole
    rounded = [(x.float().double(), y) for x, y in data]
    expected = dense_hessian(problem()[0].float().double(), criterion, rounded)
    for one in found:
        close(one["double"], expected)


def test_a_process_outside_of_the_group_is_told(found):
    for one in found[1:]:
        assert "not in the group" in one["stranger"]


def test_a_group_has_to_be_begun(whole):
    with pytest.raises(InvalidArgument, match="torchrun"):
        cs.hessian(*whole, group="world")
    with pytest.raises(InvalidArgument, match="torchrun"):
        cs.ggn(nn.Linear(2, 2), nn.MSELoss(), [(torch.ones(1, 2), torch.ones(1, 2))], group="all")


def test_another_split_of_the_same_samples_is_the_same_operator_to_a_run(found):
    for one in found:
        assert one["fingerprints"][0] == one["fingerprints"][1]
        assert one["other fingerprint"] != one["fingerprints"][0]
        assert torch.equal(one["resumed"], one["values"])
        assert "RunConflict" in one["other data"]
        assert "samples" in one["other data"] or "loss" in one["other data"]


def test_the_digest_of_samples_knows_no_order_and_no_batches():
    model, criterion, data = problem()
    x, y = data[:]
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(5))
    whole = samples_digest(cs.Objective(model, criterion, [(x, y)]))
    for batches in ([(x[order], y[order])], [(x[:9], y[:9]), (x[9:], y[9:])]):
        assert samples_digest(cs.Objective(model, criterion, batches)) == whole
    parts = [samples_digest(cs.Objective(model, criterion, [(x[rank::3], y[rank::3])])) for rank in range(3)]
    assert sum(parts) % DIGESTS == whole
    for changed in ([(x, y.flip(0))], [(x[1:], y[1:])], [(x, y), (x[:1], y[:1])]):
        assert samples_digest(cs.Objective(model, criterion, changed)) != whole
