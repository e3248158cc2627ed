"""Data and models as other libraries hold them: tables of ``datasets``, parameters that are sharded over processes."""

from types import SimpleNamespace

import datasets
import pytest
import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

import curvscope as cs
from curvscope.errors import InvalidArgument, InvalidType

GENERATOR = torch.Generator().manual_seed(0)
X, Y = torch.randn(150, 4, generator=GENERATOR), torch.arange(150) % 3


def net():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 3))


def loss(model, batch):
    assert batch["x"].ndim == 2, "rows come in batches"
    return nn.functional.cross_entropy(model(batch["x"]), batch["label"])


def table(**further):
    return datasets.Dataset.from_dict({"x": X.tolist(), "label": Y.tolist(), **further})


class OwnLoss(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, x, label):
        return SimpleNamespace(loss=loss(self.net, {"x": x, "label": label}))


FORMS = {
    "plain": lambda: table(),
    "torch": lambda: table().with_format("torch"),
    "numpy": lambda: table().with_format("numpy"),
    "streamed": lambda: table().to_iterable_dataset(),
    "streamed tensors": lambda: table().with_format("torch").to_iterable_dataset(),
    "selected": lambda: table().select(range(150)),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_table_is_read_in_batches(form):
    vector = torch.ones(15)
    expected = cs.hessian(net(), nn.CrossEntropyLoss(), [(X, Y)]) @ vector
    assert torch.allclose(cs.hessian(net(), loss, FORMS[form]()) @ vector, expected, atol=1e-6)
    assert torch.allclose(cs.hessian(OwnLoss(), "model", FORMS[form]()) @ vector, expected, atol=1e-6)


def test_columns_of_texts_are_left_out_and_said_once(caplog):
    H = cs.hessian(OwnLoss(), "model", table(text=["x"] * 150, url=["y"] * 150))
    assert H.shape == (15, 15)
    assert caplog.text.count("left out of the batches: text, url") == 1


def test_splits_and_ragged_columns_are_refused_in_words():
    with pytest.raises(InvalidType, match=r"splits 'train', 'test': pass one of them, data\['train'\]"):
        cs.hessian(net(), loss, datasets.DatasetDict({"train": table(), "test": table()}))
    with pytest.raises(InvalidArgument, match=r"column 'tokens' have different lengths: pad them"):
        cs.hessian(net(), loss, table(tokens=[[1] * (1 + i % 2) for i in range(150)]))
    with pytest.raises(InvalidArgument, match="a criterion needs pairs"):
        cs.hessian(net(), nn.CrossEntropyLoss(), table())


@pytest.fixture(scope="module")
def mesh():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


SHARDED = {
    "fully_shard": lambda mesh: fully_shard(net(), mesh=mesh),
    "the first FSDP": lambda mesh: FullyShardedDataParallel(net(), device_id=torch.device("cpu")),
    "tensor parallel": lambda mesh: parallelize_module(net(), mesh, {"0": ColwiseParallel()}),
}


@pytest.mark.parametrize("how", SHARDED)
@pytest.mark.filterwarnings("ignore")
def test_sharded_parameters_are_refused_in_words(how, mesh):
    with pytest.raises(InvalidArgument, match=r"is sharded over processes .* load the whole weights"):
        cs.hessian(SHARDED[how](mesh), nn.CrossEntropyLoss(), [(X, Y)])
