"""What the papers left open: beyond their networks, why large weights align, random steps along masks."""

from curvscope.studies.beyond import (
    _alignment as alignment,
    _beyond as beyond,
    _perturbations as perturbations,
)

__all__ = [
    "alignment",
    "beyond",
    "perturbations",
]
