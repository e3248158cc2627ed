"""Along training: plain SGD on a problem, and parameters kept at chosen steps, also from Lightning and Hugging Face."""

from curvscope.training.callbacks import lightning_callback, trainer_callback
from curvscope.training.recorder import Recorder
from curvscope.training.sgd import train

__all__ = ["Recorder", "lightning_callback", "train", "trainer_callback"]
