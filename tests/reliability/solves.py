"""Small solves whose products are counted, in processes of their own."""

import json
import os
import signal
import sys
import traceback

import torch
from torch import nn

import curvscope as cs
from curvscope.operators.base import Operator
from curvscope.operators.fingerprint import fingerprint

K = 4
TOTAL = {"krylov": 60, "seigh": 24}


class Counting(Operator):
    """A fixed symmetric matrix that counts its products."""

    def __init__(self, size=400):
        generator = torch.Generator().manual_seed(0)
        vectors = torch.linalg.qr(torch.randn(size, 12, generator=generator, dtype=torch.float64))[0].float()
        values = torch.tensor([(-1.0) ** i * 10 * 0.8**i for i in range(12)])
        self.matrix = vectors @ torch.diag(values) @ vectors.T + torch.diag(0.01 * torch.rand(size, generator=generator))
        self.matrix = (self.matrix + self.matrix.T) / 2
        self.shape, self.dtype, self.device, self.hermitian = (size, size), torch.float32, torch.device("cpu"), True
        self.products = 0

    def _apply(self, block):
        self.products += block.shape[1]
        return self.matrix @ block

    def _fingerprint(self):
        return fingerprint("counting", self.matrix)


def solve(method, run, operator=None, k=K):
    """One solve in a run; the operator that counted, and the solution."""
    A = operator or Counting()
    if method == "krylov":  # restarts, adds random directions, and goes on to the end of its budget
        found = cs.eigsh(
            A, k, method="krylov", tol=0, max_products=TOTAL["krylov"], block_size=2, ncv=16, run=run, progress=False
        )
    else:
        found = cs.seigh(A, num_outer=TOTAL["seigh"], k=k, block_size=4, run=run, progress=False)
    return A, found


def network():
    """A Hessian of a network, whose run holds parameters."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    return cs.hessian(model, nn.CrossEntropyLoss(), [(torch.randn(12, 4), torch.arange(12) % 3)])


def in_a_fork(work, report, seconds=120):
    """Call ``work`` in a forked child; its exit status, minus the signal that killed it, and what it returned as JSON."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 70
        try:
            torch.set_num_threads(1)
            signal.alarm(seconds)  # nothing waits for ever
            report.write_text(json.dumps(work()))
            status = 0
        except cs.CurvscopeError as error:
            report.write_text(json.dumps(f"{type(error).__name__}: {error}"))
            status = 3
        except BaseException:  # noqa: BLE001 -- told to the parent
            report.write_text(json.dumps(traceback.format_exc()))
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    return code, json.loads(report.read_text()) if report.exists() else None
