"""Recipes: what other processes need to build an operator, and refuse to build."""

import pickle

import pytest
import torch
import worker_targets as targets

import curvscope as cs
from curvscope.errors import InvalidArgument, InvalidType, TargetNotFound

HERE = targets.__name__


def test_a_recipe_makes_the_same_operator_elsewhere():
    recipe = cs.Recipe(targets.network, dtype="float64")
    again = pickle.loads(pickle.dumps(recipe))
    assert again == recipe
    assert hash(again) == hash(recipe)
    assert again.build().fingerprint == recipe.build().fingerprint
    assert recipe.target == f"{HERE}:network"
    assert recipe != cs.Recipe(targets.network, dtype="float32")


def test_what_a_function_may_return():
    assert cs.Recipe(targets.rectangle).build().shape == (120, 90)
    assert cs.Recipe(f"{HERE}:spectrum", size=50).build().dtype == torch.float64


def test_options_are_plain():
    with pytest.raises(InvalidType, match="plain"):
        cs.Recipe(targets.spectrum, start=torch.ones(3))


def test_functions_that_others_cannot_import():
    with pytest.raises(InvalidArgument, match="module of its own"):
        cs.Recipe(lambda: None)
    local = type("Local", (), {"__module__": "__main__", "__qualname__": "make"})
    with pytest.raises(InvalidArgument, match="module of its own"):
        cs.Recipe(local)


def test_errors_name_the_target():
    with pytest.raises(TargetNotFound, match="no function 'missing'"):
        cs.Recipe(f"{HERE}:missing").build()
    with pytest.raises(TargetNotFound, match="unexpected keyword"):
        cs.Recipe(targets.network, colour="red").build()


def test_an_operator_without_a_recipe_is_refused_before_any_work(immediate):
    with pytest.raises(InvalidArgument, match=r"cs\.Recipe"):
        cs.eigsh(torch.eye(2000), 3, executor=immediate(2))
