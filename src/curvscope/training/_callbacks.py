"""A recorder or tracker called from other loops: Lightning and the Hugging Face Trainer; neither is imported before."""

from __future__ import annotations

import sys
from importlib import import_module
from types import FrameType
from typing import Any

from curvscope.errors import InvalidType, MissingExtra
from curvscope.system import checked
from curvscope.training._recorder import Recorder
from curvscope.training._tracker import Tracker

LIGHTNING = ("lightning.pytorch", "pytorch_lightning")


@checked
def lightning_callback(recorder: Recorder | Tracker) -> Any:
    """A Lightning callback that records (or tracks) the chosen steps: ``Trainer(callbacks=[lightning_callback(recorder)])``.

    A step is an update of the optimizer (``trainer.global_step``), whatever the number of batches accumulated for it; the
    last one is recorded when training ends. Only the process of rank zero writes. What a tracker finds goes to all of the
    trainer's loggers.

    Args:
        recorder: of the module that is trained (or of a part of it); or a tracker of it.

    Raises:
        MissingExtra: neither ``lightning`` nor ``pytorch_lightning`` is installed. InvalidType: something else than a recorder.
    """
    _check(recorder)
    base: Any = _lightning().Callback

    class RecorderCallback(base):
        """Records a model along Lightning's training."""

        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            """Before the update: step s are the parameters before update s."""
            self._record(trainer)

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            """After the last update."""
            self._record(trainer)

        def _record(self, trainer: Any) -> None:
            if trainer.is_global_zero and (found := recorder.step(trainer.global_step)):
                for logger in trainer.loggers:
                    logger.log_metrics(found, step=trainer.global_step)

    return RecorderCallback()


@checked
def trainer_callback(recorder: Recorder | Tracker) -> Any:
    """A callback for the Hugging Face Trainer: ``Trainer(..., callbacks=[trainer_callback(recorder)])``.

    A step is an update of the optimizer (``state.global_step``); the last one is recorded when training ends. Only the main
    process writes. What a tracker finds goes where the Trainer's own numbers go: to ``state.log_history``, the progress bar,
    and every reporter of ``report_to`` (TensorBoard, Weights & Biases and so on).

    Args:
        recorder: of the model that is trained (or of a part of it); or a tracker of it.

    Raises:
        MissingExtra: ``transformers`` is not installed. InvalidType: something else than a recorder or tracker.
    """
    _check(recorder)
    try:
        base: Any = import_module("transformers").TrainerCallback
        handler = import_module("transformers.trainer_callback").CallbackHandler
    except ImportError as error:
        raise MissingExtra("trainer_callback needs transformers: pip install 'curvscope[hf]'") from error

    class RecorderCallback(base):
        """Records a model along the Trainer's training."""

        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            """Before the update: step s are the parameters before update s."""
            self._record(args, state, control)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            """After the last update; when training ends the reporters have closed their files already."""
            if control.should_training_stop or state.global_step >= state.max_steps > 0:
                self._record(args, state, control)

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            """After the last update, where training was stopped otherwise."""
            self._record(args, state, control)

        def _record(self, args: Any, state: Any, control: Any) -> None:
            if state.is_world_process_zero and (found := recorder.step(state.global_step)):
                logs = found if getattr(state, "epoch", None) is None else {**found, "epoch": state.epoch}
                state.log_history.append({**logs, "step": state.global_step})
                caller = _caller(handler)
                if caller is not None:
                    due = control.should_log
                    caller.on_log(args, state, control, logs)
                    control.should_log = due  # the Trainer's own numbers are still to come

    return RecorderCallback()


def _check(recorder: Any) -> None:
    if not callable(getattr(recorder, "step", None)):
        raise InvalidType(
            f"recorder is of type {type(recorder).__name__}: pass curvscope.Tracker(model, loss, data), or a curvscope.Recorder"
        )


def _caller(kind: type) -> Any:
    """Return the object of a class whose method called us.

    A Trainer hands neither itself nor its other callbacks to a callback, and the reporters hold the only open files.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if isinstance(found := frame.f_locals.get("self"), kind):
            return found
        frame = frame.f_back
    return None


def _lightning() -> Any:
    for name in LIGHTNING:
        try:
            return import_module(name)
        except ImportError:
            continue
    raise MissingExtra("lightning_callback needs Lightning: pip install lightning")
