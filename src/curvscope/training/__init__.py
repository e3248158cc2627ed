"""Along training: plain SGD on a problem, parameters kept and curvature tracked, also from Lightning and Hugging Face."""

from curvscope.training.callbacks import lightning_callback, trainer_callback
from curvscope.training.lines import LineProfile, interpolate, loss_along
from curvscope.training.recorder import Recorder
from curvscope.training.sgd import train
from curvscope.training.tracker import Tracker

__all__ = [
    "LineProfile",
    "Recorder",
    "Tracker",
    "interpolate",
    "lightning_callback",
    "loss_along",
    "train",
    "trainer_callback",
]
