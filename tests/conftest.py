import os

if "PYTEST_XDIST_WORKER" in os.environ:  # as many processes as cores: their threads would only wait for one another
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import signal

import pytest
import torch

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a shell: tests send Ctrl-C to themselves
    signal.signal(signal.SIGINT, signal.default_int_handler)

collect_ignore = ["typing/public_face.py", "typing/choices.py"]  # for type checkers alone


@pytest.fixture(autouse=True)
def _untouched_global_state():
    """No test depends on another's random state, and nothing of ours leaves threads or defaults changed."""
    torch.manual_seed(0)
    threads, dtype, grad = torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()
    yield
    assert (torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()) == (threads, dtype, grad)
