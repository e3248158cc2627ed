"""The packaged digits and the pinned definition of mnist16."""

import hashlib
from itertools import islice

import numpy as np
import pytest
import torch
from torch import nn

import curvscope as cs
from curvscope.errors import InvalidArgument
from curvscope.problems import full, lowest_of_each_class
from curvscope.problems._digits import packaged


@pytest.fixture(scope="module")
def problem():
    return cs.problems.get("mnist16")


def test_packaged_digits_are_what_they_were():
    digits = packaged()
    assert digits.train_images.shape == (10_000, 16, 16)
    assert digits.test_images.shape == (2_000, 16, 16)
    assert digits.train_images.dtype == torch.uint8
    assert digits.train_labels.bincount().tolist() == [1_000] * 10
    assert digits.test_labels.bincount().tolist() == [200] * 10
    digest = hashlib.sha256(digits.train_images.numpy().tobytes() + digits.test_images.numpy().tobytes()).hexdigest()
    assert digest == "dd91d7577839daff978881f79a11735c591967a3b7d03da4206b6802f0f44dbd"


def test_architecture_and_initialisation(problem):
    before = torch.random.get_rng_state()
    model = problem.model()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert [tuple(p.shape) for p in model.parameters()] == [*((20, 256), (20,)), *((20, 20), (20,)) * 4, *((10, 20), (10,))]
    assert sum(p.numel() for p in model.parameters()) == 7030
    assert sum(isinstance(m, nn.Tanh) for m in model) == 5
    # drawn twice: the second draw of PyTorch's own rule, by hand
    torch.manual_seed(12345)
    layers = [nn.Linear(a, b) for a, b in [(256, 20), *[(20, 20)] * 4, (20, 10)]]
    for layer in layers:
        layer.reset_parameters()
    for ours, theirs in zip([m for m in model if isinstance(m, nn.Linear)], layers, strict=True):
        assert torch.equal(ours.weight, theirs.weight)
        assert torch.equal(ours.bias, theirs.bias)
    assert not torch.equal(problem.model(seed=1)[1].weight, model[1].weight)


def test_curvature_samples_are_the_fifty_lowest_of_each_digit(problem):
    for split in ("train", "test"):
        ((x, y),) = problem.curvature_batches(split)
        assert x.shape == (500, 1, 16, 16)
        assert (float(x.min()), float(x.max())) == (0.0, 1.0)
        assert y.bincount().tolist() == [50] * 10
        images, labels = problem.digits.split(split)
        for digit in range(10):
            assert torch.equal(x[y == digit], images[labels == digit][:50])


def test_training_order(problem):
    first = list(islice(problem.train_batches(), 18))
    assert all(x.shape == (500, 1, 16, 16) for x, _ in first)
    # 17 batches an epoch; the second epoch starts anew with all 8,500 images
    epoch = torch.cat([x.flatten(1) for x, _ in first[:17]])
    assert len(torch.unique(epoch, dim=0)) > 8_400
    assert not torch.equal(first[17][1], first[0][1])
    again = next(iter(problem.train_batches()))
    assert torch.equal(again[0], first[0][0])
    assert not torch.equal(next(iter(problem.train_batches(seed=1)))[1], first[0][1])


def test_full_set_through_torchvision(tmp_path):
    torchvision = pytest.importorskip("torchvision", exc_type=(ImportError, RuntimeError))
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    originals = {}
    for name, count in (("train", 12), ("t10k", 8)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        header = np.array([2051, count, 28, 28], dtype=">i4").tobytes()
        (raw / f"{name}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        labels = np.arange(count, dtype=np.uint8) % 10
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(np.array([2049, count], dtype=">i4").tobytes() + labels.tobytes())
        originals[name] = images
    digits = full(tmp_path)
    assert digits.complete
    assert digits.train_labels.tolist() == [i % 10 for i in range(12)]
    from PIL import Image

    expected = Image.fromarray(originals["t10k"][3]).resize((16, 16), Image.Resampling.BILINEAR)
    assert np.array_equal(digits.test_images[3].numpy(), np.array(expected))
    assert torchvision.__version__
    labels = raw / "t10k-labels-idx1-ubyte"
    labels.write_bytes(np.array([2049, 9], dtype=">i4").tobytes() + bytes(9))
    with pytest.raises(InvalidArgument, match="8 images and 9 labels"):
        full(tmp_path)
    labels.write_bytes(labels.read_bytes()[:12])
    with pytest.raises(InvalidArgument, match="four idx files, whole"):
        full(tmp_path)


def test_bad_input_is_named(problem, tmp_path):
    with pytest.raises(InvalidArgument, match=r"there is no problem 'mnist': choose one of .*cifar10_3c3d.*, mnist16"):
        cs.problems.get("mnist")
    with pytest.raises(InvalidArgument, match="split='validation': choose 'train' or 'test'"):
        problem.curvature_batches("validation")
    pytest.importorskip("torchvision", exc_type=(ImportError, RuntimeError))
    with pytest.raises(InvalidArgument, match="is not a directory"):
        cs.problems.get("mnist16", data=tmp_path / "nowhere")
    with pytest.raises(InvalidArgument, match="no MNIST in"):
        cs.problems.get("mnist16", data=tmp_path)


def test_lowest_of_each_class_of_an_unbalanced_set():
    assert lowest_of_each_class(torch.tensor([2, 2, 2, 0, 1, 2, 0]), 2).tolist() == [0, 1, 3, 4, 6]
