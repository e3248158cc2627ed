"""Forms of vectors, matrices and inputs that people type, judged against the dense matrix by differentiation."""

import logging

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import curvscope as cs
from curvscope.errors import InvalidArgument, InvalidType, OutOfBudget
from curvscope.operators import Parameters, _conveniences

torch.manual_seed(0)
X, Y = torch.randn(12, 3), torch.randint(0, 2, (12,))


@pytest.fixture
def model():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 2))


@pytest.fixture
def H(model):
    return cs.hessian(model, nn.CrossEntropyLoss(), [(X, Y)], dtype=torch.float64)


def dense(model):
    names = [name for name, _ in model.named_parameters()]
    flat = torch.cat([p.detach().double().flatten() for p in model.parameters()])

    def loss(vector):
        parts = vector.split([p.numel() for p in model.parameters()])
        named = {n: q.reshape(p.shape) for n, q, p in zip(names, parts, model.parameters(), strict=True)}
        return functional.cross_entropy(torch.func.functional_call(model, named, (X.double(),)), Y)

    return torch.func.hessian(loss)(flat)


def test_dense_forms(model, H):
    D = dense(model)
    for form in (H.to_dense(), np.asarray(H), H.toarray(), torch.from_dlpack(H), H.T.to_dense(), H.H.to_dense()):
        assert np.allclose(np.asarray(form), D, atol=1e-10)
    assert len(H) == 14
    assert np.allclose((H**2).to_dense(), D @ D, atol=1e-10)
    with pytest.raises(OutOfBudget, match="submatrix"):
        cs.identity(10**6).to_dense()


def test_products_give_back_the_form_that_came(model, H):
    D, v = dense(model), torch.randn(14)
    right = D @ v.double()
    single = H @ v
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), right, atol=1e-6)
    array = H @ v.double().numpy()
    assert isinstance(array, np.ndarray)
    assert np.allclose(array, right)
    assert np.allclose(v.double().numpy() @ H, right)
    named = H.unflatten(v.double())
    found = H @ named
    assert list(found) == list(H.names)
    assert torch.allclose(H.flatten(found), right)
    listed = H @ list(named.values())
    assert isinstance(listed, list)
    assert torch.allclose(H.flatten(listed), right)
    assert float(v.double() @ H @ v.double()) == pytest.approx(float(v.double() @ right))
    for name in ("matvec", "rmatvec", "matmat"):
        assert torch.allclose(getattr(H, name)(v.double()), right)
    w, V = cs.eigsh(H, k=3)
    assert torch.allclose(H @ V, V @ torch.diag(w), atol=1e-3)
    assert (H @ model.state_dict())["0.weight"].shape == (2, 3)
    for wrong in (["a"], [torch.ones(2)], {"0.weight": torch.ones(2, 3)}):
        with pytest.raises((InvalidArgument, InvalidType)):
            H @ wrong


def test_sums_with_matrices_scalars_and_the_identity(model, H):
    D = dense(model)
    damped = D + 0.5 * torch.eye(14, dtype=torch.float64)
    for found in (
        H + 0.5 * cs.identity(H),
        H + 0.5 * torch.eye(14),
        H + 0.5 * np.eye(14),
        0.5 * torch.eye(14) + H,
        H.shift(0.5),
    ):
        assert torch.allclose(found.to_dense(), damped, atol=1e-7)
    assert torch.allclose((torch.tensor(2.0) * H).to_dense(), 2 * D)
    assert torch.allclose((H / torch.tensor(2.0)).to_dense(), D / 2)


def test_adjoint_of_a_matrix_that_is_not_hermitian():
    A = torch.randn(3, 5, dtype=torch.float64)
    operator = cs.as_operator(A)
    assert torch.allclose(operator.T.to_dense(), A.T)
    assert torch.allclose(operator.T.T.to_dense(), A)
    assert torch.allclose(operator.rmatvec(torch.ones(3, dtype=torch.float64)), A.T @ torch.ones(3, dtype=torch.float64))


def test_other_dtypes_and_devices(H):
    assert H.to("cpu") is H
    assert H.to("float32").dtype == torch.float32
    with pytest.raises(InvalidArgument, match="device="):
        H.to("meta")


def test_names_lead_to_ours(H):
    for name, word in {"trace": "cs.trace", "diag": "cs.diagonal", "restrict": "submatrix", "symmetric": "hermitian"}.items():
        with pytest.raises(AttributeError, match=word):
            getattr(H, name)
    for name, word in {"fisher": "monte_carlo_fisher", "load": "cs.open", "slq": "cs.density", "eigsch": "eigsh"}.items():
        with pytest.raises(AttributeError, match=word):
            getattr(cs, name)


def test_data_and_losses_as_people_hold_them(model, H):
    D = dense(model)
    for loss, data in (
        (nn.CrossEntropyLoss(), (X, Y)),
        (nn.CrossEntropyLoss(), [X, Y]),
        (lambda m, batch: functional.cross_entropy(m(batch[0]), batch[1]), [(X, Y)]),
        (lambda f, b: functional.cross_entropy(f(b["x"]), b["y"]), {"x": X, "y": Y}),
        (lambda a, b: functional.cross_entropy(a, b), [(X, Y)]),
    ):
        assert torch.allclose(cs.hessian(model, loss, data, dtype="float64").to_dense(), D, atol=1e-10)
    with pytest.raises(InvalidType, match=r"torch\.nn\.functional\.cross_entropy"):
        cs.hessian(model, "crossentropy", [(X, Y)])
    with pytest.raises(InvalidType, match=r"CrossEntropyLoss\(\)"):
        cs.hessian(model, nn.CrossEntropyLoss, [(X, Y)])
    for other in ({"loss_fn": nn.CrossEntropyLoss()}, {"criterion": nn.CrossEntropyLoss()}, {"loss": "cross_entropy"}):
        assert torch.allclose(cs.hessian(model, data=[(X, Y)], dtype="float64", **other).to_dense(), D, atol=1e-10)


def test_parameters_as_people_hold_them(model):
    first = model[0]
    for params in (first, first.parameters(), list(first.parameters()), "0", ["0"], "0.*", {"0.weight": 1, "0.bias": 1}):
        H = cs.hessian(model, nn.CrossEntropyLoss(), [(X, Y)], params=params)
        assert H.names == ("0.weight", "0.bias")
    assert cs.hessian(model, nn.CrossEntropyLoss(), [(X, Y)], params=first.bias).names == ("0.bias",)
    with pytest.raises(InvalidArgument, match="no trainable parameter of the model"):
        cs.hessian(model, nn.CrossEntropyLoss(), [(X, Y)], params=nn.Linear(3, 2).parameters())
    used = first.parameters()
    list(used)
    with pytest.raises(InvalidArgument, match="once only"):
        cs.hessian(model, nn.CrossEntropyLoss(), [(X, Y)], params=used)


def train(model):
    with torch.no_grad():
        model[0].weight.mul_(2)


def replaced(model):
    model[0].weight.data = model[0].weight.data * 2


def loaded(model):
    model.load_state_dict({name: 2 * tensor for name, tensor in model.state_dict().items()})


@pytest.mark.parametrize("change", [train, replaced, loaded])
def test_weights_that_changed_are_noticed_once(model, change, caplog):
    v, of = torch.ones(14, dtype=torch.float64), (model, nn.CrossEntropyLoss(), [(X, Y)])
    # One strategy by name: auto may change its own between two products, which then differ by rounding.
    H, copy = (cs.hessian(*of, dtype=torch.float64, strategy="double_backward", **more) for more in ({}, {"weights": "copy"}))
    before = H @ v
    change(model)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(H @ v, before)
        assert torch.equal(H @ v, before)
        assert torch.equal(copy @ v, before)
    assert caplog.text.count(r"H.move()") == 1
    H.move()
    assert torch.allclose(H @ v, dense(model) @ v)
    assert not torch.allclose(H @ v, before)


def test_weights_that_were_written_and_put_back_are_the_same(model, H, caplog):
    before = model[0].weight.detach().clone()
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].weight.copy_(before)
    H @ torch.ones(14, dtype=torch.float64)
    assert "H.move()" not in caplog.text


def test_columns_are_multiplied_in_groups(H, monkeypatch):
    whole = H.to_dense()
    monkeypatch.setattr(_conveniences, "COLUMNS", 5)
    assert torch.allclose(H.to_dense(), whole)


def test_parameters_are_shown_on_one_screen():
    few = Parameters(("weight", "bias"), (torch.Size([2, 3]), torch.Size([2])))
    assert repr(few) == "2 tensors, D = 8\n  weight  (2, 3)\n  bias  (2,)"
    many = Parameters(tuple(f"layers.{i}.weight" for i in range(1000)), (torch.Size([100, 100]),) * 1000)
    assert "D = 10,000,000" in repr(many)
    assert "... 980 more" in repr(many)
    assert len(repr(many).splitlines()) == 22
