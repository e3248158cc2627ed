"""Data in shards: the matrix of all data, whatever the sizes of the shards."""

import pytest
import torch
import worker_targets as targets

import curvscope as cs
from curvscope.errors import InvalidArgument, WorkerError


@pytest.mark.parametrize("options", [{}, {"reduction": "sum"}, {"matrix": "ggn"}, {"weighted": True}])
@pytest.mark.parametrize("num_shards", [1, 2, 5])
def test_shards_of_unequal_size_make_the_matrix_of_all_data(immediate, options, num_shards):
    recipe = cs.Recipe(targets.shard, **options)
    whole = recipe.build()
    H = cs.data_parallel(recipe, num_shards, immediate(3))
    block = torch.randn(whole.shape[0], 4, dtype=torch.float64)
    assert torch.allclose(H @ block, whole @ block, rtol=1e-12, atol=1e-14)
    assert torch.allclose(H @ block[:, 0], whole @ block[:, 0], rtol=1e-12, atol=1e-14)
    assert H.parameters == whole.parameters


def test_shards_on_dask_workers(dask_workers):
    recipe = cs.Recipe(targets.shard)
    H, block = cs.data_parallel(recipe, 2, dask_workers), torch.ones(43, 2, dtype=torch.float64)
    assert torch.allclose(H @ block, recipe.build() @ block, rtol=1e-12, atol=1e-14)


def test_eigenpairs_of_sharded_data(immediate, tmp_path):
    recipe = cs.Recipe(targets.shard)
    H = cs.data_parallel(recipe, 4, immediate(2))
    found = cs.eigsh(H, 3, method="krylov", run=tmp_path / "run", progress=False)
    assert torch.allclose(found.eigenvalues, cs.eigsh(recipe.build(), 3, progress=False).eigenvalues, rtol=1e-6)
    assert found.vector(0).keys() == set(recipe.build().parameters.names)


def test_another_number_of_shards_is_another_operator(immediate):
    one, same, other = (cs.data_parallel(cs.Recipe(targets.shard), count, immediate(2)) for count in (2, 2, 3))
    assert one.fingerprint == same.fingerprint != other.fingerprint


def test_shards_of_different_models_are_refused(immediate):
    with pytest.raises(InvalidArgument, match="shard 1 has another model"):
        cs.data_parallel(cs.Recipe(targets.shard, drifting=True), 2, immediate(2))


def test_what_is_no_shard(immediate):
    with pytest.raises(InvalidArgument, match="num_shards=0"):
        cs.data_parallel(cs.Recipe(targets.shard), 0, immediate(2))
    with pytest.raises((WorkerError, cs.CurvscopeError), match="unexpected keyword argument"):
        cs.data_parallel(cs.Recipe(targets.rectangle), 2, immediate(2))
    with pytest.raises(InvalidArgument, match="shards are curvature operators"):
        cs.data_parallel(cs.Recipe(targets.no_shard), 2, immediate(2))
