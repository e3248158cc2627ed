"""Along training: plain SGD on a problem, parameters kept and curvature tracked, also from Lightning and Hugging Face."""

from curvscope.training._callbacks import lightning_callback, trainer_callback
from curvscope.training._foreign import numbers_of, read_log, read_parameters
from curvscope.training._lines import LineProfile, interpolate, loss_along
from curvscope.training._recorded import train_recorded
from curvscope.training._recorder import Recorder
from curvscope.training._sgd import evaluate, train
from curvscope.training._tracker import Tracker

__all__ = [
    "LineProfile",
    "Recorder",
    "Tracker",
    "evaluate",
    "interpolate",
    "lightning_callback",
    "loss_along",
    "numbers_of",
    "read_log",
    "read_parameters",
    "train",
    "train_recorded",
    "trainer_callback",
]
