"""Threads are taken away where other processes hold the cores; the clocks are told, not read."""

import logging

import pytest
import torch

import curvscope as cs
from curvscope.system import Contention, threads


@pytest.fixture
def clocks(monkeypatch):
    """Wall time, all cores' work and this process's, as a test says; four cores, four threads; nothing was said before."""
    monkeypatch.setattr(Contention, "_told", False)
    told = [(0.0, 0.0, 0.0)]
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("curvscope.system._contention._clocks", lambda: told[-1])
    monkeypatch.setattr("curvscope.system._contention.os.cpu_count", lambda: 4)
    with threads(4):
        yield told


@pytest.mark.parametrize(
    ("busy", "own", "left"),
    [
        (8.0, 8.0, None),  # all work is ours
        (8.0, 7.4, None),  # 0.3 of a core: the system's own
        (8.0, 6.8, 3),
        (8.0, 4.0, 2),
        (8.0, 0.2, 1),
        (4.0, 2.0, 3),
    ],
)
def test_threads_that_have_no_core_are_taken_away(clocks, caplog, busy, own, left):
    contention = Contention()
    clocks.append((2.0, busy, own))
    with caplog.at_level(logging.WARNING, logger="curvscope"):
        assert contention.look() == left
    assert torch.get_num_threads() == (left or 4)
    assert ("other processes keep" in caplog.text) == (left is not None)


def test_a_moment_is_too_short_to_tell(clocks):
    contention = Contention()
    clocks.append((0.5, 2.0, 0.1))
    assert contention.look() is None


def test_fewer_threads_than_cores_are_left_alone(clocks):
    torch.set_num_threads(2)
    contention = Contention()
    clocks.append((2.0, 8.0, 4.0))
    assert contention.look() is None


def test_who_says_how_many_threads_has_them(clocks, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    contention = Contention()
    clocks.append((2.0, 8.0, 0.0))
    assert contention.look() is None


def test_a_solve_gives_the_threads_back(clocks, monkeypatch):
    seen = []
    ticks = iter(range(10_000))

    def busy():
        now = 2.0 * next(ticks)
        return now, 3 * now, 0.0

    monkeypatch.setattr("curvscope.system._contention._clocks", busy)
    H = cs.problems.spectrum("power", 200)
    inner = H._apply
    H._apply = lambda block: seen.append(torch.get_num_threads()) or inner(block)
    cs.eigsh(H, 3, method="krylov", progress=False)
    assert (seen[0], seen[-1], torch.get_num_threads()) == (4, 1, 4)


def test_a_person_is_told_once(clocks, caplog):
    with caplog.at_level(logging.INFO, logger="curvscope"):
        for busy in (8.0, 16.0):
            torch.set_num_threads(4)
            contention = Contention()
            clocks.append((clocks[-1][0] + 2.0, busy, 0.0))
            assert contention.look() == 1
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
