"""Copies of operators in this process, and pickles, which hold the recipe."""

import copy
import pickle

import pytest
import torch
from torch import nn

import curvscope as cs
from curvscope.errors import InvalidType

MODULE = """
import torch
from torch import nn

def make(width):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 2))
    return model, nn.MSELoss(), [(torch.randn(9, 3), torch.randn(9, 2))]
"""


@pytest.mark.parametrize("make", [cs.hessian, cs.ggn])
def test_copies_have_the_same_products_and_go_ways_of_their_own(make):
    model, batches = nn.Linear(3, 2), [(torch.randn(9, 3), torch.randn(9, 2))]
    H = make(model, nn.MSELoss(), batches)
    v = torch.randn(H.shape[0])
    whole, shallow = copy.deepcopy(H), copy.copy(H)
    torch.testing.assert_close(whole @ v, H @ v)
    torch.testing.assert_close(shallow @ v, H @ v)
    assert whole.fingerprint == H.fingerprint


@pytest.mark.parametrize("save", [pickle.dumps, lambda H: torch.save(H, "H.pt")], ids=["pickle", "torch.save"])
@pytest.mark.parametrize("make", [cs.hessian, cs.ggn, cs.empirical_fisher])
def test_pickling_a_model_is_answered_in_words(make, save, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    H = make(nn.Linear(3, 2), nn.MSELoss(), [(torch.randn(9, 3), torch.randn(9, 2))])
    with pytest.raises(InvalidType, match=r"save model.state_dict\(\).*cs.Recipe"):
        save(H)


def test_a_pickle_of_a_recipe_makes_the_operator_again(tmp_path, monkeypatch):
    (tmp_path / "pickled_network.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    H = cs.Recipe("pickled_network:make", width=4).build()
    again = pickle.loads(pickle.dumps(H))
    assert again.recipe == H.recipe
    assert again.fingerprint == H.fingerprint
    v = torch.randn(H.shape[0])
    torch.testing.assert_close(again @ v, H @ v)


def test_other_operators_are_pickled_whole():
    A = cs.as_operator(torch.diag(torch.tensor([3.0, 1.0])))
    assert (pickle.loads(pickle.dumps(A)) @ torch.ones(2)).tolist() == [3.0, 1.0]
