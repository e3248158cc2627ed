"""Who does the work, how it is shown, and where it is kept; knows no curvature."""

from curvscope.execution.progress import Progress, long_work, stage
from curvscope.execution.threads import threads

__all__ = ["Progress", "long_work", "stage", "threads"]
