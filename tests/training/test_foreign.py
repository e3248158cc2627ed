"""Recordings of other codes, and gradients beside parameters: what is read is what was written; what does not fit is named."""

import json

import pytest
import torch
from torch import nn

import curvscope as cs
from curvscope.errors import DamagedData, InvalidArgument, RunNotFound
from curvscope.training import numbers_of, read_log, read_parameters

h5py = pytest.importorskip("h5py")


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 2))


def vector(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def written(file, **sets):
    with h5py.File(file, "w") as content:
        for name, values in sets.items():
            content[name.replace("__", "/")] = values.numpy() if isinstance(values, torch.Tensor) else values
    return file


@pytest.mark.parametrize("shape", [(14,), (14, 1), (1, 14)])
def test_a_flat_vector_of_any_shape(model, shape, tmp_path):
    file = written(tmp_path / "p.h5", params=vector(model).double().reshape(shape), step=torch.tensor(3.0))
    found = read_parameters(file, model)
    assert all(torch.equal(found[name], p) for name, p in model.named_parameters())
    other = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 2))
    other.load_state_dict(found)
    assert torch.equal(vector(other), vector(model))


def test_a_data_set_for_each_parameter(model, tmp_path):
    sets = {name.replace(".", "__"): p.detach() for name, p in model.named_parameters()}
    found = read_parameters(written(tmp_path / "p.h5", **sets), model)
    assert all(torch.equal(found[name], p) for name, p in model.named_parameters())


@pytest.mark.parametrize("dtype", [">f4", ">f8", "<f2"])
def test_bytes_in_another_order(model, dtype, tmp_path):
    found = read_parameters(written(tmp_path / "p.h5", params=vector(model).numpy().astype(dtype)), model)
    for name, p in model.named_parameters():
        torch.testing.assert_close(found[name], p.detach(), rtol=1e-3, atol=1e-4)


def test_separators_of_unicode_are_no_new_lines(tmp_path):
    log = tmp_path / "log.jsonl"
    lines = [{"note": "a\u2028b\x85c", "loss": 1.0}, {"loss": 2.0}]
    log.write_text("\r\n".join(json.dumps(line, ensure_ascii=False) for line in lines) + "\n", encoding="utf-8")
    assert numbers_of(read_log(log), "loss") == [1.0, 2.0]


def test_what_does_not_fit_is_named(model, tmp_path):
    two = written(tmp_path / "two.h5", a=vector(model), b=vector(model))
    with pytest.raises(InvalidArgument, match=r"a \(14,\), b \(14,\)"):
        read_parameters(two, model)
    assert torch.equal(read_parameters(two, model, dataset="b")["0.bias"], model[0].bias)
    with pytest.raises(InvalidArgument, match="D = 14"):
        read_parameters(written(tmp_path / "short.h5", a=vector(model)[1:]), model)
    with pytest.raises(InvalidArgument, match="dataset='c'"):
        read_parameters(two, model, dataset="c")
    broken = vector(model).clone()
    broken[3] = float("nan")
    with pytest.raises(DamagedData, match="not finite"):
        read_parameters(written(tmp_path / "nan.h5", a=broken), model)
    (tmp_path / "text.h5").write_text("no")
    with pytest.raises(DamagedData, match="is no HDF5 file"):
        read_parameters(tmp_path / "text.h5", model)
    with pytest.raises(RunNotFound):
        read_parameters(tmp_path / "nothing.h5", model)


def test_logs_of_json_lines(tmp_path):
    log, lines = tmp_path / "log.jsonl", [{"step": 0, "loss": 2.5}, ["now", "EVENT", {"loss": 2}], ["now", "END"]]
    text = "\n".join(json.dumps(line) for line in lines)
    log.write_text(text + "\n\n" + '{"step": 1, "lo')  # killed while it was writing
    entries = read_log(log)
    assert entries == [{"step": 0, "loss": 2.5}, {"head": ["now", "EVENT"], "loss": 2}, {"head": ["now", "END"]}]
    assert numbers_of(entries, "loss") == [2.5, 2.0]
    log.write_text('{"a": 1}\nno\n{"a": 2}')
    with pytest.raises(DamagedData, match="line 2"):
        read_log(log)
    log.write_bytes('{"a": 1}\r\n{"b": "é'.encode()[:-1])  # killed inside a character
    assert read_log(log) == [{"a": 1}]
    log.write_bytes(b'\xef\xbb\xbf{"a": 1}\n')  # with a mark of the byte order
    assert read_log(log) == [{"a": 1}]
    log.write_bytes(b"\x89HDF\r\n\x1a\n\0\0\n{}")
    with pytest.raises(DamagedData, match="line 1 is no JSON"):
        read_log(log)
    with pytest.raises(RunNotFound, match="is no file"):
        read_log(tmp_path)
    log.write_text("3\n[]")
    with pytest.raises(DamagedData, match="line 1: expected an object"):
        read_log(log)


@pytest.mark.parametrize("kept", ["memory", "disk"])
def test_gradients_are_recorded_on_request(model, kept, tmp_path):
    place = tmp_path / "steps" if kept == "disk" else None
    recorder = cs.Recorder(model, [0, 1], path=place, gradients=True)
    with pytest.raises(InvalidArgument, match="between backward"):
        recorder.step(0)
    model(torch.ones(4, 3)).square().sum().backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    recorder.step(0)
    model.zero_grad()
    again = recorder if place is None else cs.Recorder(model, [0, 1], path=place, resume=True)
    found = again.gradient(0)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    with pytest.raises(RunNotFound, match="gradients=True"):
        again.gradient(1)
