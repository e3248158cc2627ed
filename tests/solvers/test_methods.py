"""Methods as objects: each equals its name, options are checked and refused in words."""

import inspect

import pytest
import torch

import curvscope as cs
from curvscope.errors import InvalidArgument, InvalidType

A = torch.diag(torch.cat([torch.tensor([9.0, -8.0, 7.0, -6.0, 5.0]), torch.linspace(1, 0.01, 75)]).double())

PAIRS = [
    ("krylov", cs.Krylov()),
    ("exact", cs.Exact()),
    ("seigh", cs.Seigh()),
    ("oversampled", cs.Seigh()),
    ("hmt", cs.HMT()),
    ("nystrom", cs.Nystrom()),
    ("singlepass", cs.SinglePass()),
    ("krylov", cs.Krylov(block_size=3, ncv=30, max_products=60)),
    ("seigh", cs.Seigh(max_products=20, block_size=7)),
    ("hmt", cs.HMT(max_products=20, block_size=7)),
    ("nystrom", cs.Nystrom(max_products=20)),
    ("singlepass", cs.SinglePass(max_products=20)),
    ("exact", cs.Exact(block_size=9)),
]


@pytest.mark.parametrize(("name", "method"), PAIRS)
def test_an_object_equals_its_name_with_the_same_options(name, method):
    given = {key: value for key, value in method.options().items() if key in ("block_size", "ncv", "max_products") and value}
    one = cs.eigsh(A, 4, method=name, seed=3, progress=False, **given)
    other = cs.eigsh(A, 4, method=method, seed=3, progress=False)
    assert torch.equal(one.eigenvalues, other.eigenvalues)
    assert torch.equal(one.eigenvectors.to_tensor(), other.eigenvectors.to_tensor())
    assert one.provenance["options"] == other.provenance["options"]


@pytest.mark.parametrize(
    ("function", "method", "sizes"),
    [
        (
            cs.seigh,
            cs.Seigh,
            {"num_outer": 10, "num_inner": 16, "num_left": 30, "core": "published", "left_sketch": "gaussian"},
        ),
        (cs.solvers.hmt, cs.HMT, {"num_outer": 12, "sketch": "sparse_sign"}),
        (cs.solvers.nystrom, cs.Nystrom, {"num_outer": 12, "rank": 9, "definite": False}),
        (cs.solvers.singlepass, cs.SinglePass, {"num_products": 16}),
        (cs.solvers.singlepass, cs.SinglePass, {"num_products": 16, "num_outer": 8}),
    ],
)
def test_an_object_with_sizes_equals_the_function(function, method, sizes):
    one, other = (
        function(A, k=4, seed=1, progress=False, **sizes),
        cs.eigsh(A, 4, method=method(**sizes), seed=1, progress=False),
    )
    assert torch.equal(one.eigenvalues, other.eigenvalues)
    assert one.provenance["options"] == other.provenance["options"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "hmt", "ncv": 9}, InvalidArgument, 'ncv has no meaning for method="hmt"'),
        ({"method": "exact", "max_products": 9}, InvalidArgument, 'max_products has no meaning for method="exact"'),
        ({"method": "seigh", "keep_basis": True}, InvalidArgument, 'keep_basis has no meaning for method="seigh"'),
        ({"method": "nystrom", "v0": torch.ones(80)}, InvalidArgument, 'v0 has no meaning for method="nystrom"'),
        ({"method": cs.Exact(), "v0": torch.ones(80)}, InvalidArgument, 'v0 has no meaning for method="exact"'),
        ({"method": cs.Krylov(), "ncv": 30}, InvalidArgument, r"write method=cs\.Krylov\(ncv=...\)"),
        ({"method": 3}, InvalidType, "method"),
        ({"method": cs.Krylov}, InvalidType, "method"),
        ({"blocksize": 3}, InvalidType, "did you mean 'block_size'"),
        ({"num_outer": 3}, InvalidType, r"write method=cs\.Seigh\(num_outer=...\)"),
        ({"max_iterations": 3}, InvalidType, "max_products"),
        ({"certify_overlap": None}, InvalidType, r"cs\.eigsh_for_overlap"),
        ({"method": cs.HMT(num_outer=9, max_products=9)}, InvalidArgument, "pass one of them"),
        ({"method": cs.SinglePass(num_products=9, max_products=9)}, InvalidArgument, "pass one of them"),
        ({"method": cs.Seigh(num_inner=9)}, InvalidArgument, "num_inner=9 without num_outer"),
        ({"method": cs.HMT(num_outer=2)}, InvalidArgument, "k=4"),
    ],
)
def test_options_that_do_not_apply_are_refused_before_any_product(options, error, message):
    operator = cs.as_operator(A)
    operator._apply = lambda block: pytest.fail("multiplied")
    with pytest.raises(error, match=message):
        cs.eigsh(operator, 4, **options)


@pytest.mark.parametrize("method", [cs.Krylov, cs.Exact, cs.Seigh, cs.HMT, cs.Nystrom, cs.SinglePass])
def test_options_are_checked_when_the_object_is_made(method):
    for wrong in (0, True, 1.5, "3"):
        with pytest.raises(InvalidArgument, match="block_size"):
            method(block_size=wrong)
    made = method(block_size=torch.tensor(3))
    assert type(made.block_size) is int
    assert made == method(block_size=3)
    assert hash(made) == hash(method(block_size=3))


def test_the_signature_can_be_held():
    named = [
        p
        for p in inspect.signature(inspect.unwrap(cs.eigsh), follow_wrapped=False).parameters.values()
        if p.kind is not p.VAR_KEYWORD
    ]
    assert len(named) <= 12
    assert cs.eigsh(A).k == 6


def test_a_basis_is_kept_by_the_object_too():
    few = cs.eigsh(A, 2, method=cs.Krylov(keep_basis=True), progress=False)
    more = cs.eigsh(A, 4, method="krylov", v0=few, progress=False)
    assert more.status.converged
    assert few.basis is not None
    assert more.basis is None
    assert more.cost.products < few.cost.products + cs.eigsh(A, 4, method="krylov", progress=False).cost.products
