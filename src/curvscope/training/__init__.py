"""Along training: plain SGD on a problem, and parameters kept at chosen steps."""

from curvscope.training.recorder import Recorder
from curvscope.training.sgd import train

__all__ = ["Recorder", "train"]
