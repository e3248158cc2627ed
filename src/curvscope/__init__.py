"""Loss curvature of neural networks at scale, with error bars."""

from importlib.metadata import version

from curvscope.operators import as_operator, ggn, hessian

__version__ = version("curvscope")

__all__ = ["__version__", "as_operator", "ggn", "hessian"]
