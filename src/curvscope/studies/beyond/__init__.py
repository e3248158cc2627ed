"""What the papers left open."""

from curvscope.studies.beyond import _beyond as beyond

__all__ = [
    "beyond",
]
