"""The byte-level transformer, its text and its training, on a tiny variant."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import curvscope as cs
from curvscope.errors import InvalidArgument, RunConflict
from curvscope.problems._base import Defaults
from curvscope.problems._text import read_sources
from curvscope.problems._textgpt import TextGpt
from curvscope.problems._transformer import Sizes
from curvscope.training import evaluate, train_recorded


class Tiny(TextGpt):
    """Two blocks of width 8."""

    name = "tiny"
    sizes = Sizes(length=12, width=8, heads=2, layers=2)
    defaults = Defaults(seed=1, batch_size=4, learning_rate=0.5, steps=(0, 4), num_outer=10, num_inner=20)
    evaluation_windows = 5


@pytest.fixture(scope="module")
def problem(tmp_path_factory):
    file = tmp_path_factory.mktemp("text") / "words.txt"
    file.write_text("Whoso é list to hunt, I know where is an hind. " * 60, encoding="utf-8")
    found = Tiny(file)
    found.origin = file
    return found


def test_tokens_are_bytes(problem):
    ((x, y),) = problem.curvature_batches()
    assert x.shape == y.shape == (8, 12)
    assert x.dtype is torch.int64
    assert bytes(x[0].tolist()).decode() == "Whoso é lis"  # 12 bytes, two of them for one letter
    assert torch.equal(x[:, 1:], y[:, :-1])
    assert sum(len(batch[0]) for batch in problem.evaluation_batches()) == 5
    assert evaluate(problem, problem.model())[0] == pytest.approx(torch.tensor(256.0).log().item(), abs=0.2)


def test_an_interrupted_training_resumes_with_the_same_bits(problem, tmp_path, monkeypatch):
    whole = train_recorded(problem, tmp_path / "whole", steps=7, every=3)
    assert len(whole) == 8
    assert whole[-1] < whole[0]

    def fails(step):
        raise KeyboardInterrupt

    windows = problem.windows
    right = windows.random

    def random(count, seed, start):
        for step, batch in enumerate(right(count, seed, start), start=start):
            if step == 5:
                fails(step)
            yield batch

    with monkeypatch.context() as patched:
        patched.setattr(type(windows), "random", lambda self, *arguments: random(*arguments))
        with pytest.raises(KeyboardInterrupt):
            train_recorded(problem, tmp_path / "cut", steps=7, every=3)
    assert not (tmp_path / "cut" / "step_000006.safetensors").exists()
    assert train_recorded(problem, tmp_path / "cut", steps=7, every=3) == whole
    last = [cs.Recorder(problem.model(), [7], path=tmp_path / place, resume=True).state(7) for place in ("whole", "cut")]
    assert all(torch.equal(last[0][name], last[1][name]) for name in last[0])
    assert train_recorded(problem, tmp_path / "whole", steps=9, every=3)[:8] == whole  # goes on from 7


def test_fewer_steps_leave_what_was_recorded_beyond_them(problem, tmp_path):
    whole = train_recorded(problem, tmp_path, steps=7, every=3)
    model = problem.model()
    assert train_recorded(problem, tmp_path, steps=4, every=3, model=model) == whole[:5]
    assert json.loads((tmp_path / "losses.json").read_text()) == whole
    at_four = cs.Recorder(problem.model(), [4], path=tmp_path, resume=True).state(4)
    assert all(torch.equal(at_four[name], tensor) for name, tensor in model.state_dict().items())
    assert train_recorded(problem, tmp_path, steps=7, every=3) == whole


def test_a_folder_of_an_earlier_version_resumes(problem, tmp_path):
    whole = train_recorded(problem, tmp_path, steps=2)
    (tmp_path / "training.json").write_text('{"problem": "tiny", "seed": 1}\n')
    assert train_recorded(problem, tmp_path, steps=4)[:3] == whole


def test_what_does_not_fit_together_is_refused(problem, tmp_path):
    train_recorded(problem, tmp_path / "run", steps=1)
    with pytest.raises(RunConflict, match="seed 1, not 2"):
        train_recorded(problem, tmp_path / "run", steps=1, seed=2)
    with pytest.raises(InvalidArgument, match="every=0"):
        train_recorded(problem, tmp_path / "run", steps=1, every=0)
    other = Tiny(Path(__file__))
    with pytest.raises(RunConflict, match=r"holds a training with data .* or the same data"):
        train_recorded(other, tmp_path / "run", steps=1)
    other = Tiny(problem.origin)
    other.defaults = replace(other.defaults, learning_rate=0.25)
    with pytest.raises(RunConflict, match=r"learning rate 0\.5, not 0\.25"):
        train_recorded(other, tmp_path / "run", steps=1)
    (tmp_path / "run" / "training.json").unlink()
    with pytest.raises(RunConflict, match="of another recording"):
        train_recorded(problem, tmp_path / "run", steps=1)


def test_sources_are_those_of_an_installed_package():
    text = read_sources("safetensors")
    assert b"safe_open" in text
    assert text == read_sources("safetensors")
    with pytest.raises(InvalidArgument, match="sources of no_such_package, which is not installed"):
        read_sources("no_such_package")


def test_the_text_of_the_problem_has_megabytes():
    """Of the sources themselves, which are not read here: 16 MB."""
    from importlib.util import find_spec

    place = Path(find_spec("sympy").submodule_search_locations[0])
    sizes = [f.stat().st_size for f in place.rglob("*.py") if not {"tests", "benchmarks"} & set(f.relative_to(place).parts)]
    assert sum(sizes) > 5_000_000
