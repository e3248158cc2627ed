"""How long work is announced and shown; the names that programs outside the library import."""

from curvscope.system import Progress, long_work, stage, threads

__all__ = ["Progress", "long_work", "stage", "threads"]
