"""No bad argument is accepted in silence, none ends in an internal error; good ones of other libraries are taken."""

import inspect
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

import curvscope as cs
from curvscope.errors import CurvscopeError, InvalidArgument, InvalidType
from curvscope.system import checked
from curvscope.system._arguments import Range

from . import arguments, face
from .findings import fallen


@pytest.mark.filterwarnings("ignore")
def test_bad_arguments_are_refused_by_name():
    assert fallen(arguments.tried(whole=False)) == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_all_bad_arguments_are_refused_by_name():
    assert fallen(arguments.tried(whole=True)) == []


def test_every_public_function_is_asked():
    asked = {inspect.unwrap(function) for function, _ in face.functions()}
    public = {name: getattr(cs, name) for name in cs.__all__}
    missing = {name for name, item in public.items() if inspect.isfunction(item) and inspect.unwrap(item) not in asked}
    assert missing == {"data_parallel"}, missing  # its arguments are those of a recipe, checked by tests of workers


A = torch.diag(torch.arange(1.0, 13.0, dtype=torch.float64))
NOTHING = st.one_of(
    st.floats().filter(lambda x: not float(x).is_integer()),
    st.text(max_size=5),
    st.booleans(),
    st.integers(max_value=0),
    st.lists(st.integers(), max_size=2),
    st.binary(max_size=3),
    st.complex_numbers(),
)


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(["k", "block_size", "ncv", "max_products"]), value=NOTHING)
def test_what_is_no_count_is_refused_before_any_product(name, value):
    def forbidden(block):
        raise AssertionError("a product was computed")

    operator = cs.as_operator(A)
    operator._apply = forbidden
    with pytest.raises(CurvscopeError, match=name):
        cs.eigsh(operator, **{"k": 2, "method": "krylov", name: value})


@given(value=st.one_of(st.floats(max_value=-1e-300), st.just(math.nan), st.just(math.inf), st.floats(min_value=1.0)))
@settings(max_examples=40, deadline=None)
def test_what_is_no_probability_is_refused(value):
    with pytest.raises(InvalidArgument, match="confidence"):
        cs.probes_needed(value, 0.5)


def test_numbers_of_numpy_and_scalar_tensors_are_numbers():
    expected = cs.eigsh(A, 2, method="krylov", block_size=2, progress=False).eigenvalues
    for k, block_size, tol in (
        (np.int64(2), np.int32(2), np.float32(1e-3)),
        (torch.tensor(2), np.array(2), torch.tensor(1e-3)),
    ):
        found = cs.eigsh(A, k, method="krylov", block_size=block_size, tol=tol, progress=False)
        assert torch.equal(found.eigenvalues, expected)
        assert type(found.provenance["options"]["block_size"]) is int
    assert cs.trace(A, seed=np.uint8(3), max_products=np.int64(20)).products == 12


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"steps": 0}, "steps=0: choose an integer of at least 1"),
        ({"failure": 2.0}, "failure=2.0: choose a number above 0 and below 1"),
        ({"failure": math.nan}, "failure=nan"),
        ({"steps": True}, "steps=True"),
        ({"seed": 1.5}, "seed=1.5: choose an integer"),
        ({"progress": "yes"}, "progress='yes'"),
    ],
)
def test_certificates_refuse_what_proves_nothing(options, text):
    solution = cs.eigsh(A, 2, progress=False)
    with pytest.raises(InvalidArgument, match=text.replace("(", r"\(")):
        cs.certify(A, solution, **options)


def test_objects_of_other_classes_are_named():
    with pytest.raises(InvalidType, match="solution is of type Tensor: pass one of type Solution"):
        cs.certify(A, A)
    H = cs.hessian(torch.nn.Linear(2, 1), torch.nn.MSELoss(), [(torch.eye(2), torch.ones(2, 1))])
    with pytest.raises(InvalidType, match="there is no option 'microbatch'"):
        cs.eigsh_by_layer(H, microbatch=2)


def test_ranges_hold_what_they_say():
    @checked
    def function(share: float = 0.5, low: float = -math.inf, count: int | None = None) -> tuple:
        return share, low, count

    assert function(1, count=None) == (1, -math.inf, None)
    for bad in ({"share": 1.5}, {"low": math.nan}, {"share": math.inf}, {"count": 0}, {"share": "0.5"}):
        with pytest.raises(InvalidArgument):
            function(**bad)
    assert not Range(0, 1).holds(math.nan)
