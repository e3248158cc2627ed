"""What a solve was given goes away meanwhile: its terminal, the reader of its pipe, its folder, or the right to write there."""

import json
import os
import pty
import re
import shutil
import tempfile

import pytest
import torch

import curvscope as cs

from .gone import Child, Waiting

EXACT = [2.0, 1.94, 1.8818]


def is_exact(result):
    return json.loads(result) == pytest.approx(EXACT, rel=1e-9)


@pytest.mark.parametrize("kind", ["memory", pytest.param("run", marks=pytest.mark.slow)])
def test_a_closed_terminal_ends_the_bar_and_nothing_else(tmp_path, kind):
    ours, theirs = pty.openpty()
    child = Child(tmp_path, kind, theirs)
    os.close(theirs)
    assert os.read(ours, 100_000)  # there was a bar
    os.close(ours)
    status, result, error = child.ended()
    assert (status, error) == (0, "")
    assert is_exact(result)


def test_a_pipe_that_nobody_reads_ends_the_bar_and_nothing_else(tmp_path):
    ours, theirs = os.pipe()
    child = Child(tmp_path, "memory", theirs)
    os.close(theirs)
    os.close(ours)
    status, result, error = child.ended()
    assert (status, error) == (0, "")
    assert is_exact(result)


def test_a_removed_folder_loses_nothing_that_is_in_memory(tmp_path):
    child = Child(tmp_path, "run")
    shutil.rmtree(tmp_path / "run")
    _, result, error = child.ended()
    assert not error
    assert is_exact(result)
    assert "was removed during the work: the results in memory are returned" in (tmp_path / "output").read_text()


def test_a_removed_folder_that_held_the_basis_is_named(tmp_path):
    child = Child(tmp_path, "disk")
    shutil.rmtree(tmp_path / "run")
    _, result, error = child.ended()
    assert re.search(r"RunConflict: .*run was removed during the work \(.*\): what it held is lost\. Run the same", error)
    assert not result


def test_the_run_of_another_process_in_the_same_place_is_left_alone(tmp_path):
    child = Child(tmp_path, "run")
    (tmp_path / "run").rename(tmp_path / "old")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "lock").touch()
    _, _, error = child.ended()
    assert error.startswith("RunConflict")
    assert "another process works there now: it is left alone" in error
    assert not (tmp_path / "run" / "solution").exists()
    assert not (tmp_path / "run" / "manifest.json").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's process is needed, since root may write everywhere")
def test_a_folder_made_read_only_is_named_and_resumes(tmp_path):
    for place in (tmp_path, *(folder for folder in tmp_path.parents if folder.is_relative_to(tempfile.gettempdir()))):
        place.chmod(0o777)
    child = Child(tmp_path, "run", user=65534)
    folders = [place for place in (tmp_path / "run", *(tmp_path / "run").rglob("*")) if place.is_dir()]
    for place in folders:
        place.chmod(0o555)
    _, _, error = child.ended()
    assert re.search(r"RunConflict: .*run can no longer be written to \(.*\): what was saved stays\. Make it writable", error)
    for place in folders:
        place.chmod(0o777)
    operator = Waiting(None, None)
    operator.blocks = 100  # it does not wait
    options = {"method": "krylov", "block_size": 2, "tol": 1e-6, "progress": False}
    found = cs.eigsh(operator, 3, run=tmp_path / "run", **options)
    assert torch.equal(found.eigenvalues, cs.open(tmp_path / "run").eigenvalues)
    assert is_exact(json.dumps(found.eigenvalues.tolist()))
