"""A solve in a forked process that waits in its 6th block: its terminal, pipe or folder goes away meanwhile."""

import contextlib
import json
import logging
import os
import signal
import sys
import tempfile
import traceback
from pathlib import Path

import torch

import curvscope as cs
from curvscope.operators.base import Operator
from curvscope.operators.fingerprint import fingerprint
from curvscope.store import Run


class Waiting(Operator):
    def __init__(self, begun, go):
        self.values = 2 * 0.97 ** torch.arange(300, dtype=torch.float64)
        self.shape, self.dtype, self.device, self.hermitian = (300, 300), torch.float64, torch.device("cpu"), True
        self.begun, self.go, self.blocks = begun, go, 0

    def _apply(self, block):
        self.blocks += 1
        if self.blocks == 6:
            os.write(self.begun, b"x")
            os.read(self.go, 1)
        return self.values[:, None] * block

    def _fingerprint(self):
        return fingerprint("waiting", self.values)


def solve(place, kind, begun, go):
    """KIND: "memory", "run" (in the folder "run"), or "disk" (the basis lies there, too)."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    run = None if kind == "memory" else place / "run"
    if kind == "disk":
        run = Run.create(run, kind="solve", options={})
        run.manifest["decisions"] = {"resident": False}
        run.save()
    found = cs.eigsh(Waiting(begun, go), 3, method="krylov", block_size=2, tol=1e-6, run=run, progress=True)
    (place / "result").write_text(json.dumps(found.eigenvalues.tolist()))


class Child:
    """A forked process that solves, with ``stream`` for its output, as ``user``; it waits when this is made."""

    def __init__(self, place, kind, stream=None, user=None):
        self.place = place
        begun, self.tell = os.pipe()
        wait, self.go = os.pipe()
        self.process = os.fork()
        if not self.process:
            with contextlib.suppress(BaseException):
                self._work(kind, os.open(place / "output", os.O_CREAT | os.O_WRONLY) if stream is None else stream, user, wait)
            os._exit(1)
        os.close(self.tell)
        assert os.read(begun, 1) == b"x", (place / "error").read_text()

    def _work(self, kind, stream, user, wait):
        os.close(self.go)
        os.dup2(stream, 1)
        os.dup2(stream, 2)
        sys.stdout, sys.stderr = (os.fdopen(descriptor, "w", closefd=False) for descriptor in (1, 2))
        logging.getLogger("curvscope").addHandler(logging.StreamHandler())
        if user is not None:
            with tempfile.TemporaryDirectory() as folder:  # imports all there is: the other user may not read our interpreter
                cs.eigsh(torch.eye(5), 2, method="krylov", run=Path(folder) / "run", progress=False)
            os.setuid(user)
        try:
            solve(self.place, kind, self.tell, wait)
        except BaseException as error:
            (self.place / "error").write_text(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
            raise
        os._exit(0)

    def ended(self):
        """Exit status, result and error of the process, which goes on now."""
        os.write(self.go, b"x")
        status = os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])
        texts = [(self.place / name).read_text() if (self.place / name).exists() else "" for name in ("result", "error")]
        return status, *texts
