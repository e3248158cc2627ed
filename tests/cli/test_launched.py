"""Commands in two processes, as torchrun starts them: process 0 runs the command, both multiply."""

import json
import os
import socket
import subprocess
import sys

import pytest
import torch

import curvscope as cs

TARGET = """
import torch
from torch import nn
import curvscope as cs

def make(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    x, y = torch.randn(23, 5), torch.arange(23) % 3
    return model, nn.CrossEntropyLoss(), [(x[:14], y[:14]), (x[14:], y[14:])]

def operator():
    return cs.hessian(*make())

def fails():
    raise OSError("no such data")
"""


def launched(arguments, folder, processes=2):
    """Exit status, output and errors of each process."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "localhost", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "curvscope", *map(str, arguments)],
            env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    said = [process.communicate(timeout=400) for process in started]
    return [(process.returncode, *texts) for process, texts in zip(started, said, strict=True)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that two processes made, and what they said."""
    folder = tmp_path_factory.mktemp("launched")
    (folder / "experiment.py").write_text(TARGET)
    found = launched(["eigs", "experiment.py:make", "-k", 3, "--tol", "1e-5", "-o", "run", "--json"], folder)
    return folder, found


def test_the_pairs_are_those_of_all_data_and_process_0_alone_speaks(run):
    _, ((status, output, errors), others) = run
    assert status == 0, errors
    assert others == (0, "", "")
    scope = {}
    exec(TARGET, scope)
    model, loss, data = scope["make"]()
    H = cs.hessian(model, loss, data, dtype=torch.float64)
    expected = torch.linalg.eigvalsh(H @ torch.eye(H.shape[0], dtype=torch.float64))
    expected = expected[expected.abs().argsort(descending=True)][:3]
    assert torch.allclose(torch.tensor(json.loads(output)["eigenvalues"], dtype=torch.float64), expected, rtol=1e-5)


@pytest.mark.slow
def test_certificates_and_estimates_of_the_run(run):
    folder, _ = run
    for command in (
        ["certify", "run"],
        ["trace", "run", "--max-products", 40],
        ["density", "run", "--probes", 2],
    ):
        (status, output, errors), others = launched([*command, "--trust"], folder)
        assert status == 0, errors
        assert output
        assert others == (0, "", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "words"), [("experiment.py:operator", "return (model, loss, data)"), ("experiment.py:fails", "no such data")]
)
def test_errors_are_told_once_and_end_all_processes(run, target, words):
    folder, _ = run
    (status, _, errors), others = launched(["eigs", target, "-k", 3, "-o", "other"], folder)
    assert status == 2
    assert words in " ".join(errors.split())
    assert others[0] == 0


@pytest.mark.slow
def test_commands_of_files_alone(run):
    folder, _ = run
    (status, output, errors), others = launched(["info", "run"], folder)
    assert status == 0, errors
    assert "run" in output
    assert others == (0, "", "")
