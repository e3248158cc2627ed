"""Evaluate somebody else's model without leaving a trace: modes, random state, kernels and precision are put back."""

from __future__ import annotations

import logging
import random
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from curvscope.operators._inference import out_of_inference
from curvscope.operators.objective._bookkeeping import without_bookkeeping
from curvscope.operators.objective._writes import attributes_restored
from curvscope.operators.rules import without_reruns
from curvscope.system import float32_products

log = logging.getLogger(__name__)

BATCH_NORMS = nn.modules.batchnorm._BatchNorm
DROPOUTS = (nn.modules.dropout._DropoutNd, nn.RNNBase, nn.MultiheadAttention)

TOLD: weakref.WeakSet[nn.Module] = weakref.WeakSet()
"""Models of which was said that running statistics are used in the place of the batches'."""

ONE_AT_A_TIME = threading.RLock()
"""Held while a model is borrowed: its parameters are exchanged in place, and switches of PyTorch's belong to all threads."""


@contextmanager
def isolated(
    model: nn.Module,
    device: torch.device,
    *,
    batch_statistics: bool,
    dropout: bool,
    tf32: bool = False,
    evaluated: bool = True,
) -> Iterator[None]:
    """Evaluation mode, second-order kernels and full precision inside; everything as it was outside.

    Args:
        model: its modules' modes are set and restored.
        device: whose random state and kernels are looked after.
        batch_statistics: whether batch normalisation uses the batch's statistics rather than its running ones.
        dropout: whether dropout is on.
        tf32: whether float32 numbers are multiplied in TF32 after all.
        evaluated: whether the model is run at all; else its modes and the random state can stay as they are.
    """
    with ExitStack() as stack:
        stack.enter_context(ONE_AT_A_TIME)
        stack.enter_context(out_of_inference())
        if evaluated:
            stack.enter_context(_random_state(device))
            stack.enter_context(attributes_restored(model))
            stack.enter_context(_modes(model, batch_statistics=batch_statistics, dropout=dropout))
            if "torch._dynamo" in sys.modules:  # what is compiled runs as it was written: it has no second derivatives
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            stack.enter_context(without_reruns())
            stack.enter_context(without_bookkeeping(model))
        stack.enter_context(_kernels(model, device))
        stack.enter_context(float32_products(tf32=tf32))
        yield


@contextmanager
def _random_state(device: torch.device) -> Iterator[None]:
    """Data loaders and augmentations draw from the global generators."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


@contextmanager
def _modes(model: nn.Module, *, batch_statistics: bool, dropout: bool) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    sparse = [module for module in modes if isinstance(module, nn.Embedding) and module.sparse]
    norms = [module for module in modes if isinstance(module, BATCH_NORMS)] if batch_statistics else []
    tracking = {module: module.track_running_stats for module in norms}
    statistics = {module: (module.running_mean, module.running_var) for module in norms}
    try:
        model.eval()
        for embedding in sparse:
            embedding.sparse = False  # sparse gradients have no derivatives
        for norm in norms:
            # Without running statistics the layer uses the batch's, in either mode, and updates nothing.
            norm.track_running_stats, norm.running_mean, norm.running_var = False, None, None
        for module in modes:
            if dropout and isinstance(module, DROPOUTS):
                module.training = True
        yield
    finally:
        for module, training in modes.items():
            module.training = training
        for embedding in sparse:
            embedding.sparse = True
        for norm in norms:
            norm.track_running_stats = tracking[norm]
            norm.running_mean, norm.running_var = statistics[norm]


@contextmanager
def _kernels(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Fused attention and recurrent kernels have no second derivative; autocast is not exact."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(torch.autocast(device.type, enabled=False))
        if any(isinstance(module, nn.RNNBase) for module in model.modules()):
            stack.enter_context(_without_cudnn() if device.type == "cuda" else _without_onednn())
        try:
            torch.backends.mha.set_fastpath_enabled(False)
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast_path)


@contextmanager
def _without_cudnn() -> Iterator[None]:
    # torch.backends.cudnn.flags would set determinism and TF32 as well.
    enabled = torch.backends.cudnn.enabled
    try:
        torch.backends.cudnn.enabled = False
        yield
    finally:
        torch.backends.cudnn.enabled = enabled


@contextmanager
def _without_onednn() -> Iterator[None]:
    # torch.backends.mkldnn.flags would also set TF32, which warns on a machine without an Intel GPU.
    enabled = torch._C._get_mkldnn_enabled()
    try:
        torch._C._set_mkldnn_enabled(False)
        yield
    finally:
        torch._C._set_mkldnn_enabled(enabled)


def trains_with_batch_statistics(model: nn.Module) -> bool:
    """Return whether the model, in the mode that it is in, normalises by the statistics of each batch.

    >>> model = nn.Sequential(nn.BatchNorm1d(2))
    >>> trains_with_batch_statistics(model), trains_with_batch_statistics(model.eval())
    (True, False)
    """
    return any(isinstance(m, BATCH_NORMS) and m.training and m.running_mean is not None for m in model.modules())


def say_running_statistics(model: nn.Module) -> None:
    """Say once for a model in training mode that another function is measured than training minimises."""
    if model not in TOLD and trains_with_batch_statistics(model):
        TOLD.add(model)
        log.warning(
            "the model is in training mode, where batch normalisation uses the statistics of each batch, but its curvature is "
            "measured with the running statistics: eigenvalues may be many times larger or smaller. Pass batchnorm='batch' for "
            "the loss that training minimises, or batchnorm='eval' (or call model.eval()) for the trained network"
        )


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside wrappers for data parallelism and compilation; said in a log message, as names change with it."""
    while isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
        log.warning("measuring the module inside %s: parameter names lose their 'module.'", type(model).__name__)
        model = model.module
    inner = getattr(model, "_orig_mod", None)
    return inner if isinstance(inner, nn.Module) else model
