"""Tones whose pitch is known, and the trained network that hears it (where torchcrepe is installed)."""

import importlib.util
import math

import numpy as np
import pytest
import torch

import curvscope as cs
from curvscope.errors import InvalidArgument, MissingExtra
from curvscope.problems._crepe import BINS, CENTS_A_BIN, LOWEST_CENTS, RATE, SAMPLES, hertz, tones

INSTALLED = importlib.util.find_spec("torchcrepe") is not None


def test_tones_have_the_pitch_of_their_targets():
    frames, targets = tones(64, seed=3)
    assert torch.allclose(frames.mean(1), torch.zeros(64), atol=1e-5)
    assert torch.allclose(frames.std(1), torch.ones(64), atol=1e-5)
    places = LOWEST_CENTS + CENTS_A_BIN * np.arange(BINS)
    for frame, target in zip(frames.double().numpy(), targets.double().numpy(), strict=True):
        inside = target > 1e-3  # a Gaussian's logarithm is a parabola: its vertex is the pitch
        square, slope, _ = np.polyfit(places[inside], np.log(target[inside]), 2)
        pitch = 10 * 2 ** (-slope / (2 * square) / 1200)
        assert square == pytest.approx(-1 / (2 * 25**2), rel=1e-3)
        harmonics = pitch * np.arange(1, 13)
        harmonics = harmonics[harmonics < RATE / 2]
        phase = 2 * math.pi * np.outer(np.arange(SAMPLES) / RATE, harmonics)
        waves = np.concatenate([np.sin(phase), np.cos(phase), np.ones((SAMPLES, 1))], axis=1)
        left = frame - waves @ np.linalg.lstsq(waves, frame, rcond=None)[0]
        assert left.std() < 0.11  # noise of a tenth at most: nothing else is in the tone


def test_tones_are_fixed_and_differ():
    problem = cs.problems.get("crepe_tiny")
    first, again = problem.curvature_batches("train"), problem.curvature_batches("train")
    assert torch.equal(first[0][0], again[0][0])
    assert not torch.equal(first[0][0], problem.curvature_batches("test")[0][0])
    assert torch.equal(problem.evaluation_batches("test")[0][0], problem.curvature_batches("test")[0][0])
    batches, later = problem.train_batches(), problem.train_batches(start=1)
    next(batches)
    assert torch.equal(next(batches)[0], next(later)[0])
    seen = {float(x[0, 0]) for split in ("train", "test") for x, _ in problem.evaluation_batches(split)}
    assert len(seen) == 32


def test_scale_of_cents():
    assert float(hertz(torch.tensor(LOWEST_CENTS))) == pytest.approx(31.70, abs=0.01)
    assert float(hertz(torch.tensor(LOWEST_CENTS + 1200.0))) == pytest.approx(2 * 31.70, abs=0.02)


def test_what_is_not_there_is_told(monkeypatch):
    with pytest.raises(InvalidArgument, match="crepe makes its tones itself"):
        cs.problems.get("crepe", data="somewhere")
    monkeypatch.setitem(__import__("sys").modules, "torchcrepe", None)
    with pytest.raises(MissingExtra, match="pip install torchcrepe"):
        cs.problems.get("crepe").model()


@pytest.mark.skipif(not INSTALLED, reason="torchcrepe is not installed")
@pytest.mark.filterwarnings("ignore")
def test_the_trained_network_hears_the_pitch():
    problem = cs.problems.get("crepe_tiny")
    model, (x, y) = problem.model(), problem.evaluation_batches("test")[0]
    assert sum(p.numel() for p in model.parameters()) == 486_552
    with torch.no_grad():
        off = (model(x).argmax(1) - y.argmax(1)).abs() * CENTS_A_BIN
    assert (off <= 50).float().mean() > 0.95
    own = model.model(x)  # torchcrepe's own forward pass, with its last sigmoid
    assert torch.allclose(torch.sigmoid(model(x)), own, atol=1e-6)
