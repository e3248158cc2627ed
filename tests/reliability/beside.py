"""Processes beside each other: one writes, any number look; and what a process leaves that dies while it writes."""

import os
import signal
import tempfile
import threading
from pathlib import Path

import torch

import curvscope as cs
from curvscope.runs import certified_of, keep_certificate
from curvscope.store import Lock, Run
from curvscope.store._lock import holder

from . import solves


def cases(whole=False):
    """Yield (what was tried, whether it held)."""
    yield from looking(40 if whole else 5)
    yield from drafts()
    if whole:
        yield from dying(40)


def looking(tries):
    """Yield whether a session could begin while others looked at the run all the time."""
    with tempfile.TemporaryDirectory() as place:
        run, stop = Path(place) / "run", threading.Event()
        solves.solve("krylov", run)

        def look():
            while not stop.is_set():
                assert Run.open(run).in_use in (True, False)

        others = [threading.Thread(target=look) for _ in range(2)]
        for other in others:
            other.start()
        try:
            for number in range(tries):
                try:
                    with Run.open(run).session():
                        held = holder(run)["pid"] == os.getpid()
                except cs.CurvscopeError:
                    held = False
                yield f"session {number} begins while others look", held
        finally:
            stop.set()
            for other in others:
                other.join()


def dying(tries):
    """Yield whether a run has whole results after its process died at the n-th rename or removal, for n = 1, 2, ...

    Results of four pairs are replaced by five, and certified pairs by others.
    """
    with tempfile.TemporaryDirectory() as place:
        for number in range(1, tries + 1):
            run = Path(place) / f"grown-{number}"
            solves.solve("seigh", run, k=4)
            solves.in_a_fork(
                lambda run=run, n=number: _killed_at(n, lambda: solves.solve("seigh", run, k=5)), Path(place) / "r"
            )
            yield f"more pairs, killed at file {number}", _is_whole(run, (4, 5)) and solves.solve("seigh", run, k=5)[1].k == 5
        for number in range(1, min(tries, 8) + 1):
            run = Path(place) / f"certified-{number}"
            _, found = solves.solve("krylov", run)
            better = _refined(found)
            with Run.open(run).session():
                keep_certificate(Run.open(run), better)
            solves.in_a_fork(
                lambda run=run, n=number, better=better: _killed_at(n, lambda: keep_certificate(Run.open(run), better)),
                Path(place) / "r",
            )
            yield f"certified pairs, killed at file {number}", _is_whole(run, (4,)) and solves.solve("krylov", run)[1].k == 4


def _refined(found):
    from dataclasses import replace

    return replace(found, provenance={**found.provenance, "refined from": {}})


def _killed_at(fatal, work):
    count, originals = 0, {}

    def counted(original):
        def changed(*arguments, **options):
            nonlocal count
            count += 1
            if count == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **options)

        return changed

    for name in ("replace", "rename", "unlink"):
        originals[name] = getattr(Path, name)
        setattr(Path, name, counted(originals[name]))
    os.unlink = counted(os.unlink)  # within shutil.rmtree
    os.rmdir = counted(os.rmdir)
    work()


def _is_whole(run, counts):
    """Whether everybody who looks at the run finds results, and of one kind."""
    try:
        found = cs.open(run)
        certified = certified_of(Run.open(run))
    except cs.CurvscopeError:
        return False
    vectors = found.eigenvectors.to_tensor()
    return found.k in counts and certified.k in counts and vectors.shape[1] == found.k and bool(torch.isfinite(vectors).all())


def drafts():
    """Yield whether what a living process writes stays, and what a dead one left goes."""
    with tempfile.TemporaryDirectory() as place:
        run = Path(place) / "run"
        solves.solve("krylov", run)
        from curvscope.store import draft_beside

        mine = draft_beside(run / "certified")
        mine.mkdir()
        child = os.fork()
        if child == 0:
            draft_beside(run / "x").write_text("half")
            os._exit(0)
        os.waitpid(child, 0)
        with Run.open(run).session():
            left = [path for path in run.iterdir() if path.name.endswith(".partial")]
        yield "the draft of a living process stays, that of a dead one goes", left == [mine]
        lock = Lock(run)
        lock.take()
        begun, tell = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(tell, b"x")
            signal.pause()
        os.read(begun, 1)
        lock.release()
        again = Lock(run)
        try:
            again.take()
            held = True
        except cs.CurvscopeError:
            held = False
        finally:
            again.release()
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(begun)
            os.close(tell)
        yield "a forked child does not hold the lock", held
