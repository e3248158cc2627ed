"""A recorded program through PyTorch's compiler: inductor's kernels in the place of one call for each operation.

There is no autograd in a program: derivatives are resolved. So the compiler's ban on differentiating twice does not concern it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from curvscope.operators.products._memory import is_out_of_memory

Run = Callable[..., tuple[Tensor | None, ...]]


def compiled(program: fx.GraphModule, arguments: Sequence[Tensor]) -> tuple[Run | None, str]:
    """The program as compiled functions, run once on these arguments; or None and why it cannot be compiled here.

    Compiled code is cached on disk by PyTorch itself (``TORCHINDUCTOR_CACHE_DIR``). Cost: 30 s to minutes.
    """
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of the compiler about itself
            run: Any = torch.compile(program, fullgraph=True, dynamic=False)
            run(*arguments)
    except Exception as error:  # a missing compiler, an operation that it does not know: nothing that a user did
        if is_out_of_memory(error):
            raise
        return None, (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return run, ""
