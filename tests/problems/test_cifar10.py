"""CIFAR-10 from a tree of images, and the pinned definition of 3c3d; the images here are random."""

import tarfile
from itertools import islice

import numpy as np
import pytest
import torch
from torch import nn

import curvscope as cs
from curvscope.errors import InvalidArgument
from curvscope.problems._cifar import CIFAR10, load
from curvscope.problems._layers import PoolSame

Image = pytest.importorskip("PIL.Image")
PER_CLASS = {"train": 60, "test": 51}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tree with the layout of the real one, 600 + 510 images; pixel (0, 0) holds class and number."""
    root = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for split, count in PER_CLASS.items():
        for label, name in enumerate(CIFAR10.classes):
            place = root / "cifar10-jpeg" / split / name
            place.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                pixels[0, 0] = (label, number, 7)
                Image.fromarray(pixels).save(place / f"{number:04d}.png")
    return root


@pytest.fixture(scope="module")
def problem(folder):
    return cs.problems.get("cifar10_3c3d", data=folder)


def test_a_tree_is_read_in_the_order_of_class_and_file(folder):
    images = load(folder, CIFAR10)
    assert images.origin == "images"
    for split, count in PER_CLASS.items():
        pixels, labels = images.raw(split)
        assert pixels.shape == (10 * count, 3, 32, 32)
        assert labels.tolist() == [label for label in range(10) for _ in range(count)]
        assert pixels[:, :, 0, 0].tolist() == [[label, number, 7] for label in range(10) for number in range(count)]


def test_a_tar_file_gives_the_same(folder, tmp_path):
    with tarfile.open(tmp_path / "cifar10-jpeg.tar.gz", "w:gz", compresslevel=1) as archive:
        archive.add(folder / "cifar10-jpeg", arcname="cifar10-jpeg")
    packed, tree = load(tmp_path, CIFAR10), load(folder, CIFAR10)
    assert torch.equal(packed.train_images, tree.train_images)
    assert torch.equal(packed.test_labels, tree.test_labels)


def test_torchvision_files_are_read_by_torchvision(monkeypatch, tmp_path):
    datasets = pytest.importorskip("torchvision.datasets")
    (tmp_path / "cifar-10-batches-py").mkdir()

    class Stored:
        def __init__(self, root, train, download):
            assert (root, download) == (str(tmp_path), False)
            self.data = np.arange(2 * 32 * 32 * 3, dtype=np.int64).astype(np.uint8).reshape(2, 32, 32, 3)
            self.targets = [3, int(train)]

    monkeypatch.setattr(datasets, "CIFAR10", Stored)
    images = load(tmp_path, CIFAR10)
    assert images.origin == "cifar-10-batches-py"
    assert images.train_labels.tolist() == [3, 1]
    assert images.train_images[0, :, 0, 1].tolist() == [3, 4, 5]


def test_pixels_are_normalised_as_in_the_paper():
    white = CIFAR10.normalized(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8))
    torch.testing.assert_close(
        white[0, :, 0, 0] * torch.tensor([0.24703223, 0.24348513, 0.26158784]), 1 - torch.tensor(CIFAR10.mean)
    )


def test_architecture_and_initialisation(problem):
    before = torch.random.get_rng_state()
    model = problem.model()
    assert torch.equal(torch.random.get_rng_state(), before)
    convolutions = [(64, 3, 5, 5), (64,), (96, 64, 3, 3), (96,), (128, 96, 3, 3), (128,)]
    dense = [(512, 1152), (512,), (256, 512), (256,), (10, 256), (10,)]
    assert [tuple(p.shape) for p in model.parameters()] == convolutions + dense
    assert sum(p.numel() for p in model.parameters()) == 895_210
    torch.manual_seed(12345)
    layers = [nn.Conv2d(3, 64, 5), nn.Conv2d(64, 96, 3), nn.Conv2d(96, 128, 3)]
    layers += [nn.Linear(1152, 512), nn.Linear(512, 256), nn.Linear(256, 10)]
    drawn = [m for m in model if isinstance(m, nn.Conv2d | nn.Linear)]
    for ours, theirs in zip(drawn, layers, strict=True):
        fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(theirs.weight)
        scale = (2 / (fan_in + fan_out)) ** 0.5
        if theirs.weight.ndim == 4:
            theirs.weight.detach().normal_(0, scale)
        else:
            theirs.weight.detach().uniform_(-(3**0.5) * scale, 3**0.5 * scale)
        torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-6, atol=0)
        assert not ours.bias.any()
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_pooling_pads_on_the_right_and_at_the_bottom():
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert PoolSame()(x).tolist() == [[[[10.0, 11.0], [14.0, 15.0]]]]
    assert PoolSame()(-1 - x).tolist() == [[[[-1.0, 0.0], [0.0, 0.0]]]]  # the zeros of the padding count, as in TensorFlow


def test_curvature_samples_are_the_fifty_lowest_of_each_class(problem, folder):
    for split in ("train", "test"):
        batches = problem.curvature_batches(split)
        assert [len(y) for _, y in batches] == [125] * 4
        x, y = (torch.cat(part) for part in zip(*batches, strict=True))
        assert y.bincount().tolist() == [50] * 10
        pixels, labels = load(folder, CIFAR10).raw(split)
        for label in range(10):
            assert torch.equal(x[y == label], CIFAR10.normalized(pixels[labels == label][:50]))


def test_training_batches_repeat_and_leave_out_the_validation_images(problem, monkeypatch):
    monkeypatch.setattr("curvscope.problems._cifar_problem.HELD_OUT", 200)
    members = torch.randperm(600, generator=torch.Generator().manual_seed(12345))[200:]
    first = torch.randperm(400, generator=torch.Generator().manual_seed(12345 + 4933327))
    pixels, labels = problem.images.raw("train")
    batches = list(islice(problem.train_batches(), 4))
    assert [len(y) for _, y in batches] == [128] * 4  # three whole batches an epoch
    chosen = members[first[:128]]
    assert torch.equal(batches[0][0], CIFAR10.normalized(pixels[chosen]))
    assert torch.equal(batches[0][1], labels[chosen])
    assert not torch.equal(batches[3][1], batches[0][1])


def test_without_data_there_is_the_network_and_a_clear_error(tmp_path):
    problem = cs.problems.get("cifar10_3c3d")
    assert isinstance(problem.model(), nn.Sequential)
    with pytest.raises(InvalidArgument, match=r"needs CIFAR-10: pass data=DIR \(--data DIR\)"):
        problem.curvature_batches()
    with pytest.raises(InvalidArgument, match="is not a directory"):
        load(tmp_path / "nowhere", CIFAR10)
    with pytest.raises(InvalidArgument, match="expected cifar-10-batches-py"):
        load(tmp_path, CIFAR10)
    (tmp_path / "cifar10-jpeg" / "train" / "lion").mkdir(parents=True)
    (tmp_path / "cifar10-jpeg" / "train" / "lion" / "0.jpg").write_bytes(b"")
    with pytest.raises(InvalidArgument, match=r"train/lion/0\.jpg is not"):
        load(tmp_path, CIFAR10)


def test_partial_downloads_are_named(tmp_path):
    pytest.importorskip("torchvision.datasets")
    (tmp_path / "cifar10-jpeg.tar.gz").write_bytes(b"\x1f\x8b\x08\x00 the rest did not come")
    with pytest.raises(InvalidArgument, match=r"cifar10-jpeg\.tar\.gz cannot be read, is it whole\?"):
        load(tmp_path, CIFAR10)
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(InvalidArgument, match=r"cifar-10-batches-py cannot be read, is it whole\?"):
        load(tmp_path, CIFAR10)
