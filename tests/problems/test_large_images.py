"""All-CNN-C and ResNet-18: networks against independent ones, data from made trees; nothing of the real sets is needed."""

import tarfile
from itertools import islice

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import curvscope as cs
from curvscope.errors import InvalidArgument
from curvscope.problems import initial_statistics
from curvscope.problems._cifar import CIFAR100
from curvscope.problems._image_folder import DecodedBatches, ImageTree
from curvscope.problems._imagenet_resnet18 import cropped, normalized, whole
from curvscope.training import Recorder, train

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("torchvision")


@pytest.fixture(scope="module")
def allcnnc(tmp_path_factory):
    """CIFAR-100's layout, 12 training and 11 test images a class."""
    root, random = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 11)):
        for label, name in enumerate(CIFAR100.classes):
            place = root / "cifar100-jpeg" / split / name
            place.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                pixels[0, 0] = (label, number, 7)
                Image.fromarray(pixels).save(place / f"{number:04d}.png", compress_level=0)
    return cs.problems.get("cifar100_allcnnc", data=root)


def test_all_cnn_c_is_the_published_network():
    model = cs.problems.get("cifar100_allcnnc").model().eval()
    convolutions = [m for m in model if isinstance(m, nn.Conv2d)]
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    # by hand: TensorFlow's "same" pads stride 1 by one on every side, stride 2 on the right and at the bottom
    pads = [(1, 1, 1, 1), (1, 1, 1, 1), (0, 1, 0, 1)] * 2 + [(0, 0, 0, 0)] * 3
    out = x
    for conv, pad, stride in zip(convolutions, pads, [1, 1, 2, 1, 1, 2, 1, 1, 1], strict=True):
        out = functional.conv2d(functional.pad(out, pad), conv.weight, conv.bias, stride=stride).relu()
    assert out.shape == (2, 100, 6, 6)
    torch.testing.assert_close(model(x), out.mean((2, 3)))
    assert all(bool((conv.bias == 0.1).all()) for conv in convolutions)
    kinds = [m.p for m in model if isinstance(m, nn.Dropout)]
    assert kinds == [0.2, 0.5, 0.5]


def test_curvature_samples_are_the_ten_lowest_of_each_class(allcnnc):
    x, y = (torch.cat(part) for part in zip(*allcnnc.curvature_batches("test"), strict=True))
    assert y.bincount().tolist() == [10] * 100
    pixels, labels = allcnnc.images.raw("test")
    assert torch.equal(x[y == 42], CIFAR100.normalized(pixels[labels == 42][:10]))


def test_augmentation_repeats_and_differs_from_step_to_step(allcnnc, monkeypatch):
    monkeypatch.setattr("curvscope.problems._cifar_problem.HELD_OUT", 100)
    before = torch.random.get_rng_state()
    batches = [x for x, _ in islice(allcnnc.train_batches(), 2)]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(next(allcnnc.train_batches())[0], batches[0])
    assert torch.equal(next(allcnnc.train_batches(start=1))[0], batches[1])
    plain = allcnnc.images.raw("train")[0][:1].expand(2, -1, -1, -1)
    first, second = allcnnc._augmented(plain, 0, 0)
    assert first.shape == (3, 32, 32)
    assert not torch.equal(first, second)


def test_training_with_dropout_goes_on_as_if_not_interrupted(allcnnc, monkeypatch):
    monkeypatch.setattr("curvscope.problems._cifar_problem.HELD_OUT", 100)
    small = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(3072, 100))
    recorder = Recorder(small, [0, 1, 2])
    losses = train(allcnnc, small, recorder)
    again = Recorder(recorder.load(1, small), [2])
    assert train(allcnnc, small, again, start=1) == losses[1:]
    for name, value in recorder.state(2).items():
        assert torch.equal(value, again.state(2)[name])
    with pytest.raises(InvalidArgument, match="start=3: choose 0 to the last recorded step, 2"):
        train(allcnnc, small, again, start=3)


@pytest.fixture
def imagenet(tmp_path, monkeypatch):
    """Three classes: training images of different sizes, validation images, and the sample in a tar file."""
    monkeypatch.setattr("curvscope.problems._imagenet_resnet18.CLASSES", 3)
    monkeypatch.setattr("curvscope.problems._imagenet_resnet18.HELD_OUT", 0)
    random = np.random.default_rng(0)
    for split, count, size in (("train", 2, (300, 260)), ("val", 7, (280, 400)), ("imagenet-sample-224", 1, (224, 224))):
        for label in range(3):
            place = tmp_path / split / f"n{label}"
            place.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
                Image.fromarray(pixels).resize(size[::-1]).save(place / f"{number}.png", compress_level=1)
    with tarfile.open(tmp_path / "imagenet-sample-224.tar", "w") as archive:
        archive.add(tmp_path / "imagenet-sample-224", arcname="imagenet-sample-224")
    return tmp_path


def test_images_are_those_of_image_folder_in_its_order(imagenet):
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import CenterCrop, Compose, Normalize, Resize, ToTensor

    problem = cs.problems.get("imagenet_resnet18", data=imagenet)
    steps = [Resize(256), CenterCrop(224), ToTensor(), Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    theirs = ImageFolder(imagenet / "val", Compose(steps))
    (batch,) = problem.evaluation_batches("test")
    torch.testing.assert_close(batch[0], torch.stack([x for x, _ in theirs]))
    assert batch[1].tolist() == [y for _, y in theirs]
    (chosen,) = problem.curvature_batches("test")
    kept = [i for i in range(21) if i % 7 < 5]
    torch.testing.assert_close(chosen[0], batch[0][kept])
    assert chosen[1].tolist() == [0] * 5 + [1] * 5 + [2] * 5


def test_the_sample_is_taken_as_it_is_from_folder_or_tar(imagenet, tmp_path_factory):
    for name in ("imagenet-sample-224", "imagenet-sample-224.tar"):
        alone = tmp_path_factory.mktemp("alone")
        (imagenet / name).rename(alone / name)
        problem = cs.problems.get("imagenet_resnet18", data=alone)
        ((x, y),) = problem.curvature_batches("test")
        assert (tuple(x.shape), y.tolist()) == ((3, 3, 224, 224), [0, 1, 2])
        tree = ImageTree.open(alone / name)
        assert torch.equal(x, normalized(tree.read(torch.arange(3), whole)))
        with pytest.raises(InvalidArgument, match=r'is only for split="test" \(--split test\)'):
            problem.curvature_batches("train")


def test_batches_are_decoded_once_where_they_are_kept(imagenet):
    tree, decoded = ImageTree.open(imagenet / "train"), []

    def decode(image):
        decoded.append(image.size)
        return cropped(image)

    batches = DecodedBatches(tree, torch.tensor([0, 3, 5]), 2, decode=decode, normalized=normalized, keep=True)
    assert [len(y) for _, y in batches] == [2, 1]
    assert torch.equal(batches[-1][0], batches[1][0])
    assert len(decoded) == 3
    passing = DecodedBatches(tree, torch.tensor([0]), 2, decode=decode, normalized=normalized, keep=False)
    assert [len(y) for _ in range(2) for _, y in passing] == [1, 1]
    assert len(decoded) == 5


def test_training_batches_and_what_is_missing(imagenet, tmp_path_factory, monkeypatch):
    problem = cs.problems.get("imagenet_resnet18", data=imagenet)
    with pytest.raises(InvalidArgument, match="6 training samples are no batch of 150"):
        next(problem.train_batches())
    with pytest.raises(InvalidArgument, match=r"needs ImageNet: pass data=DIR"):
        cs.problems.get("imagenet_resnet18").curvature_batches("test")
    empty = cs.problems.get("imagenet_resnet18", data=tmp_path_factory.mktemp("empty"))
    with pytest.raises(InvalidArgument, match="no train images: expected train/<wnid>/<image>"):
        next(empty.train_batches())
    monkeypatch.setattr("curvscope.problems._imagenet_resnet18.CLASSES", 1000)
    with pytest.raises(InvalidArgument, match="has 3 classes, ImageNet-1k has 1000"):
        cs.problems.get("imagenet_resnet18", data=imagenet).curvature_batches("test")


def test_checkpoints_hold_buffers_and_published_statistics_are_the_initial_ones(tmp_path):
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    recorder = Recorder(model, [0, 1], path=tmp_path)
    recorder.step(0)
    x = torch.randn(8, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    model(3 + x)
    recorder.step(1)
    right = recorder.load(1, model)
    assert float(right[1].running_mean.abs().max()) > 0
    data = [(x, torch.tensor([0, 1] * 4))]
    trained = cs.hessian(right, nn.CrossEntropyLoss(), data)
    published = cs.hessian(initial_statistics(right), nn.CrossEntropyLoss(), data)
    assert float(right[1].running_mean.abs().max()) == 0
    assert bool((right[1].running_var == 1).all())
    assert trained.fingerprint != published.fingerprint
    assert not torch.allclose(trained @ torch.eye(trained.shape[0]), published @ torch.eye(trained.shape[0]))
